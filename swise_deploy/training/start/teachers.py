"""Networks that a run learns from, and the pictures that they make."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.checkpoints.load import open_at_least
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.pictures.files import RgbImage
from swise_deploy.storage.files import sha256_of
from swise_deploy.training.data.uint8 import float_from_uint8, uint8_from_float

WINDOW = 128
"""Side of the windows that a teacher upscales, in LR pixels.

Networks that average over their whole input were trained on smaller crops, and are better on
windows than on whole pictures; the cost of attention grows with the square of a window's area.
"""

MARGIN = 16
"""LR pixels at the edges of a window that are dropped, except at the picture's own edges."""

WINDOWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network to learn from, in eval mode.

    Attributes:
        module: (N, 3, H, W) RGB in [0, 1] to (N, 3, H*scale, W*scale) at the run's scale.
        title: Name for messages.
    """

    module: nn.Module
    title: str


def open_teacher(file: Path, scale: int, *, ensemble: bool = False) -> Teacher:
    """Load a teacher for a scale: weights for it, or for a larger one, whose pictures are shrunk.

    A network for x4 upscales the LR of an x3 run to a picture of 4/3 the wanted size. Shrunk by
    bicubic interpolation it is a picture at x3, often a better one than a weaker x3 network's.

    Args:
        file: Weights of a network of the registry.
        scale: Of the run.
        ensemble: Take the mean over the 8 orientations of a picture.

    Raises:
        InputError: A file that cannot be used, or weights for smaller scales only.
    """
    network = open_at_least(scale, file)
    module = InAllOrientations(network.module) if ensemble else network.module
    title = NETWORKS[network.name].title
    if network.scale == scale:
        return Teacher(module, title)
    return Teacher(Shrunk(module, scale), f"{title} (x{network.scale}, shrunk)")


class InAllOrientations(nn.Module):
    """The mean of a network's outputs for a picture in its 8 orientations, each turned back.

    The geometric self-ensemble of Lim et al., 2017 (EDSR+).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H*scale, W*scale)."""
        outputs = [
            self._output(lr, turns, mirrored=mirrored)
            for turns in range(4)
            for mirrored in (False, True)
        ]
        return torch.stack(outputs).mean(dim=0)

    def _output(self, lr: Tensor, turns: int, *, mirrored: bool) -> Tensor:
        turned = torch.rot90(lr, turns, (2, 3))
        sr = self.network(turned.flip(3)).flip(3) if mirrored else self.network(turned)
        return torch.rot90(sr, -turns, (2, 3))


class Shrunk(nn.Module):
    """A network for a larger scale, its output shrunk to `scale`."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H*scale, W*scale)."""
        size = [side * self.scale for side in lr.shape[2:]]
        sr = self.network(lr).float()
        return F.interpolate(sr, size, mode="bicubic", antialias=True, align_corners=False)


class MeanOfNetworks(nn.Module):
    """The mean of several networks' outputs, RGB in [0, 1]."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, H*scale, W*scale)."""
        return torch.stack([network(lr) for network in self.networks]).mean(dim=0)


def key_of_teachers(files: Sequence[Path], *, ensemble: bool = False) -> str:
    """The cache key of teachers' outputs: the files' bytes in their order, and the ensemble."""
    digest = hashlib.sha256("\n".join(map(sha256_of, files)).encode()).hexdigest()[:16]
    return f"{digest}_x8" if ensemble else digest


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
    windows = np.stack([lr[top : top + WINDOW, left : left + WINDOW] for top, left in corners])
    outputs: list[RgbImage] = []
    with torch.inference_mode():
        for batch in torch.split(torch.from_numpy(windows), WINDOWS_AT_ONCE):
            outputs += list(
                uint8_from_float(network(float_from_uint8(batch.to(device)))).cpu().numpy()
            )
    sr = np.empty((height * scale, width * scale, 3), np.uint8)
    # The far edges of a window are overwritten by the windows after it.
    for (top, left), window in zip(corners, outputs, strict=True):
        above, before = (MARGIN * scale if start else 0 for start in (top, left))
        kept = window[above:, before:]
        row, column = top * scale + above, left * scale + before
        sr[row : row + kept.shape[0], column : column + kept.shape[1]] = kept
    return sr


def _window_starts(length: int) -> list[int]:
    """Starts of windows: each is whole, and their kept parts cover the length."""
    last = max(0, length - WINDOW)
    return [*range(0, last, WINDOW - 2 * MARGIN), last]
