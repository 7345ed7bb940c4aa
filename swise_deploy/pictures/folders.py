"""Folders of pictures: one rule for all commands of what is found in them."""

import functools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from PIL import Image

from swise_deploy.command.console import printable as printable  # noqa: PLC0414  # for its users
from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import PILLOW_READERS, SUFFIXES

logger = logging.getLogger(__name__)

NEVER_SEARCHED = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found"})
"""Folders of copies and thumbnails that systems make, beside those whose names begin with a dot."""

OTHER_PICTURES = (
    frozenset(
        {".jp2", ".j2k", ".jpx", ".jxl", ".avif", ".heic", ".heif", ".jfif", ".jpe", ".gif", ".ppm"}
        | {".pgm", ".pnm", ".pfm", ".tga", ".psd", ".exr", ".hdr", ".dds", ".ico", ".npy", ".mat"}
        | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}
    )
    - SUFFIXES
)
"""Suffixes of pictures that are not read, and are counted where they are left out."""

# Names as data sets have them: DIV2K_train_HR, HR, GTmod12; DIV2K_train_LR_bicubic, LRbicx4, LQ.
_HIGH = re.compile(r"(?:^|[^a-z])(?:hr|gt|hq)(?:$|[^a-z]|mod)", re.IGNORECASE)
_LOW = re.compile(r"(?:^|[^a-z])(?:lr|lq)(?:$|[^a-z]|bic|x\d)", re.IGNORECASE)
# Names that tell only where both kinds lie side by side: train_sharp, train_sharp_bicubic (REDS),
# target and input, clean and noisy, high_resolution and low_resolution.
_HIGH_BESIDE_LOW = re.compile(
    r"(?:^|[^a-z])(?:sharp|target|clean|original|ground[_-]?truth|high[_-]?res)", re.IGNORECASE
)
_LOW_BESIDE_HIGH = re.compile(
    r"(?:^|[^a-z])(?:bicubic|blur|input|noisy|degraded|low[_-]?res)", re.IGNORECASE
)
_HIGH_CAMEL_CASE = re.compile(r"[a-z](?:HR|GT|HQ)$")
_LOW_CAMEL_CASE = re.compile(r"[a-z](?:LR|LQ)$")
# Names that say nothing of the data set around them.
_HIGH_INSIDE_A_SET = ("HR", "GT", "GTmod12", "original")
_SCALE_NAME = re.compile(r"[xX][2348]")
_LOW_FILE = re.compile(r"(?P<stem>.+?)(?P<word>[_-]LR|[_-]?[xX](?P<scale>[2348]))", re.DOTALL)

_SUBFILE_TYPE = 254
"""TIFF tag; bit 0 marks a page as a smaller copy of another one."""


def find_images(folder: Path, *, ground_truth: bool = True) -> list[Path]:
    """List the pictures of a folder and its subfolders, sorted by path.

    Links to folders are followed, each real folder once. Hidden folders and files are not searched.
    Where low-resolution pictures lie beside the pictures they were made from, as data sets are
    published, only the latter are listed. A warning names what is left out: low resolution, pages
    after a file's first, pictures of other formats with their number.

    Args:
        folder: Searched with its subfolders.
        ground_truth: False for a folder of low-resolution pictures: all of them are listed.

    Raises:
        InputError: The folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise InputError(f"no folder at {printable(folder)}. Give a folder with pictures")
    names = (folder.name, folder.absolute().parent.name)
    if ground_truth and any(map(_is_low_resolution, names)):
        _warn(
            f"{printable(folder)} is named as a folder of low-resolution pictures; they are taken "
            "as ground truth"
        )
    files = list(walk_files(folder, choose=_ground_truth_folders if ground_truth else _all))
    others = Counter(s for path in files if (s := path.suffix.lower()) in OTHER_PICTURES)
    left_out = ", ".join(f"{number} {suffix}" for suffix, number in sorted(others.items()))
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    paths = sorted(_without_low_resolution(found) if ground_truth else found)
    expected = f"Expected files ending in {', '.join(sorted(SUFFIXES))}"
    if not paths:
        others_found = f" that can be read, and {left_out} files" if left_out else ""
        raise InputError(f"no picture{others_found} in {printable(folder)}. {expected}")
    if left_out:
        _warn(
            f"{others.total()} files of "
            f"other formats in {printable(folder)} are not read: {left_out}. {expected}"
        )
    for path in paths:
        if path.suffix.lower() in (".tif", ".tiff") and (further := _num_further_pages(path)):
            _warn(f"{printable(path)}: {further} further pages are not read")
    return paths


def folder_label(folder: Path) -> str:
    """Name of a folder of pictures without the path to it: "Set5" for Set5/HR."""
    resolved = folder.resolve()
    is_inside = resolved.name in _HIGH_INSIDE_A_SET
    return (resolved.parent if is_inside else resolved).name or str(folder)


def walk_files(
    folder: Path,
    *,
    choose: Callable[[Path, Sequence[str], bool], list[str]] | None = None,
) -> Iterator[Path]:
    """Give the files of a folder and its subfolders.

    Links are followed; a folder that several lead to is searched once. Names that begin with a dot
    and NEVER_SEARCHED are passed over.

    Args:
        folder: Searched even if its own name is hidden.
        choose: Of a folder, the names of its subfolders and whether pictures lie beside them:
            gives the subfolders to search.
    """
    searched: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop(0)
        try:
            status = place.stat()
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            _warn(f"cannot search {printable(place)}: {error.strerror or error}")
            continue
        if (status.st_dev, status.st_ino) in searched:
            continue
        searched.add((status.st_dev, status.st_ino))
        seen = [e for e in entries if not _is_hidden(e.name)]
        files = [place / entry.name for entry in seen if _holds(entry.is_file)]
        folders = {entry.name: entry.is_symlink() for entry in seen if _holds(entry.is_dir)}
        yield from files
        has_pictures = any(path.suffix.lower() in SUFFIXES for path in files)
        chosen = (choose or _all)(place, list(folders), has_pictures)
        # Real folders before links to them, so that a file's path does not depend on the links.
        waiting += [place / n for n in chosen if not folders[n]]
        waiting += [place / n for n in chosen if folders[n]]


def _holds(test: Callable[[], bool]) -> bool:
    """The result of a test of a file; False where it fails: a link that leads to itself."""
    try:
        return test()
    except OSError:
        return False


def picture_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Give each picture a unique, printable name.

    The file's name; where two files share one, their paths in the folder that holds them all.
    """
    found = {path: printable(path.name) for path in paths}
    if len(set(found.values())) == len(found):
        return found
    folder = os.path.commonpath([path.absolute().parent for path in paths])
    return {path: printable(path.absolute().relative_to(folder).as_posix()) for path in paths}


