"""SwiseNet: lightweight image super-resolution with a scale-wise network (BMVC 2023).

The structure follows the paper's Figure 3 and, where the figure is silent, the authors' released
reference code; the choices made where the two disagree are listed in docs/swisenet.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.command.console import choose
from swise_deploy.networks.parts.torch_bicubic import bicubic_to
from swise_deploy.networks.registry import Recognised, Upsampler

Branch = Literal["magnify", "equal", "reduce"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)

# Mean of the DIV2K training images, RGB in [0, 1] (EDSR, Lim et al., CVPRW 2017).
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)

NUM_GROUPS = 3
NUM_BLOCKS = 3

NUM_TAPS = 9
"""Of a 3x3 convolution."""


class SwiseNet(nn.Module):
    """SwiseNet for one scale.

    Args:
        scale: 2, 3 or 4.
        channels: Feature channels c; the paper uses 64.
        branches: The branches of the scale-wise upsampling module (SUM) in use; empty for the plain
            PixelShuffle head ("SwiseNet w/o SUM").
    """

    mean: Tensor

    def __init__(
        self, scale: int, *, channels: int = 64, branches: Sequence[Branch] = BRANCHES
    ) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = DenseFusion([BlockGroup(channels) for _ in range(NUM_GROUPS)], channels)
        self.fuse = nn.Conv2d(NUM_GROUPS * channels, channels, 1)
        self.global_skip = nn.Conv2d(channels, channels, 1)
        self.fuse_scale = nn.Parameter(torch.ones(1))
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.upsampler: nn.Module = (
            ScaleWiseUpsample(channels, 3, scale, branches=branches)
            if branches
            else PixelShuffleUpsample(channels, 3, scale)
        )

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            lr: (N, 3, H, W), float, RGB in [0, 1], any H, W >= 1.

        Returns:
            (N, 3, H*scale, W*scale), float, RGB, not clamped to [0, 1].
        """
        x = lr - self.mean
        features = self.head(x)
        fused = F.relu(self.fuse(torch.cat(self.body(features), dim=1)))
        skip = F.relu(self.global_skip(global_average(features)))
        y = fused * self.fuse_scale + skip * self.skip_scale
        sr: Tensor = self.upsampler(y) + bicubic_resize(x, self.scale) + self.mean
        return sr


class DenseFusion(nn.Module):
    """Units in a chain; after each one a 1x1 convolution fuses the outputs of all units so far."""

    def __init__(self, units: Sequence[nn.Module], channels: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.reductions = nn.ModuleList(
            nn.Conv2d((k + 2) * channels, channels, 1) for k in range(len(units))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the fused output after each unit: a list of (N, c, H, W)."""
        gathered = fused = x
        outputs = []
        for unit, reduction in zip(self.units, self.reductions, strict=True):
            gathered = torch.cat([gathered, unit(fused)], dim=1)
            fused = F.relu(reduction(gathered))
            outputs.append(fused)
        return outputs


class BlockGroup(DenseFusion):
    """Dense fusion of chunk-gated blocks; the group's output is the last fused one."""

    def __init__(self, channels: int) -> None:
        super().__init__([ChunkGatedBlock(channels) for _ in range(NUM_BLOCKS)], channels)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # last output only
        """Map (N, c, H, W) to (N, c, H, W)."""
        return super().forward(x)[-1]


class ChunkGatedBlock(nn.Module):
    """Chunk-gated block (CGB): a depthwise-convolution step and a feed-forward step, both gated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        half = wide // 2
        self.norm1 = ChannelLayerNorm(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.dwconv = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.attention = nn.Conv2d(half, half, 1)
        self.conv3 = nn.Conv2d(half, channels, 1)
        self.norm2 = ChannelLayerNorm(channels)
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(half, channels, 1)
        self.prelu = nn.PReLU(init=1.0)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c, H, W) to (N, c, H, W)."""
        a = self.prelu(gate(self.dwconv(self.conv1(self.norm1(x)))))
        a = a * self.attention(global_average(a))
        x = x + self.conv3(a) * self.beta
        b = self.prelu(gate(self.conv4(self.norm2(x))))
        y: Tensor = x + self.conv5(b) * self.gamma
        return y


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, affine."""

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) over C."""
        pixels = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(pixels, self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


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


class PixelShuffleUpsample(nn.Module):
    """The plain upsampler of "SwiseNet w/o SUM": one 3x3 convolution and PixelShuffle."""

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(in_channels, out_channels * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, in_channels, H, W) to (N, out_channels, H*scale, W*scale)."""
        return F.pixel_shuffle(self.conv(x), self.scale)


def gate(x: Tensor) -> Tensor:
    """Multiply the two halves of the channels: (N, 2C, H, W) to (N, C, H, W)."""
    first, second = x.chunk(2, dim=1)
    return first * second


def global_average(x: Tensor) -> Tensor:
    """Average over the picture: (N, C, H, W) to (N, C, 1, 1)."""
    return F.adaptive_avg_pool2d(x, 1)


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


def bicubic_resize(x: Tensor, scale: int) -> Tensor:
    """Upscale (N, C, H, W) by an integer, bicubic as in torch: a = -0.75, no antialiasing."""
    return bicubic_to(x, x.shape[2] * scale, x.shape[3] * scale)


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """SwiseNet with fresh weights.

    Args:
        scale: 2, 3 or 4.
        option: "no_sum" replaces the SUM by the plain head; branches joined by "+", as in
            "magnify+equal", leave the others out.
        upsampler: "sum" takes the whole SUM, whatever `option` says.

    Raises:
        InputError: The option names no branch.
    """
    if upsampler == "sum" or not option:
        return SwiseNet(scale)
    if option == "no_sum":
        return SwiseNet(scale, branches=())
    chosen = [choose(part, BRANCHES, what="branch of the SUM") for part in option.split("+")]
    return SwiseNet(scale, branches=[b for b in BRANCHES if b in chosen])


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise SwiseNet weights, with any branches of the SUM or none."""
    if "body.units.0.units.0.dwconv.weight" not in state or "fuse_scale" not in state:
        return None
    channels = state["head.weight"].shape[0]
    branches = [b for b in BRANCHES if f"upsampler.{b}.conv.weight" in state]
    scales: tuple[int, ...] = (2, 3, 4)
    if not branches:
        scales = (math.isqrt(state["upsampler.conv.weight"].shape[0] // 3),)
    elif "equal" in branches:
        scales = (math.isqrt(state["upsampler.equal.conv.weight"].shape[0] // channels),)
    elif "magnify" in branches:
        scales = (math.isqrt(state["upsampler.magnify.conv.weight"].shape[0] // channels) - 1,)

    def load(scale: int) -> nn.Module:
        network = SwiseNet(scale, channels=channels, branches=branches)
        network.load_state_dict(dict(state))
        return network

    return Recognised("swisenet" if branches else "swisenet_no_sum", scales, load)
