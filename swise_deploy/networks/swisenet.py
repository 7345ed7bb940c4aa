"""SwiseNet: lightweight image super-resolution with a scale-wise network (BMVC 2023).

The structure follows the paper's Figure 3 and, where the figure is silent, the authors' released
reference code; the choices made where the two disagree are listed in docs/swisenet.md.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.command.console import choose
from swise_deploy.networks.parts.pixel_range import DIV2K_MEAN
from swise_deploy.networks.parts.pooling import global_average
from swise_deploy.networks.parts.scale_wise import BRANCHES, Branch, ScaleWiseUpsample
from swise_deploy.networks.parts.torch_bicubic import bicubic_resize
from swise_deploy.networks.parts.upsamplers import PixelShuffleUpsample
from swise_deploy.networks.registry import Recognised, Upsampler

NUM_GROUPS = 3
NUM_BLOCKS = 3


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


def gate(x: Tensor) -> Tensor:
    """Multiply the two halves of the channels: (N, 2C, H, W) to (N, C, H, W)."""
    first, second = x.chunk(2, dim=1)
    return first * second


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """SwiseNet with fresh weights.

    Args:
        scale: 2, 3 or 4.
        option: "no_sum" replaces the SUM by the plain head; branches joined by "+", as in
            "magnify+equal", leave the others out.
        upsampler: "sum" takes the whole SUM, whatever the option.

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
