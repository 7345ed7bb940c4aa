"""Bicubic resizing by a fixed ratio as plain convolutions, exactly as torch computes it.

Resizing by num/den with `align_corners=False` is periodic: every den input samples give num output
samples with the same weights. So it equals a strided depthwise convolution over an edge-padded
picture, with one output channel per phase, followed by PixelShuffle. Convolutions are fast in every
runtime; a cubic `Resize` is slow in ONNX Runtime and poorly supported by TensorRT.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# torch's interpolate(mode="bicubic"): Keys' kernel with a = -0.75.
CUBIC_A = -0.75


def cubic_kernel(distance: float) -> float:
    """Keys' cubic convolution kernel at a distance in samples."""
    x = abs(distance)
    if x <= 1:
        return ((CUBIC_A + 2) * x - (CUBIC_A + 3)) * x * x + 1
    if x < 2:
        return ((CUBIC_A * x - 5 * CUBIC_A) * x + 8 * CUBIC_A) * x - 4 * CUBIC_A
    return 0.0


def phase_weights(num: int, den: int) -> tuple[Tensor, int]:
    """Weights of one period along one axis.

    Returns:
        (num, taps) float64 weights, and the offset of the first tap from the period's first sample
        (<= 0).
    """
    centres = [(phase + 0.5) * den / num - 0.5 for phase in range(num)]
    first = min(math.floor(c) for c in centres) - 1
    last = max(math.floor(c) for c in centres) + 2
    weights = torch.tensor(
        [[cubic_kernel(c - tap) for tap in range(first, last + 1)] for c in centres],
        dtype=torch.float64,
    )
    return weights, first


class PeriodicResize(nn.Module):
    """Bicubic resize by num/den along both axes, with the phases in the channels.

    Maps (N, C, H, W), with H and W multiples of den, to (N, C*num*num, H/den, W/den). Followed by
    PixelShuffle(num) it equals torch's `interpolate`: (N, C, H*num/den, W*num/den).
    """

    kernel: Tensor

    def __init__(self, channels: int, num: int, den: int) -> None:
        super().__init__()
        weights, first = phase_weights(num, den)
        taps = weights.shape[1]
        kernel = torch.einsum("ik,jl->ijkl", weights, weights).reshape(num * num, 1, taps, taps)
        self.channels = channels
        self.stride = den
        self.before = -first
        self.after = taps + first - den
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1).float())

    def forward(self, x: Tensor) -> Tensor:
        """Resize; see the class."""
        padding = (self.before, self.after, self.before, self.after)
        padded = F.pad(x, padding, mode="replicate")
        return F.conv2d(padded, self.kernel, stride=self.stride, groups=self.channels)
