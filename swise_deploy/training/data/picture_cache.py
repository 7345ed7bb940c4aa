"""Training pictures, decoded and shrunk once, in a cache keyed by their content.

A picture added, removed or edited gives another key, so a stale cache is never read; nothing is
deleted either. A damaged cache is made again.

    ROOT/KEY/hr                  every readable picture
    ROOT/KEY/lr_x2               shrunk by MATLAB's bicubic, once per scale; or the user's own
    ROOT/KEY/teacher_x2_NAME     the teachers' output for it, where a run learns from teachers
"""

import dataclasses
import hashlib
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.errors import InputError
from swise_deploy.evaluation.own_pairs import FittedPair, fit_pair, match_by_name
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.folders import find_images, printable
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import sha256_of
from swise_deploy.training.data.picture_store import (
    NewPicture,
    PictureStore,
    open_store,
    store_of_sizes,
    write_stores,
)

logger = logging.getLogger(__name__)

KEY_VERSION = 1

TWELVE_OF_SIXTEEN_BITS = 16
"""The largest value of 12 bits, 4095, in 16 bits, brought to 8: 4095 / 257."""

Report = Callable[[str, int, int], None]
"""Receives the name of a task, the number of items done, and the number of items in all."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PicturePairs:
    """HR pictures and their LR, index for index.

    Attributes:
        hr: Ground truths, uncropped.
        lr: Made from `hr` cropped to a multiple of the scale; only sizes where crops are degraded.
        scale: HR side over LR side.
        key: Hash of the content of all pictures.
        skipped: Names of files that are not used, with the reason.
        teacher_sr: The teachers' output for `lr`; None where there is none for whole pictures.
    """

    hr: PictureStore
    lr: PictureStore
    scale: int
    key: str
    skipped: Mapping[str, str]
    teacher_sr: PictureStore | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A picture file: its path, name and the position of its folder; its own LR if it has one."""

    path: Path
    name: str
    folder: int
    lr: Path | None = None


def open_pairs(
    folders: Path | Sequence[Path],
    scale: int,
    *,
    lr_folders: Sequence[Path] = (),
    shrink: bool = True,
    root: Path | None = None,
    report: Report,
) -> PicturePairs:
    """Open the cache of folders of pictures; build first what is missing.

    Args:
        folders: Searched with their subfolders. A picture that occurs twice counts once.
        scale: HR side over LR side.
        lr_folders: The LR pictures of each folder, matched by name; empty makes them.
        shrink: False leaves LR pictures out, where crops are degraded on the fly.
        root: Where caches are kept; None takes the user's cache folder.
        report: Receives the progress of the build.

    Raises:
        InputError: A folder is missing, or not one picture can be read, or pairs do not match.
        OutputError: The cache cannot be written.
    """
    places = [folders] if isinstance(folders, Path) else list(folders)
    found, skipped = _find(places, lr_folders, scale)
    found, duplicates, key = _without_duplicates(found, scale, report)
    skipped |= duplicates
    place = (root or cache_folder("training")) / key
    lr_base = place / f"lr_x{scale}"
    if lr_folders:
        hr, lr, unread = _open_own_pairs(place, lr_base, found, scale, report)
    else:
        hr, unread = _open_hr(place, found, report)
        lr = _open_lr(lr_base, hr, scale, report) if shrink else store_of_sizes(hr, scale)
    skipped |= unread
    for name, reason in skipped.items():
        logger.warning("left out of training: %s: %s", name, reason)
    return PicturePairs(hr, lr, scale, key, skipped)


