"""Bicubic interpolation, the baseline of every table: MATLAB's, as a network without weights.

Keys, "Cubic convolution interpolation for digital image processing", 1981.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from swise_deploy.networks.parts.matlab_bicubic import CubicUpscale
from swise_deploy.networks.registry import Recognised, Upsampler, check_option, refuse_sum


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """Bicubic enlargement of RGB pictures; there is nothing to load."""
    check_option("bicubic", option)
    refuse_sum("bicubic", upsampler)
    return CubicUpscale(scale)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Bicubic has no weights, so no file is taken for it."""
    del state
    return None
