"""Validation by the protocol of the literature: PSNR-Y and SSIM-Y on whole or cropped pictures."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import Quality
from swise_deploy.evaluation.pairs import Pair, centre_crop, evaluate, pair_from_hr, read_pairs
from swise_deploy.pictures.files import RgbImage
from swise_deploy.pictures.folders import find_images
from swise_deploy.runner import float_from_image, image_from_float
from swise_deploy.training.data.picture_cache import PicturePairs


def held_out_indices(pairs: PicturePairs, count: int, *, smallest: int) -> tuple[int, ...]:
    """Choose pictures to validate on; the choice hangs on their names alone.

    Args:
        pairs: All pictures.
        count: How many to choose.
        smallest: Least short side in LR pixels.

    Raises:
        InputError: More than half of the usable pictures would be held out.
    """
    usable = [i for i, e in enumerate(pairs.lr.entries) if min(e.height, e.width) >= smallest]
    if 2 * count > len(usable):
        raise InputError(
            f"holdout is {count}, of {len(usable)} usable pictures; expected at most half of them. "
            "Use --holdout with a smaller number (0 does not validate), or --val DIR"
        )
    names = pairs.hr.entries
    usable.sort(key=lambda i: hashlib.sha256(names[i].name.encode()).digest())
    return tuple(sorted(usable[:count]))


def pairs_from_cache(pairs: PicturePairs, indices: Sequence[int], *, crop: int) -> list[Pair]:
    """Validation pairs from cached pictures; `crop` is the side of the centre crop, 0 for all."""
    return [
        pair_from_hr(pairs.hr.entries[i].name, centre_crop(pairs.hr.picture(i), crop), pairs.scale)
        for i in indices
    ]


def pairs_from_folder(folder: Path, scale: int, *, crop: int = 0) -> list[Pair]:
    """Validation pairs from a folder; `crop` is the side of the centre crop, 0 for all.

    Raises:
        InputError: The folder is missing, or holds no picture that can be used.
    """
    return read_pairs(find_images(folder), scale, crop=crop)


def score_network(
    network: nn.Module, pairs: Sequence[Pair], scale: int, *, device: torch.device
) -> dict[str, Quality]:
    """Score a network in fp32 by picture name.

    Args:
        network: In eval mode, on `device`.
        pairs: What to score on.
        scale: Output size over input size.
        device: Where the network is.
    """

    def upscale(image: RgbImage) -> RgbImage:
        with torch.inference_mode():
            lr = torch.from_numpy(float_from_image(image)).to(device)
            return image_from_float(network(lr).float().cpu().numpy())

    return evaluate(upscale, pairs, scale)
