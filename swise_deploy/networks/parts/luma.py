"""Networks that upscale luma only, made to take and give RGB pictures like the others."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.evaluation.metrics import LUMA_OFFSET, LUMA_WEIGHTS
from swise_deploy.networks.parts.matlab_bicubic import CubicUpscale

# What one unit of studio-swing luma adds to R, G and B alike (ITU-R BT.601; MATLAB ycbcr2rgb).
RGB_PER_LUMA = 255 / 219


class LumaNetwork(nn.Module):
    """A network of luma, wrapped: RGB in, RGB out, Cb and Cr enlarged by MATLAB's bicubic.

    Adding the same amount to R, G and B changes luma and leaves Cb and Cr alone. So the picture is
    enlarged in RGB, and the difference between the network's luma and the enlarged one is added; no
    conversion to YCbCr and back is needed.

    Args:
        network: Luma to luma, both (N, 1, ..., ...), 16/255 to 235/255.
        scale: 2, 3 or 4.
        interpolated: Whether `network` wants luma that is bicubically enlarged to the target size
            already (SRCNN, VDSR, DRCN), or luma at low resolution (FSRCNN).
    """

    weights: Tensor

    def __init__(self, network: nn.Module, scale: int, *, interpolated: bool) -> None:
        super().__init__()
        self.scale = scale
        self.interpolated = interpolated
        self.network = network
        self.cubic = CubicUpscale(scale)
        weights = torch.from_numpy(LUMA_WEIGHTS).float().view(1, 3, 1, 1)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of pictures.

        Args:
            lr: (N, 3, H, W), float, RGB in [0, 1], any H, W >= 1.

        Returns:
            (N, 3, H*scale, W*scale), float, RGB, not clamped to [0, 1].
        """
        enlarged = self.cubic(lr)
        enlarged_luma = self.luma(enlarged)
        sr_luma = self.network(enlarged_luma if self.interpolated else self.luma(lr))
        sr: Tensor = enlarged + (sr_luma - enlarged_luma) * RGB_PER_LUMA
        return sr

    def luma(self, rgb: Tensor) -> Tensor:
        """BT.601 luma as MATLAB's rgb2ycbcr: (N, 3, H, W) in [0, 1] to (N, 1, H, W)."""
        return F.conv2d(rgb, self.weights) + LUMA_OFFSET / 255
