"""Networks for another range or order of colours, wrapped so that they take ordinary pictures.

EDSR and its kin work on 0..255, OpenCV's users on BGR. What a network wants becomes part of the
exported graph, so that the artefact takes RGB in [0, 1] like every other.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.evaluation.pairs import Pair, evaluate, mean_quality, pair_from_hr
from swise_deploy.pictures.imresize import imresize
from swise_deploy.runner import upscale
from swise_deploy.runners.torch_cpu import TorchRunner

White = Literal[1, 255]
"""The value of white in a network's pictures."""

_CROP = 64
_NUM_PAIRS = 2
# Below bicubic by this much, a network is not fed as it wants, or not trained.
_FAR_BELOW_DB = 3.0
# A range is taken by measurement only if it is better by this much.
_CLEARLY_BETTER_DB = 6.0


class FedNetwork(nn.Module):
    """A network behind the conversion of colours that it wants.

    Args:
        network: Takes and gives pictures in 0 to `white`.
        white: The value of white.
        bgr: True where blue is its first channel.
    """

    def __init__(self, network: nn.Module, *, white: White = 1, bgr: bool = False) -> None:
        super().__init__()
        self.network = network
        self.white = white
        self.bgr = bgr

    def forward(self, lr: Tensor) -> Tensor:
        """Map (N, 3, H, W) RGB in [0, 1] to (N, 3, H*scale, W*scale)."""
        sr: Tensor = self.network(self._reversed(lr) * self.white)
        return self._reversed(sr / self.white)

    def _reversed(self, pictures: Tensor) -> Tensor:
        if not self.bgr:
            return pictures
        order = torch.tensor([2, 1, 0], device=pictures.device)
        return pictures.index_select(1, order)


def fed_network(network: LoadedNetwork, *, white: White = 1, bgr: bool = False) -> LoadedNetwork:
    """The same network for RGB in [0, 1]."""
    if white == 1 and not bgr:
        return network
    return dataclasses.replace(network, module=FedNetwork(network.module, white=white, bgr=bgr))


def find_white(network: LoadedNetwork, pairs: Sequence[Pair]) -> tuple[White, str]:
    """The range that a network works on, by its quality on ground truth.

    Args:
        network: As it was opened.
        pairs: LR pictures with their ground truth.

    Returns:
        The value of white, and a line about it where it is not 1.
    """
    crops = [_crop(pair, network.scale) for pair in pairs[:_NUM_PAIRS]]
    ordinary = _psnr_y_db(network, crops)
    bicubic = bicubic_psnr_y_db(crops, network.scale)
    if ordinary >= bicubic - _FAR_BELOW_DB:
        return 1, ""
    wide = _psnr_y_db(fed_network(network, white=255), crops)
    if wide < ordinary + _CLEARLY_BETTER_DB:
        return 1, ""
    return 255, (
        f"the network works on pictures of 0 to 255: {wide:.2f} dB of PSNR-Y there, "
        f"{ordinary:.2f} dB on 0 to 1 (bicubic: {bicubic:.2f} dB). The conversion becomes part of "
        "the file; --range decides without measuring"
    )


def bicubic_psnr_y_db(pairs: Sequence[Pair], scale: int) -> float:
    """Mean PSNR-Y of MATLAB's bicubic enlargement, dB."""
    scores = evaluate(lambda lr: np.asarray(imresize(lr, scale), np.uint8), pairs, scale)
    return mean_quality(scores).psnr_y_db


def _psnr_y_db(network: LoadedNetwork, pairs: Sequence[Pair]) -> float:
    with TorchRunner(network) as runner:
        scores = evaluate(partial(upscale, runner), pairs, network.scale)
    return mean_quality(scores).psnr_y_db


def _crop(pair: Pair, scale: int) -> Pair:
    """The middle of a pair, small enough to take no time."""
    side = _CROP * scale
    top, left = (max(0, (length - side) // 2) for length in pair.hr.shape[:2])
    return pair_from_hr(pair.name, pair.hr[top : top + side, left : left + side], scale)
