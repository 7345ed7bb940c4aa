"""What Pillow cannot read and write: colour of 16 bits a channel, and TIFF with all its metadata.

Pillow decodes 16-bit RGB to its high bytes. Read a second time with the byte order named the other
way round, the same decoder gives the low bytes. PNG (W3C Recommendation, third edition) and TIFF
(revision 6.0) are written here, compressed with Deflate.
"""

import io
import struct
import sys
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, TiffTags

from swise_engines.upscaling.pictures.metadata import TIFF_XMP, Metadata, exif_for_size, png_notes

DeepImage = NDArray[np.uint16]
"""(H, W, C), uint16, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""

_SWAPPED_ORDER = {
    ";16B": ";16L",
    ";16L": ";16B",
    ";16N": ";16B" if sys.byteorder == "little" else ";16L",
}
_GREY_ALPHA = "LA;16B"

_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_PNG_FILTER_UP = 2
_METRES_PER_INCH = 0.0254

# TIFF 6.0, and its technical notes for Deflate.
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_PREDICTOR, _EXTRA_SAMPLES, _ICC = 317, 338, 34675
_DEFLATE, _HORIZONTAL, _INCH, _UNASSOCIATED_ALPHA = 8, 2, 2, 2
_BLACK_IS_ZERO, _RGB = 1, 2


def raw_modes(image: Image.Image) -> list[str]:
    """Say how a picture that is not yet loaded stores its pixels, in Pillow's names."""
    args = [tile.args for tile in getattr(image, "tile", [])]
    return [arg if isinstance(arg, str) else str(arg[0]) for arg in args if arg]


def is_deep(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded picture holds colour of 16 bits a channel."""
    modes = raw_modes(image)
    return image.mode in ("RGB", "RGBA") and any(";16" in mode for mode in modes)


def deep_from_bytes(data: bytes) -> DeepImage:
    """Decode a PNG or TIFF for which `is_deep` holds; upright, all 16 bits.

    Raises:
        ValueError: The pixels are stored in a way that is not known here.
    """
    high = _open(data)
    mode = raw_modes(high)[0]
    if mode == _GREY_ALPHA:
        # Two 16-bit samples a pixel read as four 8-bit ones.
        high.tile = [tile._replace(args="RGBA") for tile in high.tile]
        split = np.asarray(ImageOps.exif_transpose(high))
        return _join(split[:, :, 0::2], split[:, :, 1::2])
    if mode[-4:] not in _SWAPPED_ORDER:
        raise ValueError(f"16-bit pixels stored as {mode!r} are not supported")
    swapped = mode[:-4] + _SWAPPED_ORDER[mode[-4:]]
    low = _open(data)
    low.tile = [
        tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped)
        for tile in low.tile
    ]
    high_bytes, low_bytes = (np.asarray(ImageOps.exif_transpose(half)) for half in (high, low))
    return _join(high_bytes, low_bytes)


def _join(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> DeepImage:
    joined: DeepImage = np.left_shift(high, 8, dtype=np.uint16)
    joined |= low
    return joined


def _open(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data))


def png_from_deep(image: DeepImage, metadata: Metadata) -> bytes:
    """Encode a 16-bit PNG."""
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    rows = np.ascontiguousarray(image, ">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _PNG_FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    chunks = [(b"IHDR", header)]
    if metadata.icc is not None:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi is not None:
        x, y = (round(dpi / _METRES_PER_INCH) for dpi in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
    chunks += [(kind, body) for kind, body, *_ in png_notes(metadata).chunks]
    exif = exif_for_size(metadata, width, height)
    if len(exif):
        chunks.append((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(filtered.data, 6)), (b"IEND", b"")]
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for kind, body in chunks:
        PngImagePlugin.putchunk(file, kind, body)
    return file.getvalue()


def tiff_from_samples(image: NDArray[np.unsignedinteger], metadata: Metadata) -> bytes:
    """Encode a TIFF: one strip, Deflate with horizontal differencing.

    Pillow's writer is not used for 8 bits either: it cannot store EXIF directories in compressed
    files.

    Args:
        image: (H, W) greyscale or (H, W, C), uint8 or uint16; C = 2 becomes RGB with alpha, which
            more programs read.
        metadata: What else goes into the file.
    """
    samples = image[:, :, None] if image.ndim == 2 else image
    if samples.shape[2] == 2:
        samples = samples[:, :, [0, 0, 0, 1]]
    height, width, channels = samples.shape
    differences = samples.astype(samples.dtype.newbyteorder("<"), order="C")
    differences[:, 1:] -= samples[:, :-1]
    strip = zlib.compress(differences.data, 6)
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    exif = exif_for_size(metadata, width, height)
    for tag in exif:
        tags[tag] = exif.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else exif[tag]
    tags[_WIDTH], tags[_LENGTH] = width, height
    tags[_BITS] = (8 * samples.itemsize,) * channels
    tags[_COMPRESSION], tags[_PREDICTOR] = _DEFLATE, _HORIZONTAL
    tags[_PHOTOMETRIC] = _BLACK_IS_ZERO if channels == 1 else _RGB
    tags[_SAMPLES] = channels
    if channels == 4:
        tags[_EXTRA_SAMPLES] = _UNASSOCIATED_ALPHA
    tags[_STRIP_OFFSETS] = 0
    tags[_ROWS_PER_STRIP], tags[_STRIP_BYTES] = height, len(strip)
    if metadata.dpi is not None:
        tags[_X_RESOLUTION], tags[_Y_RESOLUTION] = metadata.dpi
        tags[_RESOLUTION_UNIT] = _INCH
    if metadata.icc is not None:
        tags.tagtype[_ICC] = TiffTags.UNDEFINED
        tags[_ICC] = metadata.icc
    if metadata.xmp is not None:
        tags.tagtype[TIFF_XMP] = TiffTags.BYTE
        tags[TIFF_XMP] = metadata.xmp
    file = io.BytesIO()
    tags.save(file)
    file.write(strip)
    return file.getvalue()
