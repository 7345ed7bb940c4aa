"""Frames of video to RGB arrays and back, with the coding of their colours.

A video that names no matrix is taken for BT.709 from 577 lines up and for BT.601 below, as players
do; one that names no chroma position for "left", as MPEG-2, H.264 and HEVC define. What was assumed
is written into the result: it has more lines, and a player that had to guess again would guess
differently.
"""

import io
import itertools
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.dependencies import require
from swise_engines.upscaling.video.pixel_formats import pixel_format

if TYPE_CHECKING:
    import av
    import av.stream

Rgb = NDArray[np.uint8 | np.uint16]
"""(H, W, 3) RGB, or (H, W, 4) with alpha; uint8 or uint16, full range."""

# ITU-T H.273 code points of MatrixCoefficients.
_RGB, _BT709, _UNSPECIFIED, _BT601_625, _BT601_525, _SMPTE240M, _BT2020 = 0, 1, 2, 5, 6, 7, 9
# FFmpeg's names of the same matrices, as its scale filter takes them.
_MATRIX_NAMES = {
    _BT709: "bt709",
    4: "fcc",
    _BT601_625: "bt470bg",
    _BT601_525: "smpte170m",
    _SMPTE240M: "smpte240m",
    _BT2020: "bt2020",
}
_LIMITED, _FULL = 1, 2
_RANGE_NAMES = {_LIMITED: "tv", _FULL: "pc"}
_MOST_SD_LINES = 576

# Without the last three, swscale is off by several 8-bit values on saturated colours, and samples
# chroma at every second pixel.
_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_DEFAULT_POSITION = "left"
# Matroska's ChromaSitingHorz and ChromaSitingVert (RFC 9559, 5.1.4.1.28.27): the elements' ids and
# values, and the names of H.273's ChromaLocType.
_SITING = re.compile(rb"\x55\xb7\x81(.)\x55\xb8\x81(.)", re.DOTALL)
_POSITIONS = {
    (1, 2): "left",
    (2, 2): "center",
    (1, 1): "topleft",
    (2, 1): "top",
    (1, 3): "bottomleft",
    (2, 3): "bottom",
}


@dataclass(frozen=True, slots=True)
class ColourCoding:
    """Colour coding of a video in H.273 code points; matrix and range are always specified.

    Attributes:
        matrix: MatrixCoefficients.
        range: 1 limited (16 to 235), 2 full (0 to 255).
        primaries: ColourPrimaries, 2 where not known.
        transfer: TransferCharacteristics, 2 where not known.
        chroma_position: Place of chroma samples among luma samples, such as "left" or "topleft".
    """

    matrix: int
    range: int
    primaries: int
    transfer: int
    chroma_position: str = _DEFAULT_POSITION


def coding_of_frame(
    frame: "av.VideoFrame", *, chroma_position: str = _DEFAULT_POSITION
) -> ColourCoding:
    """Read the colour coding of a frame; missing facts are filled in."""
    matrix = int(frame.colorspace)
    if matrix not in _MATRIX_NAMES:
        matrix = _BT709 if frame.height > _MOST_SD_LINES else _BT601_525
    full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
    return ColourCoding(
        matrix,
        _FULL if full else _LIMITED,
        int(frame.color_primaries),
        int(frame.color_trc),
        chroma_position,
    )


def chroma_position_of(stream: "av.stream.Stream") -> str:
    """Read where the chroma samples of a video stream lie; "left" where it is not stated.

    PyAV does not show FFmpeg's field, but FFmpeg writes it into the header of a Matroska file.
    """
    pyav = require("av", extra="video", purpose="upscaling a video")
    header = io.BytesIO()
    try:
        with pyav.open(header, "w", format="matroska") as output:
            output.add_stream_from_template(stream)
            output.start_encoding()
    except (pyav.FFmpegError, ValueError):  # a codec that Matroska does not hold
        return _DEFAULT_POSITION
    found = _SITING.search(header.getvalue())
    return (
        _POSITIONS.get((found[1][0], found[2][0]), _DEFAULT_POSITION)
        if found
        else (_DEFAULT_POSITION)
    )


def rgb_from_frame(
    frame: "av.VideoFrame",
    coding: ColourCoding,
    *,
    is_deep: bool,
    size: tuple[int, int],
    with_alpha: bool = False,
) -> Rgb:
    """Turn a frame into RGB of (width, height) `size`, not turned upright.

    Returns:
        (H, W, 3), or (H, W, 4) with alpha; uint16 where `is_deep`, else uint8.
    """
    options = {"w": str(size[0]), "h": str(size[1]), "out_range": "pc"}
    source = pixel_format(frame.format.name)
    if not source.is_rgb:
        options["in_color_matrix"] = _MATRIX_NAMES[coding.matrix]
        options["in_range"] = _RANGE_NAMES[coding.range]
        options["in_chroma_loc"] = coding.chroma_position
    name = ("rgba" if with_alpha else "rgb") + ("64le" if is_deep else "")
    name = {"rgb64le": "rgb48le", "rgb": "rgb24"}.get(name, name)
    converted = _scaled(frame, options, name)
    return np.asarray(converted.to_ndarray(), np.uint16 if is_deep else np.uint8)


def is_transparent(rgb: Rgb) -> bool:
    """True with an alpha channel that is not opaque everywhere."""
    return rgb.shape[2] == 4 and bool((rgb[:, :, 3] < np.iinfo(rgb.dtype).max).any())


def frame_from_rgb(rgb: Rgb, coding: ColourCoding, pix_fmt: str) -> "av.VideoFrame":
    """Turn RGB, (H, W, 3) or (H, W, 4), into a frame of a pixel format, coded as `coding`."""
    pyav = require("av", extra="video", purpose="upscaling a video")
    is_deep, has_alpha = rgb.dtype == np.uint16, rgb.shape[2] == 4
    name = {(False, False): "rgb24", (True, False): "rgb48le", (False, True): "rgba"}.get(
        (is_deep, has_alpha), "rgba64le"
    )
    source = pyav.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format=name)
    is_rgb = pixel_format(pix_fmt).is_rgb
    options = {"in_range": "pc"}
    if not is_rgb:
        options["out_color_matrix"] = _MATRIX_NAMES[coding.matrix]
        options["out_range"] = _RANGE_NAMES[coding.range]
        options["out_chroma_loc"] = coding.chroma_position
    frame = _scaled(source, options, pix_fmt)
    frame.colorspace = _RGB if is_rgb else coding.matrix
    frame.color_range = _FULL if is_rgb else coding.range
    frame.color_primaries = coding.primaries
    frame.color_trc = coding.transfer
    return frame


def _scaled(frame: "av.VideoFrame", options: dict[str, str], pix_fmt: str) -> "av.VideoFrame":
    """Run FFmpeg's scale filter, which unlike PyAV's `reformat` knows chroma positions.

    Raises:
        MemoryError: There is none for the result.
    """
    graph_module = require("av.filter", extra="video", purpose="upscaling a video")
    graph = graph_module.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    arguments = ":".join(f"{key}={value}" for key, value in {"flags": _FLAGS, **options}.items())
    chain = [
        source,
        graph.add("scale", arguments),
        graph.add("format", f"pix_fmts={pix_fmt}"),
        graph.add("buffersink"),
    ]
    for first, second in itertools.pairwise(chain):
        first.link_to(second)
    graph.configure()
    graph.push(frame)
    try:
        scaled: av.VideoFrame = graph.pull()
    except BlockingIOError as error:  # what FFmpeg says where it cannot allocate the frame
        raise MemoryError(f"for a frame of {frame.width}x{frame.height} {pix_fmt}") from error
    return scaled
