"""Training pictures, decoded and shrunk once, then memory-mapped.

A cache is keyed by the content of the folder: names and bytes of all its pictures. A picture added,
removed or edited gives another key, so a stale cache is never read; nothing is deleted either.

    ROOT/KEY/hr.bin, hr.json          every readable picture, uint8 RGB, one after the other
    ROOT/KEY/lr_x2.bin, lr_x2.json    shrunk by MATLAB's bicubic, once per scale
    ROOT/KEY/teacher_x2_NAME.bin, ... the teachers' output for it, where a run learns from teachers

The .json is written after its .bin, each whole or not at all: a killed build leaves no half cache.
"""

import dataclasses
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.folders import find_images
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import sha256_of, write_json, writing

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1

Report = Callable[[str, int, int], None]
"""Receives the name of a task, the number of items done, and the number of items in all."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Entry:
    """The place of one picture in a store."""

    name: str
    height: int
    width: int
    offset: int


@dataclass(frozen=True, slots=True)
class PictureStore:
    """Pictures in one memory-mapped file.

    Attributes:
        entries: One for each picture, in the order of the file.
        pixels: All bytes, uint8, flat.
    """

    entries: tuple[Entry, ...]
    pixels: NDArray[np.uint8]

    def picture(self, index: int) -> RgbImage:
        """One picture, (H, W, 3), a view of the file."""
        entry = self.entries[index]
        size = entry.height * entry.width * 3
        flat = self.pixels[entry.offset : entry.offset + size]
        return flat.reshape(entry.height, entry.width, 3)


@dataclass(frozen=True, slots=True)
class PicturePairs:
    """HR pictures and their LR, index for index.

    Attributes:
        hr: Ground truths, uncropped.
        lr: Made from `hr` cropped to a multiple of the scale.
        scale: HR side over LR side.
        key: Hash of the folder's content.
        skipped: Names of files that could not be used, with the reason.
        teacher_sr: The teachers' output for `lr`; None where there is none for whole pictures.
    """

    hr: PictureStore
    lr: PictureStore
    scale: int
    key: str
    skipped: Mapping[str, str]
    teacher_sr: PictureStore | None = None


def open_pairs(
    folder: Path, scale: int, *, root: Path | None = None, report: Report
) -> PicturePairs:
    """Open the cache of a folder of pictures; build first what is missing.

    Args:
        folder: Searched with its subfolders.
        scale: HR side over LR side.
        root: Where caches are kept; None takes the user's cache folder.
        report: Receives the progress of the build.

    Raises:
        InputError: The folder is missing, or not one picture in it can be read.
        OutputError: The cache cannot be written.
    """
    paths = find_images(folder)
    key = content_key(folder, paths, report=report)
    place = (root or cache_folder("training")) / key
    if not (place / "hr.json").is_file():
        _build_hr(place, folder, paths, report=report)
    hr, skipped = _open_store(place / "hr")
    lr_base = place / f"lr_x{scale}"
    if not lr_base.with_suffix(".json").is_file():
        _build_lr(lr_base, hr, scale, report=report)
    lr, _ = _open_store(lr_base)
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
    """Add what teachers make of the LR pictures, made first where the cache has not got it.

    Args:
        pairs: From `open_pairs`.
        upscale: (H, W, 3) to (H*scale, W*scale, 3), both uint8.
        name: Identifies the teachers; part of a file name.
        root: As for `open_pairs`.
        report: Receives the progress of the build.

    Raises:
        OutputError: The cache cannot be written.
    """
    base = (root or cache_folder("training")) / pairs.key / f"teacher_x{pairs.scale}_{name}"

    def teacher_sr() -> Iterator[tuple[str, RgbImage]]:
        entries = pairs.lr.entries
        for index, entry in enumerate(entries):
            lr = pairs.lr.picture(index)
            yield entry.name, upscale(lr) if lr.size else lr
            report("upscaling pictures with the teacher", index + 1, len(entries))

    if not base.with_suffix(".json").is_file():
        _write_store(base, teacher_sr(), {})
    return dataclasses.replace(pairs, teacher_sr=_open_store(base)[0])


def content_key(folder: Path, paths: Sequence[Path], *, report: Report) -> str:
    """Hash of the names and bytes of pictures: 16 hexadecimal digits."""
    digest = hashlib.sha256(f"swise training cache {SCHEMA_VERSION}".encode())
    for done, (path, sha256) in enumerate(zip(paths, _parallel(_hash, paths), strict=True)):
        report("checking pictures", done + 1, len(paths))
        digest.update(f"\n{path.relative_to(folder).as_posix()} {sha256}".encode())
    return digest.hexdigest()[:16]


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except InputError as error:
        return str(error)  # it is named again, and left out, when it cannot be decoded


def _build_hr(place: Path, folder: Path, paths: Sequence[Path], *, report: Report) -> None:
    skipped: dict[str, str] = {}

    def decoded() -> Iterator[tuple[str, RgbImage]]:
        for done, (path, outcome) in enumerate(zip(paths, _parallel(_read, paths), strict=True)):
            report("decoding pictures", done + 1, len(paths))
            name = path.relative_to(folder).as_posix()
            if isinstance(outcome, InputError):
                skipped[name] = str(outcome)
            else:
                yield name, outcome

    _write_store(place / "hr", decoded(), skipped)


def _read(path: Path) -> RgbImage | InputError:
    try:
        return read_rgb(path)
    except InputError as error:
        return error


def _build_lr(base: Path, hr: PictureStore, scale: int, *, report: Report) -> None:
    def shrunk() -> Iterator[tuple[str, RgbImage]]:
        lows = _parallel(lambda i: _shrink(hr.picture(i), scale), range(len(hr.entries)))
        for done, (entry, lr) in enumerate(zip(hr.entries, lows, strict=True)):
            report(f"shrinking pictures x1/{scale}", done + 1, len(hr.entries))
            yield entry.name, lr

    _write_store(base, shrunk(), {})


def _shrink(hr: RgbImage, scale: int) -> RgbImage:
    if min(hr.shape[:2]) < scale:
        return np.zeros((0, 0, 3), np.uint8)
    return pair_from_hr("", hr, scale).lr


def _write_store(
    base: Path, pictures: Iterable[tuple[str, RgbImage]], skipped: Mapping[str, str]
) -> None:
    entries: list[Entry] = []
    offset = 0
    with writing(base.with_suffix(".bin")) as temporary, temporary.open("wb") as file:
        for name, picture in pictures:
            entries.append(Entry(name, picture.shape[0], picture.shape[1], offset))
            offset += file.write(np.ascontiguousarray(picture).data)
        if not entries:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
            raise InputError(f"not one of {len(skipped)} pictures can be read: {reasons}")
    write_json(
        base.with_suffix(".json"),
        {
            "schema_version": SCHEMA_VERSION,
            "size_bytes": offset,
            "entries": [asdict(entry) for entry in entries],
            "skipped": dict(skipped),
        },
    )


def _open_store(base: Path) -> tuple[PictureStore, Mapping[str, str]]:
    binary = base.with_suffix(".bin")
    index = json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
    size_bytes = binary.stat().st_size if binary.is_file() else 0
    if size_bytes != index["size_bytes"]:
        raise InputError(
            f"cache {binary} has {size_bytes} bytes; expected {index['size_bytes']}. "
            f"Delete {base.parent}; it is made again"
        )
    entries = tuple(Entry(**entry) for entry in index["entries"])
    pixels: NDArray[np.uint8] = (
        np.memmap(binary, np.uint8, mode="r") if size_bytes else np.zeros(0, np.uint8)
    )
    return PictureStore(entries, pixels), index["skipped"]


def _parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Map in order on all cores; few results wait at a time, so memory stays bounded.

    Threads suffice: Pillow's decoders, numpy's loops and hashlib let go of the interpreter lock.
    """
    threads = num_usable_cpus()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
