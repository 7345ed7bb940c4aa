"""BMP whose colours are bit fields, such as 5-6-5: Pillow reads a few of the layouts only."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import refuse_size
from swise_deploy.pictures.samples import Samples, stretched

# Windows GDI: BITMAPFILEHEADER, BITMAPINFOHEADER and its later forms.
_FILE_HEADER_BYTES, _INFO_HEADER_BYTES, _MASKS_OFFSET = 14, 40, 40
_BIT_FIELDS, _ALPHA_BIT_FIELDS = 3, 6
_DEPTHS = (16, 32)
_METRES_PER_INCH = 0.0254


@dataclass(frozen=True, slots=True)
class BitFields:
    """Pixels of a BMP, the first row on top.

    Attributes:
        colour: (H, W, 3) RGB, uint8, or uint16 where a field has more than 8 bits.
        alpha: (H, W), dtype of the colour; None without a field for it, or where all of it is 0.
        dpi: Pixels per inch, (x, y); None where they are not stated.
    """

    colour: Samples
    alpha: Samples | None
    dpi: tuple[float, float] | None


def holds_bit_fields(data: bytes) -> bool:
    """True for a BMP or DIB whose header describes its pixels by masks."""
    start = _header_start(data)
    if len(data) < start + _INFO_HEADER_BYTES:
        return False
    size, _, _, planes, bits, compression = struct.unpack_from("<IiiHHI", data, start)
    is_header = size >= _INFO_HEADER_BYTES and planes == 1 and bits in _DEPTHS
    return is_header and compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS)


def decode_bit_fields(data: bytes) -> BitFields:
    """Decode a file for which `holds_bit_fields`.

    Raises:
        InputError: The masks have no meaning, or pixels are missing.
    """
    start = _header_start(data)
    size, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, start)
    refuse_size(width, abs(height))
    has_alpha = size >= _INFO_HEADER_BYTES + 16 or compression == _ALPHA_BIT_FIELDS
    masks = struct.unpack_from("<4I" if has_alpha else "<3I", data, start + _MASKS_OFFSET)
    if not all(masks[:3]):
        raise InputError("a BMP without a mask for each colour: it is damaged")
    pixels_at = start + max(size, _MASKS_OFFSET + 4 * len(masks))
    if start:
        (pixels_at,) = struct.unpack_from("<I", data, _FILE_HEADER_BYTES - 4)
    row_bytes = -(-width * bits // 32) * 4
    stored = np.frombuffer(data, np.uint8, row_bytes * abs(height), pixels_at)
    rows = stored.reshape(abs(height), row_bytes)[:, : width * bits // 8].view(f"<u{bits // 8}")
    if height > 0:  # the last row comes first
        rows = rows[::-1]
    num_bits = [mask.bit_count() for mask in masks]
    depth = 8 if max(num_bits) <= 8 else 16
    fields = [_field(rows, mask, depth) for mask in masks if mask]
    alpha = fields[3] if len(fields) == 4 and fields[3].any() else None
    x, y = struct.unpack_from("<ii", data, start + 24)
    dpi = (x * _METRES_PER_INCH, y * _METRES_PER_INCH) if x > 0 and y > 0 else None
    return BitFields(np.dstack(fields[:3]), alpha, dpi)


def _header_start(data: bytes) -> int:
    return _FILE_HEADER_BYTES if data[:2] == b"BM" else 0


def _field(rows: NDArray[np.unsignedinteger], mask: int, depth: int) -> Samples:
    """The values under a mask, stretched to 8 or 16 bits."""
    shift = (mask & -mask).bit_length() - 1
    num_bits = mask.bit_count()
    if mask >> shift != (1 << num_bits) - 1 or num_bits > 16:
        raise InputError(f"a BMP with the mask {mask:#x}; expected up to 16 adjacent bits")
    return stretched((rows & rows.dtype.type(mask)) >> shift, num_bits, depth=depth)
