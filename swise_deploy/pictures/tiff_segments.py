"""Samples of a TIFF page from its strips or tiles: any depth, predictor, byte order, planes.

tifffile needs imagecodecs for LZW and for predictors of floating point. Here libtiff, which Pillow
contains, only decompresses: the strips are shown to it as one of bytes without a predictor.
"""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import refuse_size

# TIFF 6.0, its supplements, and libtiff: values of tag 259 that keep bytes as they are.
COMPRESSIONS = {
    1: "none",
    5: "LZW",
    8: "Deflate",
    32_773: "PackBits",
    32_946: "Deflate",
    34_925: "LZMA",
    50_000: "Zstandard",
}
_DEFLATE, _OLD_DEFLATE = 8, 32_946
_NO_PREDICTOR, _HORIZONTAL, _FLOATING_POINT = 1, 2, 3
_FLOAT_FORMAT = 3
_UNPACKED_AT_ONCE = 1 << 20  # samples


def page_samples(data: bytes, page: Any) -> NDArray[Any]:
    """Decode a page.

    Args:
        data: The file.
        page: Its page, as tifffile reads it, with one of `COMPRESSIONS`.

    Returns:
        (H, W) or (H, W, C) as stored: floating point, or unsigned in the least type that holds the
        bits.

    Raises:
        InputError: The combination of depth and predictor has no meaning.
        ValueError: A strip is missing or damaged.
    """
    channels = int(page.samplesperpixel)
    if int(page.planarconfig) == 1 or channels == 1:
        samples = _plane(data, page, 0, channels)
    else:
        planes = [_plane(data, page, plane, 1) for plane in range(channels)]
        samples = np.concatenate(planes, axis=2)
    return samples[:, :, 0] if channels == 1 else samples


