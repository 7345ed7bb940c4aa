"""Bicubic resizing as torch has it (a = -0.75, no antialiasing), also where it is trained."""

import torch
from torch import Tensor
from torch.nn import functional as F


def bicubic_to(x: Tensor, height: int, width: int, *, training: bool = False) -> Tensor:
    """Resize (N, C, H, W) to (N, C, height, width).

    Args:
        x: Features or pictures.
        height: Of the result.
        width: Of the result.
        training: Whether the network is in training mode; without gradients nothing changes. The
            gradient of torch's own resizing is slow where many pixels come from one; on a GPU it is
            summed with atomic additions and, under bf16, rounded at each. Matrix products do the
            same without, and on a CPU an enlargement to four times the size in a seventh of the
            time.
    """
    enlarging = height * width > x.shape[2] * x.shape[3]
    if training and x.requires_grad and torch.is_grad_enabled() and (x.is_cuda or enlarging):
        return matrix_bicubic_to(x, height, width)
    return F.interpolate(x, size=(height, width), mode="bicubic", align_corners=False)


def bicubic_resize(x: Tensor, scale: int) -> Tensor:
    """Upscale (N, C, H, W) by an integer, bicubic as in torch: a = -0.75, no antialiasing."""
    return bicubic_to(x, x.shape[2] * scale, x.shape[3] * scale)


def matrix_bicubic_to(x: Tensor, height: int, width: int) -> Tensor:
    """The same by two matrix products, (height, H) from the left and (width, W) from the right.

    They are computed in float32 (or wider) even under autocast: coefficients rounded to bf16 would
    train a network for another resizing than it is deployed with.
    """
    num, channels, in_height, in_width = x.shape
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        rows = _coefficients(in_height, height, dtype, x.device)
        columns = _coefficients(in_width, width, dtype, x.device)
        # (N, H, W*C), then (N*height, W, C): in channels_last order neither needs a copy.
        pixels = x.to(dtype).permute(0, 2, 3, 1).reshape(num, in_height, in_width * channels)
        tall = (rows @ pixels).reshape(num * height, in_width, channels)
        resized = (columns @ tall).reshape(num, height, width, channels)
    return resized.permute(0, 3, 1, 2).to(x.dtype)


def _coefficients(length: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Row t: the weights of `length` pixels in pixel t of `target`, from torch's own resizing.

    A picture of one column and `length` channels, in each of which one other pixel is bright.
    """
    with torch.no_grad():
        bright = torch.eye(length, dtype=dtype, device=device)[None, :, :, None]
        response = F.interpolate(bright, size=(target, 1), mode="bicubic", align_corners=False)
    return response[0, :, :, 0].T.contiguous()
