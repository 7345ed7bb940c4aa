"""Pairs of low- and high-resolution pictures that a user brings, matched by their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swise_deploy.errors import InputError
from swise_deploy.pictures.files import RgbImage
from swise_deploy.pictures.folders import printable

# Marks in the names of one of the two pictures: 0001x2.png, baby_x4.png, img_LR.png.
_MARK = re.compile(r"[_-]?(?:x\d|lr|hr|gt|lq)$", re.IGNORECASE)
_SCALE_FOLDER = re.compile(r"x(\d)(?:$|[^0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Matches:
    """High-resolution pictures with their low-resolution partners.

    Attributes:
        pairs: The partner of each high-resolution picture that has one.
        unpaired: Pictures of either kind without a partner.
    """

    pairs: Mapping[Path, Path]
    unpaired: tuple[Path, ...]


def match_by_name(hr: Sequence[Path], lr: Sequence[Path], scale: int) -> Matches:
    """Match pictures by file name, without suffix and marks such as x2 or _LR.

    Args:
        hr: High-resolution pictures.
        lr: Low-resolution pictures; in folders X2, X3, X4 only those for `scale`.
        scale: HR side over LR side.

    Raises:
        InputError: No picture has a partner, or one has several.
    """
    candidates: dict[str, list[Path]] = {}
    for path in lr:
        candidates.setdefault(_key(path), []).append(path)
    pairs: dict[Path, Path] = {}
    for path in hr:
        found = _for_scale(candidates.get(_key(path), []), scale)
        if len(found) > 1:
            found = [p for p in found if p.parent.name == path.parent.name] or found
        if len(found) > 1:
            raise InputError(
                f"{printable(path)} has several low-resolution partners: "
                f"{', '.join(map(printable, found[:3]))}. Give the folder of one kind"
            )
        if found:
            pairs[path] = found[0]
    if not pairs:
        raise InputError(
            f"none of {len(hr)} pictures has a partner by name among {len(lr)} low-resolution "
            f"ones, such as {printable(hr[0].name)} and {printable(lr[0].name)}. Expected the same "
            "names, or names that end in x2, _x2, _LR or _HR"
        )
    used = set(pairs.values())
    alone = [p for p in hr if p not in pairs]
    # Low-resolution pictures for other scales are not reported as unpaired.
    others = [p for p in lr if p not in used and p in _for_scale([p], scale)]
    return Matches(pairs, (*alone, *others))


def _key(path: Path) -> str:
    return _MARK.sub("", path.stem).lower()


def _for_scale(paths: Sequence[Path], scale: int) -> list[Path]:
    """Leave out pictures whose folder or name is marked with another scale."""
    return [path for path in paths if _marked_scale(path) in (None, scale)]


def _marked_scale(path: Path) -> int | None:
    for name in (path.stem[-2:], path.parent.name):
        match = _SCALE_FOLDER.search(name)
        if match is not None:
            return int(match[1])
    return None


@dataclass(frozen=True, slots=True)
class FittedPair:
    """A pair whose sizes go together.

    Attributes:
        lr: (H, W, 3), uint8.
        hr: (H*scale, W*scale, 3), uint8.
        cropped: True where rows or columns were cut off.
    """

    lr: RgbImage
    hr: RgbImage
    cropped: bool


def fit_pair(lr: RgbImage, hr: RgbImage, scale: int, *, name: str) -> FittedPair:
    """Crop a pair at its right and bottom edges to sizes that go together.

    HR sides may be no multiples of the scale, and LR sides may have been rounded up.

    Raises:
        InputError: The sizes differ by two LR pixels or more.
    """
    high, low = hr.shape[:2], lr.shape[:2]
    sides = [min(h // scale, s) for h, s in zip(high, low, strict=True)]
    if any(abs(h - s * scale) >= 2 * scale for h, s in zip(high, low, strict=True)):
        ratio = high[0] / low[0]
        raise InputError(
            f"{name}: LR is {low[1]}x{low[0]} and HR {high[1]}x{high[0]} pixels, a ratio of "
            f"{ratio:.3g}; expected x{scale}. Give the pictures for x{scale}, or another --scale"
        )
    height, width = sides
    cropped = (height, width) != low or (height * scale, width * scale) != high
    return FittedPair(
        np.ascontiguousarray(lr[:height, :width]),
        np.ascontiguousarray(hr[: height * scale, : width * scale]),
        cropped,
    )
