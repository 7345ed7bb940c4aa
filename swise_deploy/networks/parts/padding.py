"""Pictures extended to sizes that a network can take; the arithmetic stays dynamic in ONNX."""

import torch
from torch import Tensor


def mirror_to_multiple(x: Tensor, multiple: int, *, minimum: int = 1) -> Tensor:
    """Extend (N, C, H, W) at the bottom and right, mirrored; any H, W >= 1 works.

    Equal to reflection padding where that is defined (padding below the size).

    Args:
        x: Pictures.
        multiple: What height and width become multiples of.
        minimum: What they are at least, rounded up to a multiple.
    """
    least = -(-minimum // multiple)
    for axis in (2, 3):
        size = x.shape[axis]
        steps = (size + multiple - 1) // multiple
        # The larger of the two, without a branch or a call that tracing would make a constant.
        padded = (steps + least + abs(steps - least)) // 2 * multiple
        # Mirrored without repeating the edge; the last term avoids a period of 0 for a single line.
        period = 2 * size - 2 + 1 // size
        places = torch.arange(padded, device=x.device) % period
        x = x.index_select(axis, torch.minimum(places, 2 * size - 2 - places))
    return x
