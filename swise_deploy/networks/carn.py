"""CARN and CARN-M: cascades on every level, with cheap residual blocks in the mobile variant.

Ahn et al., "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual
Network", ECCV 2018.
Parameter names are those of the authors' checkpoints.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.pixel_range import DIV2K_MEAN, MEAN_LAYERS
from swise_deploy.networks.parts.scale_wise import ScaleWiseUpsample
from swise_deploy.networks.registry import Recognised, Upsampler, check_option

CHANNELS = 64
MOBILE_GROUPS = 4


class CARN(nn.Module):
    """CARN for one scale.

    Args:
        scale: 2, 3 or 4.
        mobile: CARN-M: group convolutions, and one residual block shared by the three places of a
            cascade.
        groups: Groups of the convolutions of the residual blocks and the upsampler.
        upsampler: "sum" puts the scale-wise upsampling module in the place of the upsampler and the
            last convolution.
    """

    mean: Tensor

    def __init__(
        self, scale: int, *, mobile: bool = False, groups: int = 1, upsampler: Upsampler = "default"
    ) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)
        self.entry = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.body = Cascade([_local_cascade(mobile=mobile, groups=groups) for _ in range(3)])
        self.upsample: nn.Module
        self.exit: nn.Module
        if upsampler == "sum":
            self.upsample = ScaleWiseUpsample(CHANNELS, 3, scale)
            self.exit = nn.Identity()
        else:
            self.upsample = ShuffleSteps(scale, groups)
            self.exit = nn.Conv2d(CHANNELS, 3, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            lr: (N, 3, H, W), float, RGB in [0, 1], any H, W >= 1.

        Returns:
            (N, 3, H*scale, W*scale), float, RGB, not clamped to [0, 1].
        """
        features = self.body(self.entry(lr - self.mean))
        sr: Tensor = self.exit(self.upsample(features)) + self.mean
        return sr


class Cascade(nn.Module):
    """Three units in a chain; after each, a 1x1 convolution fuses the input and all outputs.

    Args:
        units: The units; the same object three times for the paper's recursive cascade.
    """

    def __init__(self, units: Sequence[nn.Module]) -> None:
        super().__init__()
        self._order = [f"b{1 + list(dict.fromkeys(units)).index(unit)}" for unit in units]
        for name, unit in zip(self._order, units, strict=True):
            self.add_module(name, unit)
        for k in range(len(units)):
            self.add_module(f"c{k + 1}", ConvReLU((k + 2) * CHANNELS, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 64, H, W) to (N, 64, H, W)."""
        gathered = fused = x
        for k, name in enumerate(self._order):
            gathered = torch.cat([gathered, self.get_submodule(name)(fused)], dim=1)
            fused = self.get_submodule(f"c{k + 1}")(gathered)
        return fused


class ConvReLU(nn.Module):
    """A 1x1 convolution and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        y: Tensor = self.body(x)
        return y


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, in CARN-M grouped and then mixed by a 1x1 convolution, and a sum."""

    def __init__(self, *, mobile: bool, groups: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=groups) for _ in "12"]
        layers: list[nn.Module] = [convolutions[0], nn.ReLU(), convolutions[1]]
        if mobile:
            layers += [nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 1)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 64, H, W) to (N, 64, H, W)."""
        return F.relu(self.body(x) + x)


class ShuffleSteps(nn.Sequential):
    """Convolution, ReLU and PixelShuffle: once for x2 and x3, twice by 2 for x4."""

    def __init__(self, scale: int, groups: int) -> None:
        layers: list[nn.Module] = []
        for step in (2, 2) if scale == 4 else (scale,):
            layers.append(nn.Conv2d(CHANNELS, CHANNELS * step**2, 3, padding=1, groups=groups))
            layers += [nn.ReLU(), nn.PixelShuffle(step)]
        super().__init__(*layers)


def _local_cascade(*, mobile: bool, groups: int) -> Cascade:
    if mobile:
        return Cascade([ResidualBlock(mobile=True, groups=groups)] * 3)
    return Cascade([ResidualBlock(mobile=False, groups=1) for _ in range(3)])


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """CARN, or CARN-M with option "mobile", with fresh weights."""
    check_option("carn", option, ("mobile",))
    mobile = option == "mobile"
    groups = MOBILE_GROUPS if mobile else 1
    return CARN(scale, mobile=mobile, groups=groups, upsampler=upsampler)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise CARN and CARN-M weights: for one scale, for x2, x3 and x4 together, or with SUM."""
    own = {_own_name(k): v for k, v in state.items() if not k.startswith(MEAN_LAYERS)}
    if not {"entry.weight", "body.b1.b1.body.0.weight", "body.c3.body.0.weight"} <= set(own):
        return None
    mobile = "body.b1.b1.body.4.weight" in own
    groups = CHANNELS // own["body.b1.b1.body.0.weight"].shape[1]
    with_sum = "upsample.magnify.conv.weight" in own
    branches = {s: f"upsample.up{s}.body." for s in (2, 3, 4)}
    scales = tuple(s for s, prefix in branches.items() if any(k.startswith(prefix) for k in own))
    if not scales:
        scales = (_single_scale(own, with_sum=with_sum),)

    def load(scale: int) -> nn.Module:
        network = CARN(
            scale, mobile=mobile, groups=groups, upsampler="sum" if with_sum else "default"
        )
        kept = {k.replace(branches[scale], "upsample."): v for k, v in own.items()}
        network.load_state_dict({k: v for k, v in kept.items() if not k.startswith("upsample.up")})
        return network

    return Recognised("carn_m" if mobile else "carn", scales, load)


def _own_name(key: str) -> str:
    """The name in this module of a tensor of the authors' checkpoint."""
    key = key.replace("upsample.up.body.", "upsample.")
    return f"body.{key}" if key[:2] in {"b1", "b2", "b3", "c1", "c2", "c3"} else key


def _single_scale(state: Mapping[str, Tensor], *, with_sum: bool) -> int:
    if with_sum:
        steps = state["upsample.equal.conv.weight"].shape[0] // CHANNELS
    elif "upsample.3.weight" in state:
        steps = 16
    else:
        steps = state["upsample.0.weight"].shape[0] // CHANNELS
    return math.isqrt(steps)
