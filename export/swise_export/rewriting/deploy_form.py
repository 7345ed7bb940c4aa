"""The deploy form of a network: the same function, in operations that are fast in runtimes.

Every rewrite is exact up to rounding (docs/adr/0001-deploy-form.md has the measurements):

- The affine part of a layer norm moves into the next 1x1 convolution, beta and gamma into the
  previous one.
- A chunk-and-multiply gate becomes two convolutions and a product, without slices.
- A PReLU with one slope becomes a LeakyReLU.
- Bicubic interpolation by a fixed ratio becomes strided depthwise convolutions
  (swise_export.rewriting.periodic_resize).
- In the scale-wise upsampling module each 3x3 tail c->3 becomes a 1x1 convolution c->27, which
  commutes with the interpolation, and one fixed shift-and-add for all branches: 27 channels are
  resized, not c. In the reducing branch PixelUnshuffle is merged with the 1x1 convolution.
"""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.scale_wise import (
    NUM_TAPS,
    ScaleWiseUpsample,
    shift_add_weight,
    tap_weight,
)
from swise_deploy.networks.swisenet import (
    BlockGroup,
    ChannelLayerNorm,
    ChunkGatedBlock,
    DenseFusion,
    SwiseNet,
)
from swise_export.rewriting.periodic_resize import PeriodicResize


def deploy_form(network: nn.Module) -> nn.Module:
    """Rewrite a copy of a trained network for inference.

    Args:
        network: Any network; parts with a faster exact form are replaced.

    Returns:
        A network in eval mode with the same function, not for training.
    """
    with torch.no_grad():
        return _rewritten(copy.deepcopy(network).eval()).requires_grad_(requires_grad=False)


def _rewritten(module: nn.Module) -> nn.Module:
    rewrite = _REWRITES.get(type(module))
    if rewrite is not None:
        return rewrite(module)
    for name, child in module.named_children():
        setattr(module, name, _rewritten(child))
    return module


class DeploySwiseNet(nn.Module):
    """SwiseNet whose parts were rewritten; (N, 3, H, W) to (N, 3, H*scale, W*scale)."""

    mean: Tensor

    def __init__(self, network: SwiseNet) -> None:
        super().__init__()
        self.register_buffer("mean", network.mean)
        self.head = network.head
        self.body = _rewritten(network.body)
        self.fuse = network.fuse
        self.average = nn.AdaptiveAvgPool2d(1)
        self.global_skip = network.global_skip
        self.fuse_scale = network.fuse_scale
        self.skip_scale = network.skip_scale
        self.upsampler = _rewritten(network.upsampler)
        self.picture = PictureSum(network.scale)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale; see the class."""
        features = self.head(lr - self.mean)
        fused = F.relu(self.fuse(torch.cat(self.body(features), dim=1)))
        skip = F.relu(self.global_skip(self.average(features)))
        y = fused * self.fuse_scale + skip * self.skip_scale
        sr: Tensor = self.picture(self.upsampler(y), lr)
        return sr


class PictureSum(nn.Module):
    """Adds the bicubic picture to the network's detail.

    Interpolation preserves constants, so SwiseNet's subtraction and addition of the mean cancel
    out.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.resize = PeriodicResize(3, scale, 1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, detail: Tensor, lr: Tensor) -> Tensor:
        """Sum (N, 3, H*scale, W*scale) and the upscaled (N, 3, H, W)."""
        sr: Tensor = detail + self.shuffle(self.resize(lr))
        return sr


class DeployChunkGatedBlock(nn.Module):
    """A chunk-gated block without slices, affine norms and scales."""

    def __init__(self, block: ChunkGatedBlock) -> None:
        super().__init__()
        self.norm1 = PlainChannelNorm()
        self.conv1a, self.conv1b = _halves(_norm_folded(block.norm1, block.conv1))
        self.dwconva, self.dwconvb = _halves(block.dwconv)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.attention = block.attention
        self.conv3 = _output_scaled(block.conv3, block.beta)
        self.norm2 = PlainChannelNorm()
        self.conv4a, self.conv4b = _halves(_norm_folded(block.norm2, block.conv4))
        self.conv5 = _output_scaled(block.conv5, block.gamma)
        self.act = nn.LeakyReLU(float(block.prelu.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c, H, W) to (N, c, H, W)."""
        normed = self.norm1(x)
        gated = self.dwconva(self.conv1a(normed)) * self.dwconvb(self.conv1b(normed))
        a = self.act(gated)
        a = a * self.attention(self.average(a))
        x = x + self.conv3(a)
        normed = self.norm2(x)
        b = self.act(self.conv4a(normed) * self.conv4b(normed))
        y: Tensor = x + self.conv5(b)
        return y


class PlainChannelNorm(nn.Module):
    """Layer normalisation over channels without an affine part, in (N, C, H, W) layout."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over C."""
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred * centred).mean(dim=1, keepdim=True)
        return centred / torch.sqrt(variance + ChannelLayerNorm.eps)


