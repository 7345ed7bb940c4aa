"""sRGB from CIE L*a*b* and from CMYK without a profile."""

import numpy as np
from numpy.typing import NDArray

D50 = (0.34567, 0.35850)
"""Chromaticity of the white of L*a*b* in ICC profiles and Photoshop (ICC.1:2022, 6.3.4.3)."""

_D65_XYZ = np.array([0.95047, 1.0, 1.08883])
# CIE 15:2004, 8.2.1: where the cube root begins.
_EPSILON, _KAPPA = 216 / 24_389, 24_389 / 27
# Bradford's cone responses, as ICC.1:2022, annex E, has them.
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
# IEC 61966-2-1: linear sRGB from XYZ under D65.
_SRGB_FROM_XYZ = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)
_PIXELS_AT_ONCE = 1 << 18


def srgb_from_lab(
    lab: NDArray[np.unsignedinteger],
    *,
    is_signed: bool,
    white: tuple[float, float] = D50,
) -> NDArray[np.unsignedinteger]:
    """Convert L*a*b* as TIFF stores it; colours that sRGB does not have are clipped.

    Args:
        lab: (H, W, 3), uint8 or uint16; L* from 0 to 100 over the whole range, a* and b* with 1 or
            1/256 a step.
        is_signed: True for a* and b* in two's complement (TIFF 6.0, section 23), False for an
            offset of half the range (ICC L*a*b*).
        white: Chromaticity of the white, x and y.

    Returns:
        (H, W, 3), dtype as given.
    """
    peak = np.iinfo(lab.dtype).max
    half = peak // 2 + 1
    step = half / 128
    offset = 0 if is_signed else half
    signed = np.dtype(f"i{lab.itemsize}")
    x, y = white
    white_xyz = np.array([x / y, 1.0, (1 - x - y) / y])
    gains = (_BRADFORD @ _D65_XYZ) / (_BRADFORD @ white_xyz)
    rgb_from_xyz = _SRGB_FROM_XYZ @ np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD
    srgb = np.empty_like(lab)
    num_rows = max(1, _PIXELS_AT_ONCE // lab.shape[1])
    for top in range(0, lab.shape[0], num_rows):
        rows = lab[top : top + num_rows]
        lightness = rows[:, :, 0] * (100 / peak)
        stored = rows[:, :, 1:].view(signed) if is_signed else rows[:, :, 1:].astype(np.float64)
        a, b = np.moveaxis((stored - offset) / step, 2, 0)
        f_y = (lightness + 16) / 116
        f = np.stack([f_y + a / 500, f_y, f_y - b / 200], axis=2)
        cubes = f**3
        xyz = np.where(cubes > _EPSILON, cubes, (116 * f - 16) / _KAPPA) * white_xyz
        linear = np.clip(xyz @ rgb_from_xyz.T, 0, 1)
        coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        srgb[top : top + num_rows] = np.rint(coded * peak)
    return srgb


def rgb_from_cmyk(cmyk: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Convert inks without a profile, (H, W, 4), as Pillow does: each lets light through."""
    peak = np.uint32(65_535)
    light = peak - cmyk.astype(np.uint32)
    rgb: NDArray[np.uint16] = ((light[:, :, :3] * light[:, :, 3:] + peak // 2) // peak).astype(
        np.uint16
    )
    return rgb
