"""SMSR: learned masks select the channels needed everywhere, and the places of the others.

Wang et al., "Exploring Sparsity in Image Super-Resolution for Efficient Inference", CVPR 2021. The
masks work here as at inference (thresholded), on dense feature maps: what a mask excludes is
computed and then multiplied by zero, so that any runtime can run it and the result is that of the
sparse computation. The Mult-Adds are those of the dense network; the sparse saving needs the
authors' gather kernels.

Channels are sorted when a checkpoint is loaded, those needed everywhere first. In training the
spatial masks are relaxed (Gumbel softmax), the choice of channels stays.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.pixel_range import (
    DIV2K_MEAN,
    MEAN_LAYERS,
    trained_range,
    unit_range_state,
)
from swise_deploy.networks.parts.pooling import global_average
from swise_deploy.networks.parts.torch_bicubic import bicubic_resize
from swise_deploy.networks.parts.upsamplers import make_upsampler, upsampler_scale
from swise_deploy.networks.registry import Recognised, Upsampler, check_option

CHANNELS = 64
NUM_MODULES = 5
NUM_LAYERS = 4
HALF_DENSE = ((CHANNELS // 2,) * NUM_LAYERS,) * NUM_MODULES


class SMSR(nn.Module):
    """SMSR for one scale.

    Args:
        scale: 2, 3 or 4.
        dense: For each sparse mask module and each of its layers, how many channels are needed
            everywhere.
        upsampler: "sum" puts the scale-wise upsampling module in the place of the head.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int,
        dense: Sequence[Sequence[int]] = HALF_DENSE,
        *,
        upsampler: Upsampler = "default",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )
        self.body = nn.ModuleList(SparseMaskModule(counts) for counts in dense)
        self.collect = nn.Sequential(
            nn.Conv2d(len(dense) * CHANNELS, CHANNELS, 1),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )
        self.upsampler = make_upsampler(CHANNELS, scale, upsampler)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            lr: (N, 3, H, W), float, RGB in [0, 1], any H, W >= 1.

        Returns:
            (N, 3, H*scale, W*scale), float, RGB, not clamped to [0, 1].
        """
        centred = lr - self.mean
        features = x = self.head(centred)
        outputs = []
        for module in self.body:
            x = module(x)
            outputs.append(x)
        x = self.collect(torch.cat(outputs, dim=1)) + features
        sr: Tensor = self.upsampler(x) + bicubic_resize(centred, self.scale) + self.mean
        return sr


class SparseMaskModule(nn.Module):
    """Sparse mask module (SMM): masked convolutions and channel attention, with a residual."""

    def __init__(self, dense: Sequence[int]) -> None:
        super().__init__()
        self.spa_mask = SpatialMask()
        self.body = MaskedConvolutions(dense)
        self.ca = ChannelAttention()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 64, H, W) to (N, 64, H, W)."""
        y: Tensor = self.ca(self.body(x, self.spa_mask(x))) + x
        return y


class SpatialMask(nn.Module):
    """The mask of the sparse channels: 1 or 0 for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        quarter = CHANNELS // 4
        self.features = nn.Sequential(
            nn.Conv2d(CHANNELS, quarter, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(quarter, quarter, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(quarter, 2, 3, stride=2, padding=1, output_padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 64, H, W) to (N, 1, H, W); odd sizes are padded to even ones, then cropped."""
        height, width = x.shape[2:]
        even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        logits = self.features(even)[:, :, :height, :width]
        if self.training:
            relaxed: Tensor = F.gumbel_softmax(logits, dim=1)
            return relaxed[:, 1:]
        needed: Tensor = logits[:, 1:] > logits[:, :1]
        return needed.to(x.dtype)


