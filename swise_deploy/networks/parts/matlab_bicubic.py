"""MATLAB's bicubic enlargement as one convolution, so that it lives inside networks and graphs."""

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.pictures.imresize import imresize

RADIUS = 2
"""Low-resolution pixels on each side that an output pixel depends on."""


class CubicUpscale(nn.Module):
    """Bicubic enlargement (a = -0.5, symmetric edges) by an integer, as `imresize` does it.

    An output pixel of one phase is always the same weighted sum of its neighbourhood, so enlarging
    is a convolution with scale^2 kernels followed by a pixel shuffle. There is nothing to train.
    """

    kernel: Tensor

    def __init__(self, scale: int, channels: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        kernel = phase_kernels(scale).repeat(channels, 1, 1, 1)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        """Map (N, channels, H, W), any H, W >= 1, to (N, channels, H*scale, W*scale)."""
        phases = F.conv2d(pad_symmetric(lr), self.kernel, groups=self.channels)
        return F.pixel_shuffle(phases, self.scale)


def phase_kernels(scale: int) -> Tensor:
    """The kernel of every phase of an output pixel: (scale^2, 1, 5, 5), float32, each summing to 1.

    They are read off from the enlargement of a single bright pixel, so that `imresize` stays the
    only place where the cubic formula is written.
    """
    impulse = np.zeros((4 * RADIUS + 1, 1))
    centre = 2 * RADIUS
    impulse[centre] = 1.0
    response = imresize(impulse, Fraction(scale))[:, 0].astype(np.float64)
    # Tap t of phase p weighs the pixel t places to the right of the output's own pixel.
    taps = np.arange(-RADIUS, RADIUS + 1)
    weights = response[scale * (centre - taps)[None, :] + np.arange(scale)[:, None]]
    planes = np.einsum("pi,qj->pqij", weights, weights)
    return torch.from_numpy(planes.reshape(scale**2, 1, 2 * RADIUS + 1, 2 * RADIUS + 1)).float()


def pad_symmetric(x: Tensor) -> Tensor:
    """Pad (N, C, H, W) by 2 on every side, mirrored with the edge repeated, as MATLAB does.

    Each mirrored line is taken from the tensor that already has its edge repeated: there it exists
    for H = 1 and W = 1 too.
    """
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = torch.cat([x[:, :, 2:3], x, x[:, :, -3:-2]], dim=2)
    return torch.cat([x[..., 2:3], x, x[..., -3:-2]], dim=3)
