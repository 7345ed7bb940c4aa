"""The scale-wise upsampling module (SUM) of SwiseNet (BMVC 2023), for any network's features."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.torch_bicubic import bicubic_to

Branch = Literal["magnify", "equal", "reduce"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)

NUM_TAPS = 9
"""Of a 3x3 convolution."""


class ScaleWiseUpsample(nn.Module):
    """Scale-wise upsampling module (SUM), the paper's plug-in upsampler.

    Features are magnified to (scale + 1)x, to scale x, and reduced to half size; each branch is
    brought to the target size by bicubic interpolation and turned into `out_channels` by a 3x3
    convolution; the branches are summed. It takes any (N, in_channels, H, W) feature map, so that
    it can replace the upsampler of another network.

    Args:
        in_channels: Channels of the feature map; a multiple of 4.
        out_channels: Channels of the picture.
        scale: 2, 3 or 4.
        branches: Which of "magnify", "equal" and "reduce" are in use; at least one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale: int,
        *,
        branches: Sequence[Branch] = BRANCHES,
    ) -> None:
        super().__init__()
        self.scale = scale
        kinds: dict[Branch, type[_SumBranch]] = {
            "magnify": MagnifyBranch,
            "equal": EqualBranch,
            "reduce": ReduceBranch,
        }
        unknown = set(branches) - set(kinds)
        if unknown or not branches:
            raise ValueError(f"branches={list(branches)}; expected some of {list(kinds)}")
        for name in BRANCHES:
            if name in branches:
                self.add_module(name, kinds[name](in_channels, out_channels, scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, in_channels, H, W) to (N, out_channels, H*scale, W*scale)."""
        return torch.stack([branch(x) for branch in self.children()]).sum(dim=0)


class _SumBranch(nn.Module):
    """One branch of the SUM: `conv` changes the resolution, `tail` makes the picture."""

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = self.make_conv(in_channels, scale)
        self.tail = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def make_conv(self, channels: int, scale: int) -> nn.Conv2d:
        raise NotImplementedError

    def resized_tail(self, x: Tensor, to: tuple[int, int], crop: tuple[int, int]) -> Tensor:
        """Resize features (N, c, H, W), crop the result, and make the picture of it.

        With gradients, training makes the tail's taps before it resizes: the same picture up to
        rounding, with 27 channels to resize and to remember, not c.
        """
        height, width = crop
        if not (self.training and torch.is_grad_enabled()):
            y: Tensor = self.tail(bicubic_to(x, *to)[:, :, :height, :width])
            return y
        taps = F.conv2d(x, tap_weight(self.tail.weight))
        taps = bicubic_to(taps, *to, training=True)[:, :, :height, :width]
        shift_add = shift_add_weight(self.tail.out_channels, device=taps.device)
        return F.conv2d(taps, shift_add.to(taps.dtype), self.tail.bias, padding=1)


class MagnifyBranch(_SumBranch):
    """To (scale + 1)x by PixelShuffle, then down to scale x."""

    def make_conv(self, channels: int, scale: int) -> nn.Conv2d:
        """The grouped 3x3 convolution that feeds PixelShuffle(scale + 1)."""
        return nn.Conv2d(channels, channels * (scale + 1) ** 2, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c, H, W) to (N, out, H*scale, W*scale)."""
        height, width = x.shape[2:]
        up = F.pixel_shuffle(F.relu(self.conv(x)), self.scale + 1)
        size = height * self.scale, width * self.scale
        return self.resized_tail(up, size, crop=size)


class EqualBranch(_SumBranch):
    """To scale x by PixelShuffle, the target size."""

    def make_conv(self, channels: int, scale: int) -> nn.Conv2d:
        """The grouped 3x3 convolution that feeds PixelShuffle(scale)."""
        return nn.Conv2d(channels, channels * scale**2, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c, H, W) to (N, out, H*scale, W*scale)."""
        y: Tensor = self.tail(F.pixel_shuffle(F.relu(self.conv(x)), self.scale))
        return y


class ReduceBranch(_SumBranch):
    """To half size by PixelUnshuffle, then up to scale x."""

    def make_conv(self, channels: int, scale: int) -> nn.Conv2d:
        """The 3x3 convolution to a quarter of the channels, which PixelUnshuffle(2) restores."""
        del scale
        return nn.Conv2d(channels, channels // 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c, H, W) to (N, out, H*scale, W*scale); odd H or W is padded, then cropped."""
        height, width = x.shape[2:]
        y = F.relu(self.conv(x))
        # The last row and column again if they are odd. torch.compile cannot train F.pad's own way.
        y = torch.cat([y, y[:, :, height - height % 2 :]], dim=2)
        y = torch.cat([y, y[..., width - width % 2 :]], dim=3)
        down = F.pixel_unshuffle(y, 2)
        padded = y.shape[2] * self.scale, y.shape[3] * self.scale
        return self.resized_tail(down, padded, crop=(height * self.scale, width * self.scale))


def tap_weight(weight: Tensor) -> Tensor:
    """Of a 3x3 convolution (out, c, 3, 3) the 1x1 one (9*out, c, 1, 1), a tap after the other.

    Being 1x1 it commutes with interpolation. `shift_add_weight` then makes the 3x3 one's result.
    """
    return weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[1], 1, 1)


def shift_add_weight(out_channels: int, *, device: torch.device | None = None) -> Tensor:
    """The 3x3 convolution of zeros and ones, (out, 9*out, 3, 3), that shifts and adds taps."""
    taps = torch.eye(NUM_TAPS, device=device).reshape(1, NUM_TAPS, 1, 3, 3)
    channels = torch.eye(out_channels, device=device).reshape(out_channels, 1, out_channels, 1, 1)
    return (channels * taps).reshape(out_channels, -1, 3, 3)