class MaskedConvolutions(nn.Module):
    """Four 3x3 convolutions whose sparse channels live where the mask is 1; a 1x1 gathers them.

    Args:
        dense: How many channels of each layer's output are needed everywhere; they come first.
    """

    def __init__(self, dense: Sequence[int]) -> None:
        super().__init__()
        self.num_dense = tuple(dense)
        self.register_buffer("dense", torch.tensor(self.num_dense))
        self.first = _conv3(CHANNELS)
        self.from_dense = nn.ModuleList(_conv3(n) for n in self.num_dense[:-1])
        self.from_sparse = nn.ModuleList(_conv3(CHANNELS - n) for n in self.num_dense[:-1])
        self.collect = nn.Conv2d(len(self.num_dense) * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map features (N, 64, H, W) and a mask (N, 1, H, W) to (N, 64, H, W)."""
        x = F.relu(self._restrict(self.first(x), self.num_dense[0], mask))
        outputs = [x]
        for i, (from_dense, from_sparse) in enumerate(
            zip(self.from_dense, self.from_sparse, strict=True)
        ):
            kept = self.num_dense[i]
            # The sparse channels contribute only where the mask is 1.
            mixed = from_dense(x[:, :kept]) + from_sparse(x[:, kept:]) * mask
            x = F.relu(self._restrict(mixed, self.num_dense[i + 1], mask))
            outputs.append(x)
        y: Tensor = self.collect(torch.cat(outputs, dim=1))
        return y

    def _restrict(self, x: Tensor, kept: int, mask: Tensor) -> Tensor:
        return torch.cat([x[:, :kept], x[:, kept:] * mask], dim=1)


def _conv3(in_channels: int) -> nn.Module:
    if in_channels == 0:
        return _Nothing()
    return nn.Conv2d(in_channels, CHANNELS, 3, padding=1, bias=False)


class _Nothing(nn.Module):
    """A convolution without channels: it gives zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


class ChannelAttention(nn.Module):
    """Channel attention: weights from the average of each channel."""

    def __init__(self) -> None:
        super().__init__()
        squeezed = CHANNELS // 16
        self.conv_du = nn.Sequential(
            nn.Conv2d(CHANNELS, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, CHANNELS, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 64, H, W) to (N, 64, H, W)."""
        weights: Tensor = torch.sigmoid(self.conv_du(global_average(x)))
        return x * weights


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """SMSR with fresh weights; half of the channels of every layer are sparse."""
    check_option("smsr", option)
    return SMSR(scale, upsampler=upsampler)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise SMSR weights: the authors', to be sorted by channel mask, or this module's own."""
    if "body.0.body.ch_mask" in state:
        own = _own_state(state)
    elif "body.0.body.dense" in state:
        own = dict(state)
    else:
        return None
    dense = [own[f"body.{i}.body.dense"].tolist() for i in range(_count_modules(own))]

    def load(scale: int) -> nn.Module:
        with_sum = "upsampler.equal.conv.weight" in own
        network = SMSR(scale, dense, upsampler="sum" if with_sum else "default")
        network.load_state_dict(own)
        return network

    return Recognised("smsr", (upsampler_scale(own, CHANNELS),), load)


def _count_modules(state: Mapping[str, Tensor]) -> int:
    return sum(key.endswith(".body.collect.weight") for key in state)


def _own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' checkpoint as this module names it, channels sorted, for pictures in 0..1."""
    own: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(MEAN_LAYERS):
            continue
        if ".body.ch_mask" in key:
            own.update(_sorted_convolutions(state, key.removesuffix("ch_mask")))
        elif ".body.body." not in key and not key.endswith(".body.collect.weight"):
            name = key.replace(".spa_mask.", ".spa_mask.features.")
            own[name.replace("tail.0.", "upsampler.conv.")] = value
    white = trained_range(state)
    return unit_range_state(own, first="head.0.", last="upsampler.", white=white)


def _sorted_convolutions(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The masked convolutions of one module, every layer's dense channels moved to the front."""
    logits = state[f"{prefix}ch_mask"][0]  # (channels, layers, 2): needed everywhere, or sparse
    is_dense = logits[..., 0] > logits[..., 1]
    counts = is_dense.sum(dim=0)
    orders = [torch.argsort(~column, stable=True) for column in is_dense.T]
    weights = [state[f"{prefix}body.{i}.weight"][order] for i, order in enumerate(orders)]
    own = {f"{prefix}dense": counts, f"{prefix}first.weight": weights[0]}
    for i, weight in enumerate(weights[1:]):
        ordered = weight[:, orders[i]]
        own[f"{prefix}from_dense.{i}.weight"] = ordered[:, : int(counts[i])]
        own[f"{prefix}from_sparse.{i}.weight"] = ordered[:, int(counts[i]) :]
    collect = torch.split(state[f"{prefix}collect.weight"], CHANNELS, dim=1)
    columns = [part[:, order] for part, order in zip(collect, orders, strict=True)]
    own[f"{prefix}collect.weight"] = torch.cat(columns, dim=1)
    return {k: v.contiguous() for k, v in own.items() if v.numel()}
