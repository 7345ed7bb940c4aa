"""Crops of one picture: found by the names that scripts give them, and by the pixels they share."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from swise_deploy.pictures.files import RgbImage
from swise_deploy.training.data.picture_cache import PicturePairs
from swise_deploy.training.data.picture_store import PictureStore

NEIGHBOURS = 64
"""Names before and after a crop's own whose pixels are compared: scripts number crops in a row."""

BLOCK = 8
GRID = 6
LEAST_DEVIATION = 2.0
"""Of the values of a block; flatter blocks occur in any picture."""

LEAST_SHARED = 2
"""Blocks found in another picture that make the two crops of one."""

# 0001_s001 (BasicSR), x_tile3, x_r1_c2.
_CROP_MARK = re.compile(
    r"[_-](?:s\d+|(?:crop|patch|tile|sub|part)[_-]?\d+|r\d+[_-]?c\d+|x\d+[_-]?y\d+)$", re.IGNORECASE
)
_NUMBER = re.compile(r"[_-]?\d+$")


def crops_of_same_pictures(pairs: PicturePairs, indices: Sequence[int]) -> tuple[int, ...]:
    """Find all crops of the pictures that some crops were cut from, these included.

    They overlap, so that a network trained on one has seen parts of the other.
    """
    sources = {_source(pairs.hr, i) for i in indices}
    found = {i for i in range(len(pairs.hr.entries)) if _source(pairs.hr, i) in sources}
    for index in indices:
        found |= set(_overlapping_neighbours(pairs.hr, index))
    return tuple(sorted(found))


def _source(store: PictureStore, index: int) -> str:
    path = PurePosixPath(store.entries[index].name)
    return str(path.with_name(_CROP_MARK.sub("", path.stem) + path.suffix))


def _overlapping_neighbours(store: PictureStore, index: int) -> list[int]:
    """Numbered pictures near a picture by name that share pixels with it."""
    series = _series(store, index)
    if series is None:
        return []
    nearby = range(max(0, index - NEIGHBOURS), min(len(store.entries), index + NEIGHBOURS + 1))
    picture = store.picture(index)
    return [
        other
        for other in nearby
        if other != index
        and _series(store, other) == series
        and overlaps(picture, store.picture(other))
    ]


def _series(store: PictureStore, index: int) -> str | None:
    """The name of a numbered picture without its last number; None for names without one."""
    path = PurePosixPath(store.entries[index].name)
    name = _NUMBER.sub("", path.stem)
    return None if name == path.stem else str(path.with_name(f"{name}{path.suffix}"))


def overlaps(first: RgbImage, second: RgbImage) -> bool:
    """Tell whether some blocks of one picture occur in another, pixel by pixel."""
    height, width = first.shape[:2]
    if min(height, width, *second.shape[:2]) < BLOCK:
        return False
    shared = 0
    for top in np.unique(np.linspace(0, height - BLOCK, GRID).astype(int)):
        for left in np.unique(np.linspace(0, width - BLOCK, GRID).astype(int)):
            block = first[top : top + BLOCK, left : left + BLOCK]
            shared += float(block.std()) >= LEAST_DEVIATION and _occurs(block, second)
            if shared >= LEAST_SHARED:
                return True
    return False


def _occurs(block: RgbImage, picture: RgbImage) -> bool:
    """Search a block, its corner pixel first and the rest where that fits."""
    rows, columns = (side - BLOCK + 1 for side in picture.shape[:2])
    corners = picture[:rows, :columns]
    tops, lefts = np.nonzero((corners == block[0, 0]).all(axis=2))
    for y, x in ((0, BLOCK - 1), (BLOCK - 1, 0), (BLOCK // 2, BLOCK // 2)):
        same = (picture[tops + y, lefts + x] == block[y, x]).all(axis=1)
        tops, lefts = tops[same], lefts[same]
    return any(
        np.array_equal(picture[top : top + BLOCK, left : left + BLOCK], block)
        for top, left in zip(tops.tolist(), lefts.tolist(), strict=True)
    )
