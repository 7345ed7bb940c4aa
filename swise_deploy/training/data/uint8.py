"""8-bit pictures and the floats that networks take, on the device where they are."""

import torch
from torch import Tensor


def float_from_uint8(pixels: Tensor, *, channels_last: bool = False) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [0, 1]."""
    nchw = (pixels.to(torch.float32) / 255).permute(0, 3, 1, 2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return nchw.contiguous(memory_format=layout)


def uint8_from_float(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, H, W, 3) uint8: clamped, rounded to nearest."""
    pixels = (pictures.float().clamp(0, 1) * 255).round()
    return pixels.to(torch.uint8).permute(0, 2, 3, 1)
