"""Samples of pictures: 8 bits, 16 bits or floating point, over their whole range."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.uint8 | np.uint16 | np.float32]
"""uint8 or uint16 over their whole range, or float32 in [0, 1]."""


def peak_of(dtype: np.dtype[np.generic]) -> int:
    """The value of white in `Samples`: 255, 65535, or 1 for floating point."""
    return {"u1": 255, "u2": 65_535}.get(dtype.str[1:], 1)


def stretched(
    values: NDArray[np.generic], bits: int, *, depth: int | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Values of 1 to 16 bits over the whole range of `depth` bits, 8 or 16; rounded.

    None is 8 for up to 8 bits, else 16.
    """
    dtype = np.dtype(np.uint8 if (depth or bits) <= 8 else np.uint16)
    if bits == 8 * dtype.itemsize:
        return np.asarray(values, dtype)
    peak, white = (1 << bits) - 1, peak_of(dtype)
    wide = np.asarray(values, np.uint32)
    return ((wide * white + peak // 2) // peak).astype(dtype)


def uint8_from_samples(samples: Samples) -> NDArray[np.uint8]:
    """Samples of any depth with 8 bits, rounded half up."""
    if samples.dtype == np.uint8:
        return np.asarray(samples, np.uint8)
    if samples.dtype == np.uint16:
        wide = samples.astype(np.uint32)
        return np.asarray((wide * 2 + 257) // 514, np.uint8)  # 65535 becomes 255
    return np.asarray(np.floor(samples * np.float32(255) + np.float32(0.5)), np.uint8)
