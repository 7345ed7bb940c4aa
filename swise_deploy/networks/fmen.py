"""FMEN: plain 3x3 convolutions in a row, with an attention branch after each pair.

Du et al., "Fast and Memory-Efficient Network Towards Efficient Image Super-Resolution", CVPR
Workshops 2022 (NTIRE 2022). This is the form that runs: in training every 3x3 convolution of a
residual block is three convolutions and two additions, and the attention has batch normalisation;
both merge exactly. Parameter names are those of the authors' merged checkpoint; unmerged ones are
merged when they are loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.pixel_range import unit_range_state
from swise_deploy.networks.parts.upsamplers import make_upsampler, upsampler_scale
from swise_deploy.networks.registry import Recognised, Upsampler, check_option

SLOPE = 0.1  # of LeakyReLU
WHITE = 255.0  # the authors trained on 0..255, without a mean shift

# In the authors' FMEN-S an attention branch has values up to 2e7; float16 ends at 65504. LeakyReLU
# commutes with a positive factor, so a branch can run at a power of two of its size with the same
# result, bit for bit.
BRANCH_GAIN = 2.0**-10
BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class FmenSize:
    """Sizes of an FMEN.

    Attributes:
        channels: Feature maps of the trunk.
        attention: Feature maps in the attention branch of each block; the first is the warm-up's.
        depths: Residual blocks in the attention branch of each block; the first is the warm-up's.
    """

    channels: int
    attention: tuple[int, ...]
    depths: tuple[int, ...]


# FMEN-S is the authors' released configuration. That of FMEN is not in their code or paper; this
# one has the printed number of parameters at every scale and their Mult-Adds to 0.1%.
SIZES = {
    "small": FmenSize(50, (12, 16, 16, 16, 16), (2, 1, 1, 1, 1)),
    "": FmenSize(64, (16, 16, 16, 16, 16, 16, 16), (2, 3, 3, 3, 3, 3, 3)),
}


class FMEN(nn.Module):
    """FMEN for one scale, merged for inference."""

    def __init__(
        self, scale: int, size: FmenSize = SIZES[""], *, upsampler: Upsampler = "default"
    ) -> None:
        super().__init__()
        self.scale = scale
        channels = size.channels
        blocks = [
            HighFrequencyAttention(channels, attention, depth)
            for attention, depth in zip(size.attention, size.depths, strict=True)
        ]
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.warmup = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), blocks[0])
        self.ERBs = nn.ModuleList(ResidualBlock(channels) for _ in blocks[1:])
        self.HFABs = nn.ModuleList(blocks[1:])
        self.lr_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = make_upsampler(channels, scale, upsampler)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            lr: (N, 3, H, W), float, RGB in [0, 1], any H, W >= 1.

        Returns:
            (N, 3, H*scale, W*scale), float, RGB, not clamped to [0, 1].
        """
        features = self.head(lr)
        x = self.warmup(features)
        for residual, attention in zip(self.ERBs, self.HFABs, strict=True):
            x = attention(residual(x))
        sr: Tensor = self.upsampler(self.lr_conv(x) + features)
        return sr


class MergedConv(nn.Module):
    """The 3x3 convolution into which the training form's three convolutions and sums merge."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rep_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        y: Tensor = self.rep_conv(x)
        return y


class ResidualBlock(nn.Module):
    """Enhanced residual block (ERB): two merged convolutions; their residuals are inside them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = MergedConv(channels)
        self.conv2 = MergedConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        y: Tensor = self.conv2(F.leaky_relu(self.conv1(x), SLOPE))
        return y


