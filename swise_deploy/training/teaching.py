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

BLOCK = 256
"""Side of what is upscaled at once, in LR pixels: what some teachers keep grows with its square."""

MARGIN = 16
"""LR pixels that a block sees on each side of what is kept of it."""


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


def upscale_in_blocks(
    network: nn.Module, lr: RgbImage, scale: int, *, device: torch.device
) -> RgbImage:
    """Upscale a picture block by block, in fp32.

    Args:
        network: In eval mode, on `device`.
        lr: (H, W, 3), uint8.
        scale: Output size over input size.
        device: Where the network is.

    Returns:
        (H*scale, W*scale, 3), uint8. Blocks see MARGIN pixels of each other; a network that sees
        further gives them slightly other edges than the whole picture would have.
    """
    height, width = lr.shape[:2]
    sr = np.empty((height * scale, width * scale, 3), np.uint8)
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            above, before = min(top, MARGIN), min(left, MARGIN)
            seen = lr[top - above : top + BLOCK + MARGIN, left - before : left + BLOCK + MARGIN]
            with torch.inference_mode():
                block = network(torch.from_numpy(float_from_image(seen)).to(device))
            kept = sr[top * scale : (top + BLOCK) * scale, left * scale : (left + BLOCK) * scale]
            rows, columns = kept.shape[:2]
            made = image_from_float(block.float().cpu().numpy())
            kept[:] = made[above * scale :, before * scale :][:rows, :columns]
    return sr
