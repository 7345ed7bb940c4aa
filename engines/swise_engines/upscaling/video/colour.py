"""Frames of video to RGB arrays and back, with the matrix and the range that the video is coded in.

A video that names no matrix is taken for BT.709 from 577 lines up and for BT.601 below, as players
do. What was assumed is written into the result: it has more lines, and a player that had to guess
again would guess differently.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.dependencies import require

if TYPE_CHECKING:
    import av

Rgb = NDArray[np.unsignedinteger]
"""(H, W, 3), uint8 or uint16, RGB, full range."""

# ITU-T H.273 code points of MatrixCoefficients.
_BT709, _UNSPECIFIED, _BT601_625, _BT601_525, _SMPTE240M, _BT2020 = 1, 2, 5, 6, 7, 9
# What swscale calls the same matrices (libswscale/swscale.h, SWS_CS_*).
_SWS_MATRICES = {_BT709: 1, 4: 4, _BT601_625: 5, _BT601_525: 5, _SMPTE240M: 7, _BT2020: 9}
_LIMITED, _FULL = 1, 2
_MOST_SD_LINES = 576


@dataclass(frozen=True, slots=True)
class ColourCoding:
    """Colour coding of a video in H.273 code points; matrix and range are always specified.

    Attributes:
        matrix: MatrixCoefficients.
        range: 1 limited (16 to 235), 2 full (0 to 255).
        primaries: ColourPrimaries, 2 where not known.
        transfer: TransferCharacteristics, 2 where not known.
    """

    matrix: int
    range: int
    primaries: int
    transfer: int


def coding_of_frame(frame: "av.VideoFrame") -> ColourCoding:
    """Read the colour coding of a frame; missing facts are filled in."""
    matrix = int(frame.colorspace)
    if matrix not in _SWS_MATRICES:
        matrix = _BT709 if frame.height > _MOST_SD_LINES else _BT601_525
    full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
    return ColourCoding(
        matrix, _FULL if full else _LIMITED, int(frame.color_primaries), int(frame.color_trc)
    )


def is_deep_frame(frame: "av.VideoFrame") -> bool:
    """True if a frame has more than 8 bits a sample."""
    return any(component.bits > 8 for component in frame.format.components)


def rgb_from_frame(
    frame: "av.VideoFrame", coding: ColourCoding, *, deep: bool, size: tuple[int, int]
) -> Rgb:
    """Turn a frame into RGB of (width, height) `size`, turned upright by its rotation.

    Returns:
        uint16 where `deep`, else uint8.
    """
    converted = frame.reformat(
        width=size[0],
        height=size[1],
        format="rgb48le" if deep else "rgb24",
        interpolation=_interpolation(),
        src_colorspace=_SWS_MATRICES[coding.matrix],
        src_color_range=coding.range,
        dst_color_range=_FULL,
    )
    rgb: Rgb = np.asarray(converted.to_ndarray(), np.uint16 if deep else np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def frame_from_rgb(rgb: Rgb, coding: ColourCoding, pix_fmt: str) -> "av.VideoFrame":
    """Turn RGB into a frame of that pixel format, coded and labelled as `coding`."""
    pyav = require("av", extra="video", purpose="upscaling a video")
    deep = rgb.dtype == np.uint16
    source = pyav.VideoFrame.from_ndarray(rgb, format="rgb48le" if deep else "rgb24")
    frame: av.VideoFrame = source.reformat(
        format=pix_fmt,
        interpolation=_interpolation(),
        dst_colorspace=_SWS_MATRICES[coding.matrix],
        src_color_range=_FULL,
        dst_color_range=coding.range,
    )
    frame.colorspace = coding.matrix
    frame.color_range = coding.range
    frame.color_primaries = coding.primaries
    frame.color_trc = coding.transfer
    return frame


def _interpolation() -> int:
    flags = require(
        "av.video.reformatter", extra="video", purpose="upscaling a video"
    ).Interpolation
    # Without the last two, swscale is off by several 8-bit values on saturated colours.
    return int(flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT)
