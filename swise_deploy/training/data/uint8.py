"""8-bit pictures and the floats that networks take, on the device where they are."""

import torch
from torch import Tensor


def pictures_from_levels(levels: Tensor, *, channels_last: bool = False) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [0, 1]."""
    nchw = (levels.to(torch.float32) / 255).permute(0, 3, 1, 2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return nchw.contiguous(memory_format=layout)


def levels_from_pictures(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, H, W, 3) uint8: clamped, rounded to nearest."""
    levels = (pictures.float().clamp(0, 1) * 255).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1)