class DeployDenseFusion(nn.Module):
    """Dense fusion that concatenates all outputs at once, not one after the other."""

    def __init__(self, fusion: DenseFusion) -> None:
        super().__init__()
        self.units = nn.ModuleList(_rewritten(unit) for unit in fusion.units)
        self.reductions = fusion.reductions
        self.only_last = type(fusion) is not DenseFusion

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return the last output of a group, or all outputs of the body, as the original does."""
        gathered, outputs, fused = [x], [], x
        for unit, reduction in zip(self.units, self.reductions, strict=True):
            gathered.append(unit(fused))
            fused = F.relu(reduction(torch.cat(gathered, dim=1)))
            outputs.append(fused)
        return outputs[-1] if self.only_last else outputs


class DeployScaleWiseUpsample(nn.Module):
    """The SUM with interpolation on 27 channels and one shift-and-add for all branches."""

    def __init__(self, upsampler: ScaleWiseUpsample) -> None:
        super().__init__()
        branches = dict(upsampler.named_children())
        tails = {name: cast("nn.Conv2d", branch.tail) for name, branch in branches.items()}
        convs = {name: cast("nn.Conv2d", branch.conv) for name, branch in branches.items()}
        scale = upsampler.scale
        out_channels = next(iter(tails.values())).out_channels
        planes = NUM_TAPS * out_channels
        self.scale = scale
        self.magnify = self.equal = self.reduce = None
        if "magnify" in branches:
            self.magnify = nn.Sequential(
                convs["magnify"],
                nn.ReLU(),
                nn.PixelShuffle(scale + 1),
                _taps_from_tail(tails["magnify"]),
                PeriodicResize(planes, scale, scale + 1),
                nn.PixelShuffle(scale),
            )
        if "equal" in branches:
            self.equal = nn.Sequential(
                convs["equal"], nn.ReLU(), nn.PixelShuffle(scale), _taps_from_tail(tails["equal"])
            )
        if "reduce" in branches:
            self.reduce = nn.Sequential(
                convs["reduce"],
                nn.ReLU(),
                # One more row and column: for even sizes the next strided convolution drops them,
                # for odd sizes they are the padding of the original module.
                nn.ReplicationPad2d((0, 1, 0, 1)),
                _unshuffled(_taps_from_tail(tails["reduce"])),
                PeriodicResize(planes, 2 * scale, 1),
                nn.PixelShuffle(2 * scale),
            )
        self.shift_add = _shift_add(list(tails.values()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c, H, W) to (N, out, H*scale, W*scale)."""
        parts = [branch(x) for branch in (self.magnify, self.equal) if branch is not None]
        if self.reduce is not None:
            height, width = x.shape[2:]
            parts.append(self.reduce(x)[:, :, : height * self.scale, : width * self.scale])
        y: Tensor = self.shift_add(sum(parts[1:], start=parts[0]))
        return y


def _norm_folded(norm: ChannelLayerNorm, conv: nn.Conv2d) -> nn.Conv2d:
    """Merge a norm's affine part into the 1x1 convolution that reads it."""
    bias = _bias(conv) + conv.weight[:, :, 0, 0] @ norm.bias
    return _conv(conv.weight * norm.weight.view(1, -1, 1, 1), bias)


def _output_scaled(conv: nn.Conv2d, scales: Tensor) -> nn.Conv2d:
    return _conv(conv.weight * scales.view(-1, 1, 1, 1), _bias(conv) * scales.flatten())


def _halves(conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Split a convolution into those of the first and the second half of its output channels."""
    first, second = (
        _conv(weight, bias, padding=cast("int", conv.padding[0]), depthwise=conv.groups > 1)
        for weight, bias in zip(conv.weight.chunk(2), _bias(conv).chunk(2), strict=True)
    )
    return first, second


def _taps_from_tail(tail: nn.Conv2d) -> nn.Conv2d:
    """Convert a 3x3 tail to a 1x1 convolution whose channel (row, column, out) is one tap."""
    return _conv(tap_weight(tail.weight), None)


def _unshuffled(conv: nn.Conv2d) -> nn.Conv2d:
    """Merge PixelUnshuffle(2) and a 1x1 convolution into a 2x2 convolution of stride 2."""
    weight = conv.weight.reshape(conv.out_channels, conv.in_channels // 4, 2, 2)
    return _conv(weight, None, stride=2)


def _shift_add(tails: list[nn.Conv2d]) -> nn.Conv2d:
    """The 3x3 convolution of zeros and ones that shifts and adds the taps of `_taps_from_tail`."""
    bias = torch.stack([_bias(tail) for tail in tails]).sum(dim=0)
    return _conv(shift_add_weight(tails[0].out_channels), bias, padding=1)


def _conv(
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    padding: int = 0,
    depthwise: bool = False,
) -> nn.Conv2d:
    out_channels, per_group, kernel = weight.shape[:3]
    groups = out_channels if depthwise else 1
    conv = nn.Conv2d(
        per_group * groups,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=bias is not None,
    )
    conv.weight = nn.Parameter(weight.clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.clone())
    return conv


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias


_REWRITES: dict[type[nn.Module], Callable[[nn.Module], nn.Module]] = {
    SwiseNet: lambda module: DeploySwiseNet(cast("SwiseNet", module)),
    DenseFusion: lambda module: DeployDenseFusion(cast("DenseFusion", module)),
    BlockGroup: lambda module: DeployDenseFusion(cast("BlockGroup", module)),
    ChunkGatedBlock: lambda module: DeployChunkGatedBlock(cast("ChunkGatedBlock", module)),
    ScaleWiseUpsample: lambda module: DeployScaleWiseUpsample(cast("ScaleWiseUpsample", module)),
}
