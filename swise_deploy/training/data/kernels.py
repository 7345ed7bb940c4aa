"""Blur kernels: Gaussians in general, and ideal low-pass filters.

Liu et al., "Estimating Generalized Gaussian Blur Kernels for Out-of-Focus Image Deblurring", 2020,
and Wang et al., "Real-ESRGAN", ICCV Workshops 2021.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Kernel = NDArray[np.float64]
"""(side, side), float64, summing to 1."""

Shape = Literal["generalised", "plateau"]


def gaussian_kernel(
    side: int,
    sigmas: tuple[float, float],
    angle: float,
    *,
    beta: float = 1.0,
    shape: Shape = "generalised",
) -> Kernel:
    """A Gaussian with two deviations.

    Args:
        side: Odd, in pixels.
        sigmas: Deviations along the two axes, in pixels.
        angle: Of the first axis, in radians.
        beta: exp(-r^(2 beta) / 2) for "generalised", 1 / (1 + r^(2 beta)) for "plateau"; 1 with
            "generalised" is the Gaussian.
        shape: The formula.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    y, x = _grid(side)
    along, across = (x * cosine + y * sine) / sigmas[0], (y * cosine - x * sine) / sigmas[1]
    power = (along**2 + across**2) ** beta
    kernel = np.exp(-0.5 * power) if shape == "generalised" else 1 / (1 + power)
    return np.asarray(kernel / kernel.sum(), np.float64)


def sinc_kernel(side: int, cutoff: float) -> Kernel:
    """The circular ideal low-pass filter, w J1(w r) / (2 pi r).

    Args:
        side: Odd, in pixels.
        cutoff: w, in radians a pixel; pi keeps nearly all.
    """
    radius = np.hypot(*_grid(side))
    middle = radius == 0
    safe = np.where(middle, 1.0, radius)
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * safe)).numpy()
    kernel = np.where(middle, cutoff**2 / (4 * np.pi), cutoff * bessel / (2 * np.pi * safe))
    return np.asarray(kernel / kernel.sum(), np.float64)


def _grid(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    positions = np.arange(side, dtype=np.float64) - side // 2
    return positions[:, None], positions[None, :]


def convolve(image: NDArray[np.float32], kernel: Kernel) -> NDArray[np.float32]:
    """Convolve (H, W, C) with a kernel, mirrored at the edges; by FFT, whatever the threads."""
    margin = len(kernel) // 2
    widths = ((margin, margin), (margin, margin), (0, 0))
    padded = np.pad(image.astype(np.float64), widths, mode="symmetric")
    height, width = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, (height, width))[..., None]
    blurred = np.fft.irfft2(spectrum, (height, width), axes=(0, 1))
    return blurred[2 * margin :, 2 * margin :].astype(np.float32)
