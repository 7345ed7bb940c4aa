"""Losses: distances of pictures (N, C, H, W) in [0, 1], as scalars.

Perceptual and adversarial losses are left out: no kept package has them whole, with their networks'
weights under a licence that can be passed on.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from swise_deploy.training.config import Loss

CHARBONNIER_EPS = 1e-3
"""Lai et al., "Deep Laplacian Pyramid Networks", CVPR 2017: below it the loss is a parabola."""

LEAST_MSE = 1e-4
"""Added to a crop's error in `minus_psnr`: 40 dB. Without it flat crops are all that counts."""


def charbonnier(sr: Tensor, hr: Tensor) -> Tensor:
    """The mean of sqrt(d^2 + eps^2): L1 with a gradient that vanishes smoothly at 0."""
    return ((sr - hr).square() + CHARBONNIER_EPS**2).sqrt().mean()


def minus_psnr(sr: Tensor, hr: Tensor) -> Tensor:
    """Minus the mean PSNR in dB, levelled off above 40 dB."""
    error = (sr - hr).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(error + LEAST_MSE).mean()


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "charbonnier": charbonnier,
    "mse": F.mse_loss,
    "psnr": minus_psnr,
}