def _plane(data: bytes, page: Any, plane: int, channels: int) -> NDArray[Any]:
    """One of the planes of a page, (H, W, channels)."""
    height, width = int(page.imagelength), int(page.imagewidth)
    bits = int(page.bitspersample)
    if page.is_tiled:
        tile_width, tile_height = int(page.tilewidth), int(page.tilelength)
        refuse_size(tile_width, tile_height)
        num_across, num_down = -(-width // tile_width), -(-height // tile_height)
    else:
        tile_width, tile_height = width, min(int(page.rowsperstrip), height)
        num_across, num_down = 1, -(-height // tile_height)
    row_bytes = -(-tile_width * channels * bits // 8)
    number = num_across * num_down
    places = slice(plane * number, (plane + 1) * number)
    offsets, counts = page.dataoffsets[places], page.databytecounts[places]
    if len(offsets) != number or 0 in offsets or 0 in counts:
        raise ValueError("a strip is missing")
    num_rows = num_down * tile_height if page.is_tiled else height
    rows = _decompressed(
        data,
        (num_across * row_bytes, num_rows),
        tile=(row_bytes, tile_height) if page.is_tiled else None,
        rows_per_strip=tile_height,
        compression=int(page.compression),
        fill_order=int(page.fillorder),
        segments=(offsets, counts),
    )
    parts = rows[:height].reshape(height, num_across, row_bytes)
    values = _values(parts, page, tile_width, channels)
    return values.reshape(height, num_across * tile_width, channels)[:, :width]


def _decompressed(
    data: bytes,
    size: tuple[int, int],
    *,
    tile: tuple[int, int] | None,
    rows_per_strip: int,
    compression: int,
    fill_order: int,
    segments: tuple[tuple[int, ...], tuple[int, ...]],
) -> NDArray[np.uint8]:
    """Decompress strips or tiles of bytes: (rows, bytes of a row).

    Args:
        data: The file that contains them.
        size: Bytes of a row, and rows.
        tile: Bytes of a row and rows of a tile; None for strips.
        rows_per_strip: Of strips.
        compression: Value of tag 259.
        fill_order: Value of tag 266: 2 where the bits of each byte are reversed.
        segments: Places and numbers of bytes.
    """
    offsets, counts = segments
    entries: dict[int, tuple[int, ...]] = {
        256: (size[0],),
        257: (size[1],),
        258: (8,),
        259: (_DEFLATE if compression == _OLD_DEFLATE else compression,),
        262: (1,),
        266: (fill_order,),
        277: (1,),
    }
    if tile is None:
        entries |= {273: offsets, 278: (rows_per_strip,), 279: counts}
    else:
        entries |= {322: tile[:1], 323: tile[1:], 324: offsets, 325: counts}
    start = len(data) + len(data) % 2
    place = start + 2 + 12 * len(entries) + 4
    directory, longer = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = np.array(values, "<u4").tobytes()
        if len(values) > 1:
            packed, longer = struct.pack("<I", place + len(longer)), longer + packed
        directory += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = struct.pack("<2sHI", b"II", 42, start)
    whole = b"".join([head, data[8:], bytes(start - len(data)), directory, bytes(4), longer])
    # Not by Image.open, whose bound is for pixels: `size` was checked, and is in bytes.
    with TiffImagePlugin.TiffImageFile(io.BytesIO(whole)) as image:
        return np.asarray(image)


def _values(parts: NDArray[np.uint8], page: Any, width: int, channels: int) -> NDArray[Any]:
    """Samples, (H, segments of a row, W * channels), of rows of bytes."""
    bits, predictor = int(page.bitspersample), int(page.predictor)
    is_float = int(page.sampleformat) == _FLOAT_FORMAT
    is_known = predictor in (_NO_PREDICTOR, _HORIZONTAL) or (
        predictor == _FLOATING_POINT and is_float
    )
    if not is_known or (predictor != _NO_PREDICTOR and bits not in (8, 16, 32, 64)):
        raise InputError(f"a TIFF of {bits} bits with predictor {predictor}. Save it without one")
    if bits not in (8, 16, 32, 64):
        return _unpacked(parts, bits, width * channels)
    height, num_across, _ = parts.shape
    size = bits // 8
    kind = "f" if is_float else "u"
    if predictor == _FLOATING_POINT:
        # TIFF technical note 3: differences of bytes, the most significant ones first.
        bytes_ = np.cumsum(parts.reshape(height, num_across, -1, channels), axis=2, dtype=np.uint8)
        by_weight = bytes_.reshape(height, num_across, size, width * channels)
        return np.ascontiguousarray(np.moveaxis(by_weight, 2, -1)).view(f">{kind}{size}")[..., 0]
    stored = parts.view(f"{page.parent.byteorder}u{size}")
    if predictor == _HORIZONTAL:
        pixels = stored.reshape(height, num_across, width, channels)
        stored = np.cumsum(pixels, axis=2, dtype=f"u{size}").reshape(height, num_across, -1)
        return stored.view(f"{kind}{size}")
    return stored.view(f"{page.parent.byteorder}{kind}{size}")


def _unpacked(parts: NDArray[np.uint8], bits: int, num_values: int) -> NDArray[Any]:
    """Samples of 1 to 15 bits, packed without gaps in each row (TIFF 6.0, section 3)."""
    rows = parts.reshape(-1, parts.shape[2])
    values = np.zeros((len(rows), num_values), np.uint16 if bits > 8 else np.uint8)
    step = max(1, _UNPACKED_AT_ONCE // num_values)
    for first in range(0, len(rows), step):
        part = np.unpackbits(rows[first : first + step], axis=1)[:, : num_values * bits]
        wide = np.zeros((len(part), num_values, 16), np.uint8)
        wide[:, :, 16 - bits :] = part.reshape(len(part), num_values, bits)
        values[first : first + len(part)] = np.packbits(wide, axis=2).view(">u2")[:, :, 0]
    return values.reshape(parts.shape[0], parts.shape[1], num_values)
