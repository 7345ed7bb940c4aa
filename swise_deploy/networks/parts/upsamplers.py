"""The exchangeable last part of a network: a convolution and PixelShuffle, or the paper's SUM."""

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.errors import InputError
from swise_deploy.networks.parts.scale_wise import ScaleWiseUpsample
from swise_deploy.networks.registry import Upsampler

SUM_CHANNELS = 4
"""SUM takes feature maps in multiples of this: its convolutions have 4 groups."""


class PixelShuffleUpsample(nn.Module):
    """The plain upsampler of "SwiseNet w/o SUM": one 3x3 convolution and PixelShuffle."""

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(in_channels, out_channels * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, in_channels, H, W) to (N, out_channels, H*scale, W*scale)."""
        return F.pixel_shuffle(self.conv(x), self.scale)


def make_upsampler(channels: int, scale: int, upsampler: Upsampler) -> nn.Module:
    """Features (N, channels, H, W) to a picture (N, 3, H*scale, W*scale).

    Raises:
        InputError: SUM is asked for, and the feature maps do not fit it.
    """
    if upsampler == "default":
        return PixelShuffleUpsample(channels, 3, scale)
    if channels % SUM_CHANNELS:
        raise InputError(
            f"SUM needs feature maps in multiples of {SUM_CHANNELS}, and this network has "
            f"{channels}. Use --upsampler default"
        )
    return ScaleWiseUpsample(channels, 3, scale)


def upsampler_scale(state: Mapping[str, Tensor], channels: int) -> int:
    """The scale of a network whose "upsampler" came from `make_upsampler`, from the shapes."""
    equal = state.get("upsampler.equal.conv.weight")
    if equal is not None:
        return math.isqrt(equal.shape[0] // channels)
    return math.isqrt(state["upsampler.conv.weight"].shape[0] // 3)