class HighFrequencyAttention(nn.Module):
    """High-frequency attention block (HFAB): a narrow branch weighs every value of the trunk."""

    def __init__(self, channels: int, squeezed: int, depth: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 3, padding=1)
        self.convs = nn.Sequential(*[ResidualBlock(squeezed) for _ in range(depth)])
        self.excitate = nn.Conv2d(squeezed, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        branch = F.leaky_relu(self.convs(F.leaky_relu(self.squeeze(x), SLOPE)), SLOPE)
        return torch.sigmoid(self.excitate(branch)) * x


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """FMEN, or FMEN-S with option "small", with fresh weights."""
    check_option("fmen", option, SIZES)
    return FMEN(scale, SIZES[option], upsampler=upsampler)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise FMEN weights of any size, merged or as trained, with its own head or SUM."""
    if not {"HFABs.0.squeeze.weight", "lr_conv.weight"} <= set(state):
        return None
    own = _own_state(state) if "tail.0.weight" in state else dict(state)
    num_pairs = len({key.split(".")[1] for key in own if key.startswith("HFABs.")})
    names = ["warmup.1", *[f"HFABs.{i}" for i in range(num_pairs)]]
    size = FmenSize(
        channels=own["lr_conv.weight"].shape[0],
        attention=tuple(own[f"{name}.squeeze.weight"].shape[0] for name in names),
        depths=tuple(_count_children(own, f"{name}.convs.") for name in names),
    )
    with_sum = "upsampler.equal.conv.weight" in own

    def load(scale: int) -> nn.Module:
        network = FMEN(scale, size, upsampler="sum" if with_sum else "default")
        network.load_state_dict(own)
        return network

    name = "fmen_s" if size == SIZES["small"] else "fmen"
    return Recognised(name, (upsampler_scale(own, size.channels),), load)


def _count_children(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({k.removeprefix(prefix).split(".")[0] for k in state if k.startswith(prefix)})


def _own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' checkpoint as this module names it, merged and for pictures in 0..1."""
    merged = _merged(state) if "ERBs.0.conv1.expand_conv.weight" in state else state
    named = {k.replace("tail.0.", "upsampler.conv."): v for k, v in merged.items()}
    unit = unit_range_state(named, first="head.", last="upsampler.", white=WHITE)
    return {key: value * _branch_factor(key) for key, value in unit.items()}


def _branch_factor(key: str) -> float:
    """The factor that keeps the attention's value while its branch runs at BRANCH_GAIN."""
    if ".squeeze." in key or (".convs." in key and key.endswith(".bias")):
        return BRANCH_GAIN
    return 1 / BRANCH_GAIN if key.endswith(".excitate.weight") else 1.0


def _merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge the training form into the form that runs.

    The training form pads with what its biases make of a zero border, so that merging is exact at
    the edges too (paper, section 3.3).
    """
    merged = {}
    for key, value in state.items():
        prefix, _, last = key.rpartition(".")
        block, _, layer = prefix.rpartition(".")
        if last != "weight" and layer in {"expand_conv", "squeeze", "excitate"}:
            continue
        if layer == "expand_conv":
            target, pair = f"{block}.rep_conv", _merge_residual(state, block)
        elif layer == "squeeze":
            target, pair = prefix, _after_norm(state, f"{block}.bn1", _pair(state, prefix))
        elif layer == "excitate":
            inner = _after_norm(state, f"{block}.bn2", _pair(state, prefix))
            target, pair = prefix, _before_norm(state, f"{block}.bn3", inner)
        elif layer in {"fea_conv", "reduce_conv", "bn1", "bn2", "bn3"}:
            continue
        else:
            merged[key] = value
            continue
        merged[f"{target}.weight"], merged[f"{target}.bias"] = pair
    return merged


_Conv = tuple[Tensor, Tensor]
"""Weight and bias of a convolution."""


def _pair(state: Mapping[str, Tensor], prefix: str) -> _Conv:
    return state[f"{prefix}.weight"], state[f"{prefix}.bias"]


def _merge_residual(state: Mapping[str, Tensor], block: str) -> _Conv:
    """1x1, 3x3 with a residual, 1x1, and a residual around all: one 3x3 convolution."""
    expand, expand_bias = _pair(state, f"{block}.expand_conv")
    middle, middle_bias = _pair(state, f"{block}.fea_conv")
    reduce, reduce_bias = _pair(state, f"{block}.reduce_conv")
    middle = middle + _identity(middle)
    weight = torch.tensordot(reduce[:, :, 0, 0], middle, dims=1)
    bias = reduce[:, :, 0, 0] @ (middle_bias + middle.sum(dim=(2, 3)) @ expand_bias) + reduce_bias
    weight = torch.tensordot(weight, expand[:, :, 0, 0], dims=([1], [0])).permute(0, 3, 1, 2)
    return (weight + _identity(weight)).contiguous(), bias


def _identity(weight: Tensor) -> Tensor:
    """The 3x3 convolution that changes nothing, shaped like `weight`."""
    identity = torch.zeros_like(weight)
    identity[:, :, 1, 1] = torch.eye(len(weight))
    return identity


def _norm(state: Mapping[str, Tensor], norm: str) -> _Conv:
    """Factor and offset of a batch normalisation at inference."""
    factor = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BATCH_NORM_EPS).sqrt()
    return factor, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor


def _after_norm(state: Mapping[str, Tensor], norm: str, conv: _Conv) -> _Conv:
    """A convolution with the normalisation before it folded in."""
    factor, offset = _norm(state, norm)
    weight, bias = conv
    return weight * factor.view(1, -1, 1, 1), bias + weight.sum(dim=(2, 3)) @ offset


def _before_norm(state: Mapping[str, Tensor], norm: str, conv: _Conv) -> _Conv:
    """A convolution with the normalisation after it folded in."""
    factor, offset = _norm(state, norm)
    weight, bias = conv
    return weight * factor.view(-1, 1, 1, 1), bias * factor + offset
