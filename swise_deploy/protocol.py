"""The evaluation protocol of the super-resolution literature: LR/HR pairs and their scores."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from swise_deploy.images import RgbImage, read_readable
from swise_deploy.imresize import imresize
from swise_deploy.metrics import Quality, quality


@dataclass(frozen=True, slots=True)
class Pair:
    """A ground truth, cropped to a multiple of the scale, and the low resolution made from it."""

    name: str
    lr: RgbImage
    hr: RgbImage


def pair_from_hr(name: str, hr: RgbImage, scale: int) -> Pair:
    """Crop `hr` to a multiple of the scale and shrink it as MATLAB does."""
    height, width = (side // scale * scale for side in hr.shape[:2])
    cropped = np.ascontiguousarray(hr[:height, :width])
    lr = np.asarray(imresize(cropped, Fraction(1, scale)), np.uint8)
    return Pair(name, lr, cropped)


def read_pairs(paths: Sequence[Path], scale: int) -> list[Pair]:
    """Read ground truths and make their pairs; unreadable and tiny pictures are left out.

    Raises:
        InputError: Not one picture can be read.
    """
    images = read_readable(paths)
    return [
        pair_from_hr(path.name, image, scale)
        for path, image in images.items()
        if min(image.shape[:2]) >= 4 * scale
    ]


def evaluate(
    upscale: Callable[[RgbImage], RgbImage], pairs: Sequence[Pair], scale: int
) -> dict[str, Quality]:
    """Score every pair by name: PSNR-Y and SSIM-Y, a border of `scale` pixels left out."""
    return {p.name: quality(upscale(p.lr), p.hr, border=scale) for p in pairs}


def mean_quality(scores: Mapping[str, Quality]) -> Quality:
    """Average over pictures; pictures too small for SSIM count for PSNR only."""
    ssim = [q.ssim_y for q in scores.values() if not math.isnan(q.ssim_y)]
    return Quality(
        float(np.mean([q.psnr_y_db for q in scores.values()])),
        float(np.mean(ssim)) if ssim else math.nan,
    )