def sample_paths() -> list[Path]:
    """The free photographs that exports are verified on (see samples/README.md)."""
    return _shipped("samples")


def calibration_paths() -> list[Path]:
    """The free photographs that INT8 is calibrated on (see calibration/README.md)."""
    return _shipped("calibration")


def _shipped(folder: str) -> list[Path]:
    return find_images(Path(str(resources.files("swise_deploy"))) / folder)


@functools.cache
def _warn(message: str) -> None:
    """Log a warning once: commands may search a folder several times."""
    logger.warning("%s", message)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in NEVER_SEARCHED


def _is_high_resolution(name: str) -> bool:
    return bool(_HIGH.search(name) or _HIGH_CAMEL_CASE.search(name))


def _is_low_resolution(name: str) -> bool:
    return bool(_LOW.search(name) or _LOW_CAMEL_CASE.search(name))


def _all(folder: Path, names: Sequence[str], has_pictures: bool) -> list[str]:
    del folder, has_pictures
    return list(names)


def _ground_truth_folders(folder: Path, names: Sequence[str], has_pictures: bool) -> list[str]:
    """The subfolders without those of low resolution, where ground truths lie beside these."""
    named_low = [name for name in names if _is_low_resolution(name)]
    high = [name for name in names if _is_high_resolution(name) and name not in named_low]
    if not (high or has_pictures):
        weaker = [n for n in names if _LOW_BESIDE_HIGH.search(n) and n not in named_low]
        high = [n for n in names if _HIGH_BESIDE_LOW.search(n) and n not in (*named_low, *weaker)]
        low = [*named_low, *weaker] if high else []
        if named_low and not high:
            _warn(
                f"{', '.join(map(printable, named_low))} in {printable(folder)} are named as "
                "folders of low-resolution pictures; they are taken as ground truth"
            )
    else:
        low = [
            name
            for name in names
            if name not in high and (name in named_low or _SCALE_NAME.fullmatch(name))
        ]
    if low:
        beside = ", ".join(map(printable, high)) or "the pictures there"
        _warn(
            f"low resolution is not read: {', '.join(map(printable, low))} beside {beside} in "
            f"{printable(folder)}"
        )
    return [name for name in names if name not in low]


def _without_low_resolution(paths: Sequence[Path]) -> list[Path]:
    """Drop `a_LR.png` beside `a_HR.png`, and `ax2.png` of half the size beside `a.png`."""
    by_stem = {(path.parent, path.stem): path for path in paths}
    low = {path for path in paths if _has_ground_truth_beside(path, by_stem)}
    if low:
        _warn(
            f"low resolution is not read: {len(low)} files such as {printable(min(low))} beside "
            "the pictures they were made from"
        )
    return [path for path in paths if path not in low]


def _has_ground_truth_beside(path: Path, by_stem: dict[tuple[Path, str], Path]) -> bool:
    match = _LOW_FILE.fullmatch(path.stem)
    if match is None:
        return False
    stem, word = match["stem"], match["word"]
    if match["scale"] is None:
        return (path.parent, stem + word.replace("LR", "HR")) in by_stem
    original = by_stem.get((path.parent, stem))
    if original is None:
        return False
    scale, low, high = int(match["scale"]), _size(path), _size(original)
    return (
        low is not None
        and high is not None
        and all(abs(side * scale - whole) < scale for side, whole in zip(low, high, strict=True))
    )


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path, formats=PILLOW_READERS) as image:
            return image.size
    except Exception:  # noqa: BLE001  # what cannot be opened is reported where it is read
        return None


def _num_further_pages(path: Path) -> int:
    """Pages of a TIFF after the first, without smaller copies of others."""
    try:
        with Image.open(path, formats=PILLOW_READERS) as image:
            number = 0
            for page in range(1, getattr(image, "n_frames", 1)):
                image.seek(page)
                number += not int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & 1  # type: ignore[attr-defined]  # TIFF's own
            return number
    except Exception:  # noqa: BLE001  # what cannot be opened is reported where it is read
        return 0
