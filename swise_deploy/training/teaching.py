"""Networks that a run learns from, and the pictures that they make."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from swise_deploy.files import sha256_of
from swise_deploy.images import RgbImage
from swise_deploy.runner import float_from_image, image_from_float

WINDOW = 128
"""Side of what a teacher sees at once, in LR pixels.

Networks that average over what they see were trained on less than this, and are better in it than
on whole pictures; what attention costs grows with the square of a window's area.
"""

MARGIN = 16
"""LR pixels at the edges of a window that are not kept, but where the picture ends."""

WINDOWS_AT_ONCE = 8


class MeanOfNetworks(nn.Module):
    """The mean of what networks make of pictures, RGB in [0, 1]."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H*scale, W*scale)."""
        return torch.stack([network(lr) for network in self.networks]).mean(dim=0)


def key_of_files(files: Sequence[Path]) -> str:
    """Hash of the bytes of files, in their order: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(map(sha256_of, files)).encode()).hexdigest()[:16]


def upscale_in_windows(
    network: nn.Module, lr: RgbImage, scale: int, *, device: torch.device
) -> RgbImage:
    """Upscale a picture window by window, in fp32.

    Args:
        network: In eval mode, on `device`.
        lr: (H, W, 3), uint8.
        scale: Output size over input size.
        device: Where the network is.

    Returns:
        (H*scale, W*scale, 3), uint8.
    """
    height, width = lr.shape[:2]
    tops, lefts = _window_starts(height), _window_starts(width)
    corners = [(top, left) for top in tops for left in lefts]
    windows = np.concatenate(
        [float_from_image(lr[top : top + WINDOW, left : left + WINDOW]) for top, left in corners]
    )
    made = []
    with torch.inference_mode():
        for batch in torch.split(torch.from_numpy(windows), WINDOWS_AT_ONCE):
            made += list(network(batch.to(device)).float().cpu().numpy())
    sr = np.empty((height * scale, width * scale, 3), np.uint8)
    # What a window saw at its far edges is overwritten by those after it.
    for (top, left), window in zip(corners, made, strict=True):
        above, before = (MARGIN * scale if start else 0 for start in (top, left))
        kept = image_from_float(window[None])[above:, before:]
        row, column = top * scale + above, left * scale + before
        sr[row : row + kept.shape[0], column : column + kept.shape[1]] = kept
    return sr


def _window_starts(length: int) -> list[int]:
    """Where windows begin: each is whole, and what is kept of them covers the length."""
    last = max(0, length - WINDOW)
    return [*range(0, last, WINDOW - 2 * MARGIN), last]
