"""Validation by the protocol of the literature: PSNR and SSIM on whole or cropped pictures."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import EXACT_PSNR_DB, Quality, luma, psnr, quality
from swise_deploy.evaluation.pairs import (
    Pair,
    centre_crop,
    mean_quality,
    pair_from_hr,
    read_pairs,
)
from swise_deploy.pictures.files import RgbImage
from swise_deploy.pictures.folders import find_images
from swise_deploy.runner import float_from_image, image_from_float
from swise_deploy.training.data.degradation import Degradation, degrade, generator_of_name
from swise_deploy.training.data.picture_cache import PicturePairs

logger = logging.getLogger(__name__)

LARGEST_CHOICE_DB = 60.0
"""A picture counts for no more in a choice: beyond it, errors are below what 8 bits can show."""

FLAT_DEVIATION = 1.0
"""Standard deviation of luma below which a picture has no detail that a network could restore."""


@dataclass(frozen=True, slots=True)
class ValidationScores:
    """The scores of a network on the validation pictures.

    Attributes:
        mean: Mean PSNR and SSIM on luma.
        psnr_rgb_db: Mean PSNR on RGB.
        choice_db: Chooses weights: the mean PSNR on luma of which no picture has more than
            LARGEST_CHOICE_DB, so that no exact picture decides.
        num_pictures: Pictures scored.
    """

    mean: Quality
    psnr_rgb_db: float
    choice_db: float
    num_pictures: int


def held_out_indices(pairs: PicturePairs, count: int, *, smallest: int) -> tuple[int, ...]:
    """Choose pictures to validate on, by their names alone.

    Args:
        pairs: All pictures.
        count: Number of pictures.
        smallest: Least short side in LR pixels; smaller pictures are not chosen.

    Raises:
        InputError: More than half of the usable pictures would be held out.
    """
    usable = [i for i, e in enumerate(pairs.lr.entries) if min(e.height, e.width) >= smallest]
    if not usable:
        return ()  # nothing fits a crop: the crops' own error names the option
    if 2 * count > len(usable):
        raise InputError(
            f"holdout is {count}, of {len(usable)} usable pictures; expected at most half of them. "
            "Use --holdout with a smaller number (0 does not validate), or --val DIR"
        )
    names = pairs.hr.entries
    usable.sort(key=lambda i: hashlib.sha256(names[i].name.encode()).digest())
    return tuple(sorted(usable[:count]))


def indices_of_same_content(
    pairs: PicturePairs, validation: Sequence[Pair], *, crop: int
) -> tuple[int, ...]:
    """Find the training pictures that are validation pictures as well.

    Args:
        pairs: The training pictures.
        validation: Pairs of other folders.
        crop: Side of the centre crop that they are, in HR pixels; 0 for whole pictures.
    """
    by_size: dict[tuple[int, ...], list[RgbImage]] = {}
    for pair in validation:
        by_size.setdefault(pair.hr.shape, []).append(pair.hr)
    found = []
    for i in range(len(pairs.hr.entries)):
        hr = centre_crop(pairs.hr.picture(i), crop)
        height, width = (side // pairs.scale * pairs.scale for side in hr.shape[:2])
        for other in by_size.get((height, width, 3), []):
            middle = height // 2
            if np.array_equal(hr[middle, :width], other[middle]) and np.array_equal(
                hr[:height, :width], other
            ):
                found.append(i)
                break
    return tuple(found)


def pairs_from_cache(
    pairs: PicturePairs,
    indices: Sequence[int],
    *,
    crop: int,
    degradation: Degradation | None = None,
    own_lr: bool = False,
) -> list[Pair]:
    """Validation pairs from cached pictures.

    Args:
        pairs: The cache.
        indices: The pictures.
        crop: Side of the centre crop in HR pixels; 0 for whole pictures.
        degradation: Makes the LR pictures; None for MATLAB's bicubic.
        own_lr: Take the LR pictures of the cache, which the user has brought.
    """
    if own_lr:
        return [_own_pair(pairs, i, crop) for i in indices]
    made = [
        pair_from_hr(pairs.hr.entries[i].name, centre_crop(pairs.hr.picture(i), crop), pairs.scale)
        for i in indices
    ]
    return made if degradation is None else degraded_pairs(made, pairs.scale, degradation)


def _own_pair(pairs: PicturePairs, index: int, crop: int) -> Pair:
    scale, hr, whole = pairs.scale, pairs.hr.picture(index), pairs.lr.picture(index)
    lr = centre_crop(whole, crop // scale)
    top, left = ((a - b) // 2 for a, b in zip(whole.shape[:2], lr.shape[:2], strict=True))
    rows = slice(top * scale, (top + lr.shape[0]) * scale)
    columns = slice(left * scale, (left + lr.shape[1]) * scale)
    return Pair(pairs.hr.entries[index].name, lr, np.ascontiguousarray(hr[rows, columns]))


def degraded_pairs(pairs: Sequence[Pair], scale: int, degradation: Degradation) -> list[Pair]:
    """The same pictures with LR made by a degradation, always with the same draws by name."""
    return [
        Pair(pair.name, degrade(pair.hr, scale, degradation, generator_of_name(pair.name)), pair.hr)
        for pair in pairs
    ]


def pairs_from_folder(
    folder: Path, scale: int, *, crop: int = 0, lr_folder: Path | None = None
) -> list[Pair]:
    """Validation pairs from a folder.

    Args:
        folder: Ground truths.
        scale: HR side over LR side.
        crop: Side of the centre crop in HR pixels; 0 for whole pictures.
        lr_folder: Their LR pictures, matched by name; None for MATLAB's bicubic.

    Raises:
        InputError: A folder is missing, or holds no picture that can be used.
    """
    lr_paths = () if lr_folder is None else find_images(lr_folder, ground_truth=False)
    return read_pairs(find_images(folder), scale, crop=crop, lr_paths=lr_paths)


def without_flat_pictures(pairs: Sequence[Pair]) -> list[Pair]:
    """Leave out pictures without detail, which every network restores alike; with a warning.

    Raises:
        InputError: All are flat.
    """
    is_flat = [float(luma(pair.hr).std()) < FLAT_DEVIATION for pair in pairs]
    kept = [pair for pair, flat in zip(pairs, is_flat, strict=True) if not flat]
    flat_names = [pair.name for pair, flat in zip(pairs, is_flat, strict=True) if flat]
    if pairs and not kept:
        raise InputError(
            f"all {len(pairs)} validation pictures are flat, such as {flat_names[0]}, and cannot "
            "tell networks apart. Give others with --val DIR"
        )
    if flat_names:
        logger.warning("left out of validation: flat pictures: %s", ", ".join(flat_names[:5]))
    return kept


def score_network(
    network: nn.Module, pairs: Sequence[Pair], scale: int, *, device: torch.device
) -> dict[str, Quality]:
    """Score a network in fp32 by picture name.

    Args:
        network: In eval mode, on `device`.
        pairs: Pictures to score on.
        scale: Output size over input size.
        device: Where the network is.
    """
    return {
        pair.name: quality(_upscaled(network, pair.lr, device), pair.hr, border=scale)
        for pair in pairs
    }


def validate(
    network: nn.Module,
    pairs: Sequence[Pair],
    scale: int,
    *,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
) -> ValidationScores | None:
    """Score a network as `score_network` does, on RGB too; None if it is to stop before the end.

    Args:
        network: In eval mode, on `device`.
        pairs: Pictures to score on.
        scale: Output size over input size.
        device: Where the network is.
        stop: Called before each picture.
    """
    scores: dict[str, Quality] = {}
    rgb: list[float] = []
    for i, pair in enumerate(pairs):
        if stop():
            return None
        sr = _upscaled(network, pair.lr, device)
        scores[f"{i} {pair.name}"] = quality(sr, pair.hr, border=scale)
        rgb.append(psnr_rgb(sr, pair.hr, border=scale))
    mean = mean_quality(scores)
    finite = [value for value in rgb if np.isfinite(value)]
    choice = [min(score.psnr_y_db, LARGEST_CHOICE_DB) for score in scores.values()]
    return ValidationScores(
        mean=mean,
        psnr_rgb_db=float(np.mean(finite)) if finite else EXACT_PSNR_DB,
        choice_db=float(np.mean(choice)),
        num_pictures=len(scores),
    )


def psnr_rgb(sr: RgbImage, hr: RgbImage, *, border: int) -> float:
    """PSNR over the three channels in dB, a border left out; infinite where the two are equal."""
    inside = slice(border, -border or None)
    return psnr(sr[inside, inside].astype(np.float64), hr[inside, inside].astype(np.float64))


def _upscaled(network: nn.Module, image: RgbImage, device: torch.device) -> RgbImage:
    with torch.inference_mode():
        lr = torch.from_numpy(float_from_image(image)).to(device)
        return image_from_float(network(lr).float().cpu().numpy())