def with_teacher_sr(
    pairs: PicturePairs,
    upscale: Callable[[RgbImage], RgbImage],
    *,
    name: str,
    root: Path | None = None,
    report: Report,
) -> PicturePairs:
    """Add the teachers' output for the LR pictures, made first where the cache has not got it.

    Args:
        pairs: From `open_pairs`.
        upscale: (H, W, 3) uint8 to (H*scale, W*scale, 3) uint8.
        name: Identifies the teachers; part of a file name.
        root: As for `open_pairs`.
        report: Receives the progress of the build.

    Raises:
        OutputError: The cache cannot be written.
    """
    cached = with_cached_teacher_sr(pairs, name=name, root=root)
    if cached is not None:
        return cached

    def outputs() -> Iterator[tuple[NewPicture, ...]]:
        for done, entry in enumerate(pairs.lr.entries):
            lr = pairs.lr.picture(done)
            sr = upscale(lr) if lr.size else np.zeros((0, 0, 3), np.uint8)
            report("upscaling pictures by the teachers", done + 1, len(pairs.lr.entries))
            yield (NewPicture(entry.name, sr, entry.folder),)

    write_stores((_teacher_base(pairs, name, root),), outputs(), {})
    made = with_cached_teacher_sr(pairs, name=name, root=root)
    assert made is not None, "just written"
    return made


def with_cached_teacher_sr(
    pairs: PicturePairs, *, name: str, root: Path | None = None
) -> PicturePairs | None:
    """Add the teachers' output for the LR pictures if the cache has it; else None."""
    opened = open_store(_teacher_base(pairs, name, root))
    return None if opened is None else dataclasses.replace(pairs, teacher_sr=opened[0])


def _teacher_base(pairs: PicturePairs, name: str, root: Path | None) -> Path:
    return (root or cache_folder("training")) / pairs.key / f"teacher_x{pairs.scale}_{name}"


def _find(
    folders: Sequence[Path], lr_folders: Sequence[Path], scale: int
) -> tuple[list[_Found], dict[str, str]]:
    found: list[_Found] = []
    skipped: dict[str, str] = {}
    for position, folder in enumerate(folders):
        prefix = f"{position}/" if len(folders) > 1 else ""
        paths = find_images(folder)
        partners: Mapping[Path, Path] = {}
        if lr_folders:
            matches = match_by_name(
                paths, find_images(lr_folders[position], ground_truth=False), scale
            )
            partners = matches.pairs
            skipped |= {
                prefix + printable(path.name): "no partner of the same name"
                for path in matches.unpaired
            }
        for path in paths:
            name = prefix + path.relative_to(folder).as_posix()
            if not lr_folders or path in partners:
                found.append(_Found(path, name, position, partners.get(path)))
    return found, skipped


def _without_duplicates(
    found: Sequence[_Found], scale: int, report: Report
) -> tuple[list[_Found], dict[str, str], str]:
    """Drop pictures whose bytes occurred before; and hash the names and bytes of all."""
    digest = hashlib.sha256(f"swise training cache {KEY_VERSION}".encode())
    kept: list[_Found] = []
    first: dict[str, str] = {}
    duplicates: dict[str, str] = {}
    for done, (one, content) in enumerate(zip(found, _parallel(_hash, found), strict=True)):
        report("checking pictures", done + 1, len(found))
        digest.update(b"\n" + os.fsencode(one.name) + f" {content}".encode("utf-8", "replace"))
        if content in first:
            duplicates[printable(one.name)] = f"the same bytes as {first[content]}"
        else:
            first[content] = printable(one.name)
            kept.append(dataclasses.replace(one, name=printable(one.name)))
    if any(one.lr for one in found):
        digest.update(f"\npairs x{scale}".encode())
    return kept, duplicates, digest.hexdigest()[:16]


def _hash(one: _Found) -> str:
    try:
        return sha256_of(one.path) + (f" {sha256_of(one.lr)}" if one.lr is not None else "")
    except InputError as error:
        return str(error)  # the file is reported where it cannot be decoded


def _open_hr(
    place: Path, found: Sequence[_Found], report: Report
) -> tuple[PictureStore, Mapping[str, str]]:
    base = place / "hr"
    opened = open_store(base)
    if opened is None:
        skipped: dict[str, str] = {}
        write_stores((base,), _decoded(found, skipped, report), skipped)
        opened = open_store(base)
        assert opened is not None, "just written"
    return opened


