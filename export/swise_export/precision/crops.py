"""Crops of pictures for calibration: where the texture is, and views that reach further.

Calibration runs on small pictures. What it measures on them has to hold on pictures that were not
among them.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swise_deploy.evaluation.pairs import Pair

# Calibration crops: their side in LR pixels, and the largest number of pictures.
_CROP = 48
_MAX_CROPS = 12
# Held-out pictures are cropped to this side around their centre.
_HELD_OUT_CROP = 96
# Percentiles that a stretched picture maps to black and white.
_BLACK, _WHITE = 1, 99


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures for one search.

    Attributes:
        crops: For ranges and weights.
        extremes: For the largest values alone.
        held_out: For scores; none of the pictures of the crops.
    """

    crops: list[Pair]
    extremes: list[Pair]
    held_out: list[Pair]


def split_pictures(pairs: Sequence[Pair], scale: int, *, swapped: bool = False) -> Split:
    """Split pictures alternately into calibration crops and held-out pictures, or swapped."""
    starts = (1, 0) if swapped else (0, 1)
    calibrated, held_out = (spread(pairs[start::2], _MAX_CROPS) for start in starts)
    per_picture = max(1, _MAX_CROPS // len(calibrated))
    halves = [_halved(pair, scale) for pair in calibrated]
    crops, closer = (
        textured_crops(of, size=_CROP, per_picture=per_picture, scale=scale)
        for of in (calibrated, halves)
    )
    return Split(
        crops=crops,
        # Lines with more contrast, and lines closer to each other, than in a few pictures.
        extremes=[_stretched(pair) for pair in (*crops, *closer)],
        held_out=[_centre(pair, scale) for pair in held_out],
    )


def spread(pairs: Sequence[Pair], max_pairs: int) -> list[Pair]:
    """At most `max_pairs` pictures, spread evenly over the sequence."""
    chosen = np.linspace(0, len(pairs) - 1, min(max_pairs, len(pairs))).round().astype(int)
    return [pairs[i] for i in chosen]


def _centre(pair: Pair, scale: int) -> Pair:
    top, left = (max(0, (side - _HELD_OUT_CROP) // 2) for side in pair.lr.shape[:2])
    return dataclasses.replace(crop_pair(pair, top, left, _HELD_OUT_CROP, scale), name=pair.name)


def textured_crops(pairs: Sequence[Pair], *, size: int, per_picture: int, scale: int) -> list[Pair]:
    """Cut the crops with the most texture out of every picture, without overlap.

    Args:
        pairs: Pictures.
        size: Side in LR pixels; a smaller picture is used whole.
        per_picture: Largest number of crops from each picture.
        scale: Output size over input size.
    """
    crops = []
    for pair in pairs:
        height, width = pair.lr.shape[:2]
        rows, columns = (
            range(0, max(1, side - size + 1), max(1, size // 2)) for side in (height, width)
        )
        corners = sorted(
            ((top, left) for top in rows for left in columns),
            key=lambda at: -_texture(pair.lr[at[0] : at[0] + size, at[1] : at[1] + size]),
        )
        taken: list[tuple[int, int]] = []
        for top, left in corners:
            free = all(abs(top - t) >= size or abs(left - c) >= size for t, c in taken)
            if free and len(taken) < per_picture:
                taken.append((top, left))
                crops.append(crop_pair(pair, top, left, size, scale))
    return crops


def _texture(lr: NDArray[np.uint8]) -> float:
    grey = lr.astype(np.float64).mean(axis=2)
    return float(sum(np.abs(np.diff(grey, axis=a)).mean() for a in (0, 1) if grey.shape[a] > 1))


def crop_pair(pair: Pair, top: int, left: int, size: int, scale: int) -> Pair:
    """Cut `size` x `size` LR pixels at (top, left) out of a pair; its name states the crop."""
    lr = pair.lr[top : top + size, left : left + size]
    height, width = lr.shape[:2]
    rows = slice(top * scale, (top + height) * scale)
    columns = slice(left * scale, (left + width) * scale)
    name = f"{pair.name} {width}x{height}+{left}+{top}"
    return Pair(name, np.ascontiguousarray(lr), np.ascontiguousarray(pair.hr[rows, columns]))


def _halved(pair: Pair, scale: int) -> Pair:
    height, width = (max(1, side // 2) for side in pair.lr.shape[:2])
    lr, hr = (
        np.asarray(Image.fromarray(image).resize((width * n, height * n), Image.Resampling.BICUBIC))
        for image, n in ((pair.lr, 1), (pair.hr, scale))
    )
    return Pair(f"{pair.name} at half size", lr, hr)


def _stretched(pair: Pair) -> Pair:
    black, white = np.percentile(pair.lr, (_BLACK, _WHITE))

    def stretch(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        values = (image.astype(np.float64) - black) * 255 / max(white - black, 1)
        return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)

    return Pair(f"{pair.name} stretched", stretch(pair.lr), stretch(pair.hr))


def hash_of_pictures(pairs: Sequence[Pair]) -> str:
    """Hash of the LR sides of pictures, in order."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(str(pair.lr.shape).encode())
        digest.update(pair.lr.tobytes())
    return digest.hexdigest()
