"""The evaluation protocol of the super-resolution literature: LR/HR pairs and their scores."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import METRICS, MetricName, Quality, quality
from swise_deploy.evaluation.own_pairs import fit_pair, match_by_name
from swise_deploy.pictures.files import RgbImage, read_readable, read_rgb
from swise_deploy.pictures.folders import picture_names, printable
from swise_deploy.pictures.imresize import imresize

logger = logging.getLogger(__name__)

LEAST_LR_SIDE = 4
"""Smallest LR side of scored pictures; the border covers most of smaller ones."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A ground truth, its sides multiples of the scale, and its low resolution."""

    name: str
    lr: RgbImage
    hr: RgbImage


def pair_from_hr(name: str, hr: RgbImage, scale: int) -> Pair:
    """Crop `hr` to a multiple of the scale and reduce it by MATLAB's bicubic."""
    height, width = (side // scale * scale for side in hr.shape[:2])
    cropped = np.ascontiguousarray(hr[:height, :width])
    lr = np.asarray(imresize(cropped, Fraction(1, scale)), np.uint8)
    return Pair(name, lr, cropped)


def read_pairs(
    paths: Sequence[Path], scale: int, *, crop: int = 0, lr_paths: Sequence[Path] = ()
) -> list[Pair]:
    """Read ground truths and make their pairs; unreadable and tiny pictures are reported, skipped.

    Args:
        paths: Pictures; each pair gets a name of its own.
        scale: HR side over LR side.
        crop: Side of the centre crop of each picture, in HR pixels; 0 for whole pictures.
        lr_paths: Low-resolution pictures, matched by name; empty for MATLAB's bicubic.

    Raises:
        InputError: Not one picture can be read, or all of them are tiny; or low-resolution pictures
            do not match.
    """
    names = picture_names(paths)
    pairs = (
        _own_pairs(paths, lr_paths, names, scale, crop)
        if lr_paths
        else [
            pair_from_hr(names[path], centre_crop(image, crop), scale)
            for path, image in read_readable(paths).items()
            if is_large_enough(path, image, scale)
        ]
    )
    if not pairs:
        raise InputError(
            f"all of {len(paths)} pictures are too small at x{scale}. "
            f"Expected sides of at least {LEAST_LR_SIDE * scale} pixels"
        )
    return pairs


def pair_from_files(name: str, path: Path, lr_path: Path | None, scale: int) -> Pair:
    """Read one pair; its LR is made by MATLAB's bicubic where there is no file of it.

    Raises:
        InputError: A picture cannot be read, or the sizes do not go together.
    """
    hr = read_rgb(path)
    if lr_path is None:
        return pair_from_hr(name, hr, scale)
    fitted = fit_pair(read_rgb(lr_path), hr, scale, name=name)
    return Pair(name, fitted.lr, fitted.hr)


def _own_pairs(
    paths: Sequence[Path],
    lr_paths: Sequence[Path],
    names: Mapping[Path, str],
    scale: int,
    crop: int,
) -> list[Pair]:
    matches = match_by_name(paths, lr_paths, scale)
    for path in matches.unpaired:
        logger.warning("left out: %s has no partner of the same name", printable(path))
    hr_images = read_readable(list(matches.pairs))
    lr_images = read_readable(list(matches.pairs.values()))
    pairs, num_cropped = [], 0
    for path, partner in matches.pairs.items():
        if path not in hr_images or partner not in lr_images:
            continue
        fitted = fit_pair(lr_images[partner], hr_images[path], scale, name=names[path])
        num_cropped += fitted.cropped
        if is_large_enough(path, fitted.hr, scale):
            lr = centre_crop(fitted.lr, crop // scale)
            top, left = (
                (whole - kept) // 2 * scale
                for whole, kept in zip(fitted.lr.shape[:2], lr.shape[:2], strict=True)
            )
            height, width = (side * scale for side in lr.shape[:2])
            hr = np.ascontiguousarray(fitted.hr[top : top + height, left : left + width])
            pairs.append(Pair(names[path], lr, hr))
    if num_cropped:
        logger.warning("%d of %d pairs cropped to sizes that go together", num_cropped, len(pairs))
    return pairs


def is_large_enough(path: Path, hr: RgbImage, scale: int) -> bool:
    """True where a ground truth is large enough to be scored; else a warning is logged."""
    smallest = LEAST_LR_SIDE * scale
    if min(hr.shape[:2]) >= smallest:
        return True
    logger.warning("left out: %s is smaller than %d pixels", path, smallest)
    return False


def centre_crop(picture: RgbImage, side: int) -> RgbImage:
    """The centre of a picture, at most `side` x `side` pixels; 0 for all of it."""
    if side == 0:
        return picture
    top, left = (max(0, (length - side) // 2) for length in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def evaluate(
    upscale: Callable[[RgbImage], RgbImage], pairs: Sequence[Pair], scale: int
) -> dict[str, Quality]:
    """Compute every metric of every pair, by name, without a border of `scale` pixels."""
    return {p.name: quality(upscale(p.lr), p.hr, border=scale) for p in pairs}


def mean_quality(scores: Mapping[str, Quality]) -> Quality:
    """Average over pictures.

    A picture that equals its ground truth has an infinite PSNR, and one below SSIM's window has no
    SSIM; each is excluded from that metric's mean. If every picture is exact, the mean is
    `Metric.exact`.
    """
    return Quality({name: _mean(name, scores) for name in METRICS})


def _mean(name: MetricName, scores: Mapping[str, Quality]) -> float:
    defined = [q[name] for q in scores.values() if not math.isnan(q[name])]
    finite = [value for value in defined if math.isfinite(value)]
    if not finite:
        return METRICS[name].exact if defined else math.nan
    return float(np.mean(finite))
