"""Files that Pillow cannot write: PNG of 16 bits, and TIFF with all its metadata.

PNG (W3C Recommendation, third edition) and TIFF 6.0 with one strip. tifffile is not used for the
latter: it writes no EXIF and GPS directories, and Pillow writes them into uncompressed files only.
"""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin, TiffImagePlugin, TiffTags

from swise_deploy.pictures.samples import Samples
from swise_engines.upscaling.pictures.metadata import (
    TIFF_IPTC,
    TIFF_XMP,
    Metadata,
    exif_for_size,
    png_notes,
)

_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_PNG_FILTER_UP = 2
_METRES_PER_INCH = 0.0254

# TIFF 6.0, and its technical notes for Deflate.
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_PREDICTOR, _EXTRA_SAMPLES, _ICC = 317, 338, 34675
_SAMPLE_FORMAT, _UNSIGNED, _FLOAT = 339, 1, 3
_DEFLATE, _NO_PREDICTOR, _HORIZONTAL, _INCH, _UNASSOCIATED_ALPHA = 8, 1, 2, 2, 2
_BLACK_IS_ZERO, _RGB = 1, 2


def png_from_deep(image: NDArray[np.uint16], metadata: Metadata) -> bytes:
    """Encode a 16-bit PNG from (H, W, C); C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
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


def tiff_from_samples(image: Samples, metadata: Metadata) -> bytes:
    """Encode a TIFF: one strip, Deflate; whole numbers with horizontal differencing.

    Args:
        image: (H, W) greyscale or (H, W, C): C = 2 grey and alpha, 3 RGB, 4 RGBA.
        metadata: Everything else that goes into the file.
    """
    samples = image[:, :, None] if image.ndim == 2 else image
    height, width, channels = samples.shape
    stored = samples.astype(samples.dtype.newbyteorder("<"), order="C")
    is_float = samples.dtype == np.float32
    if not is_float:
        np.subtract(stored[:, 1:], samples[:, :-1], out=stored[:, 1:])
    strip = zlib.compress(stored.data, 6)
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    exif = exif_for_size(metadata, width, height)
    for tag in exif:
        tags[tag] = exif.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else exif[tag]
    tags[_WIDTH], tags[_LENGTH] = width, height
    tags[_BITS] = (8 * samples.itemsize,) * channels
    tags[_COMPRESSION], tags[_PREDICTOR] = _DEFLATE, _NO_PREDICTOR if is_float else _HORIZONTAL
    tags[_SAMPLE_FORMAT] = (_FLOAT if is_float else _UNSIGNED,) * channels
    tags[_PHOTOMETRIC] = _BLACK_IS_ZERO if channels < 3 else _RGB
    tags[_SAMPLES] = channels
    if channels in (2, 4):
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
    if metadata.iptc is not None:
        tags.tagtype[TIFF_IPTC] = TiffTags.UNDEFINED
        tags[TIFF_IPTC] = metadata.iptc
    file = io.BytesIO()
    tags.save(file)
    file.write(strip)
    return file.getvalue()