def _decoded(
    found: Sequence[_Found], skipped: dict[str, str], report: Report
) -> Iterator[tuple[NewPicture, ...]]:
    for done, (one, outcome) in enumerate(zip(found, _parallel(_read, found), strict=True)):
        report("decoding pictures", done + 1, len(found))
        if isinstance(outcome, InputError):
            skipped[one.name] = str(outcome)
        else:
            _warn_if_nearly_black(one.name, outcome)
            yield (NewPicture(one.name, outcome, one.folder),)


def _warn_if_nearly_black(name: str, picture: RgbImage) -> None:
    """Point out values of 12 bits in files of 16: a sixteenth of their light."""
    brightest = int(picture.max(initial=0))
    if 0 < brightest <= TWELVE_OF_SIXTEEN_BITS:
        logger.warning(
            "%s is nearly black: no value is above %d of 255. Are they 12-bit values in a 16-bit "
            "file? Multiply them by 16",
            name,
            brightest,
        )


def _read(one: _Found) -> RgbImage | InputError:
    try:
        return read_rgb(one.path)
    except InputError as error:
        return error


def _open_own_pairs(
    place: Path, lr_base: Path, found: Sequence[_Found], scale: int, report: Report
) -> tuple[PictureStore, PictureStore, Mapping[str, str]]:
    hr, lr = open_store(place / "hr"), open_store(lr_base)
    if hr is None or lr is None:
        skipped: dict[str, str] = {}
        write_stores((place / "hr", lr_base), _fitted(found, scale, skipped, report), skipped)
        hr, lr = open_store(place / "hr"), open_store(lr_base)
        assert hr is not None, "just written"
        assert lr is not None, "just written"
    return hr[0], lr[0], hr[1]


def _fitted(
    found: Sequence[_Found], scale: int, skipped: dict[str, str], report: Report
) -> Iterator[tuple[NewPicture, ...]]:
    def read(one: _Found) -> FittedPair | InputError:
        assert one.lr is not None, "own pairs"
        try:
            return fit_pair(read_rgb(one.lr), read_rgb(one.path), scale, name=one.name)
        except InputError as error:
            return error

    num_cropped = 0
    for done, (one, outcome) in enumerate(zip(found, _parallel(read, found), strict=True)):
        report("decoding pairs", done + 1, len(found))
        if isinstance(outcome, InputError):
            skipped[one.name] = str(outcome)
            continue
        num_cropped += outcome.cropped
        yield tuple(NewPicture(one.name, pixels, one.folder) for pixels in (outcome.hr, outcome.lr))
    if num_cropped:
        logger.warning("%d of %d pairs cropped to sizes that go together", num_cropped, len(found))


def _open_lr(base: Path, hr: PictureStore, scale: int, report: Report) -> PictureStore:
    opened = open_store(base)
    if opened is None:
        write_stores((base,), _shrunk(hr, scale, report), {})
        opened = open_store(base)
        assert opened is not None, "just written"
    return opened[0]


def _shrunk(hr: PictureStore, scale: int, report: Report) -> Iterator[tuple[NewPicture, ...]]:
    lows = _parallel(lambda i: _shrink(hr.picture(i), scale), range(len(hr.entries)))
    for done, (entry, lr) in enumerate(zip(hr.entries, lows, strict=True)):
        report(f"shrinking pictures x1/{scale}", done + 1, len(hr.entries))
        yield (NewPicture(entry.name, lr, entry.folder),)


def _shrink(hr: RgbImage, scale: int) -> RgbImage:
    if min(hr.shape[:2]) < scale:
        return np.zeros((0, 0, 3), np.uint8)
    return pair_from_hr("", hr, scale).lr


def _parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Map in order on all cores; few results wait at a time, so memory stays bounded.

    Threads suffice: Pillow's decoders, numpy's loops and hashlib release the interpreter lock.
    """
    threads = num_usable_cpus()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused with advice
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()  # an interrupt does not wait for what has not begun
