"""TIFF strips and tiles, written by the letter of TIFF 6.0 and its technical notes."""

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from swise_deploy.errors import InputError
from swise_deploy.pictures.decoding import decode

_SHORT, _LONG = (3, "H"), (4, "I")
_LZW, _DEFLATE, _PACKBITS = 5, 8, 32773
_TILE = 16


def tiff_file(tags: dict[int, Any], segments: Sequence[bytes], order: str, *, tiled: bool) -> bytes:
    """A file of one page: `tags` by number, and what is in its strips or tiles."""
    body, places = b"", []
    for segment in segments:
        places.append(8 + len(body))
        body += segment + bytes(len(segment) % 2)
    offsets, counts = (324, 325) if tiled else (273, 279)
    tags = tags | {offsets: places, counts: [len(segment) for segment in segments]}
    start = 8 + len(body)
    end = start + 2 + 12 * len(tags) + 4
    directory, longer = struct.pack(order + "H", len(tags)), b""
    for tag, given in sorted(tags.items()):
        values = given if isinstance(given, list) else [given]
        kind, letter = _LONG if tag in (256, 257, 273, 278, 279, 322, 323, 324, 325) else _SHORT
        packed = struct.pack(f"{order}{len(values)}{letter}", *values).ljust(4, b"\0")
        if len(packed) > 4:
            packed, longer = struct.pack(order + "I", end + len(longer)), longer + packed
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return head + body + directory + bytes(4) + longer


def packed(rows: NDArray[Any], bits: int) -> bytes:
    """Rows of whole numbers without gaps, each row to a whole byte."""
    found = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        found += int(text, 2).to_bytes(len(text) // 8, "big")
    return found


def lzw(data: bytes) -> bytes:
    """LZW in which no string is ever repeated: codes of 9 bits, cleared before they grow."""
    codes: list[int] = []
    for first in range(0, len(data), 200):
        codes += [256, *data[first : first + 200]]
    text = "".join(f"{code:09b}" for code in [*codes, 257])
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def packbits(data: bytes) -> bytes:
    """PackBits of literal runs."""
    runs = [data[first : first + 128] for first in range(0, len(data), 128)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


COMPRESSORS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    _LZW: lzw,
    _DEFLATE: zlib.compress,
    _PACKBITS: packbits,
}


def predicted(samples: NDArray[Any], predictor: int, order: Literal["<", ">"]) -> bytes:
    """(H, W, C) as stored after a predictor: 2 differences of pixels, 3 those of bytes."""
    if predictor == 3:
        height, width, channels = samples.shape
        planes = samples.astype(samples.dtype.newbyteorder(">")).view(np.uint8)
        by_weight = planes.reshape(height, width * channels, -1).swapaxes(1, 2).reshape(height, -1)
        shifted = np.pad(by_weight, ((0, 0), (channels, 0)))[:, : by_weight.shape[1]]
        return (by_weight - shifted).tobytes()
    whole = samples.view(f"u{samples.itemsize}")
    if predictor == 2:
        whole = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
    return whole.astype(whole.dtype.newbyteorder(order)).tobytes()


def picture(dtype: Any, channels: int) -> NDArray[Any]:
    values = np.random.default_rng(0).random((21, 35, channels))
    dtype = np.dtype(dtype)
    peak = 1 if dtype.kind == "f" else np.iinfo(dtype).max
    return (values * peak).astype(dtype)


def cut(samples: NDArray[Any], *, tiled: bool) -> list[NDArray[Any]]:
    """Strips of 8 rows, or tiles of 16x16 that are padded at the edges."""
    if not tiled:
        return [samples[top : top + 8] for top in range(0, len(samples), 8)]
    height, width = samples.shape[:2]
    whole = np.pad(samples, ((0, -height % _TILE), (0, -width % _TILE), (0, 0)), mode="edge")
    return [
        whole[top : top + _TILE, left : left + _TILE]
        for top in range(0, height, _TILE)
        for left in range(0, width, _TILE)
    ]


@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("is_planar", [False, True])
def test_every_predictor_byte_order_and_arrangement_keeps_the_samples(
    dtype: Any, predictor: int, order: Literal["<", ">"], *, tiled: bool, is_planar: bool
) -> None:
    if predictor == 3 and dtype is np.uint16:
        pytest.skip("the third predictor is for floating point")
    samples = picture(dtype, 3)
    planes = [samples[:, :, [i]] for i in range(3)] if is_planar else [samples]
    parts = [part for plane in planes for part in cut(plane, tiled=tiled)]
    for compression, compress in COMPRESSORS.items():
        tags = {
            256: 35,
            257: 21,
            258: [8 * samples.itemsize] * 3,
            259: compression,
            262: 2,
            277: 3,
            284: 2 if is_planar else 1,
            317: predictor,
            339: [3 if samples.dtype.kind == "f" else 1] * 3,
        }
        tags |= {322: _TILE, 323: _TILE} if tiled else {278: 8}
        segments = [compress(predicted(part, predictor, order)) for part in parts]
        found = decode(tiff_file(tags, segments, order, tiled=tiled)).colour
        np.testing.assert_array_equal(found, samples.astype(found.dtype))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("is_planar", [False, True])
def test_every_depth_in_planes_tiles_and_either_order_of_bits(
    bits: int, fill_order: int, *, is_planar: bool
) -> None:
    peak = (1 << bits) - 1
    samples = np.random.default_rng(bits).integers(0, peak + 1, (21, 35, 3))
    samples[0, 0] = 0, peak, peak
    planes = [samples[:, :, [i]] for i in range(3)] if is_planar else [samples]
    parts = [part for plane in planes for part in cut(plane, tiled=True)]
    raw = [packed(part.reshape(len(part), -1), bits) for part in parts]
    if fill_order == 2:
        raw = [bytes(int(f"{byte:08b}"[::-1], 2) for byte in part) for part in raw]
    tags = {256: 35, 257: 21, 258: [bits] * 3, 259: 1, 262: 2, 277: 3, 266: fill_order}
    tags |= {284: 2 if is_planar else 1, 322: _TILE, 323: _TILE}
    # The byte order is that of the tags, and that of whole samples of 16 bits.
    found = decode(tiff_file(tags, raw, ">", tiled=True)).colour
    white = 255 if bits <= 8 else 65_535
    assert found.dtype == (np.uint8 if bits <= 8 else np.uint16)
    np.testing.assert_array_equal(found, np.rint(samples * (white / peak)))


def test_a_palette_of_16_bits_gives_its_colours() -> None:
    indices = np.random.default_rng(0).integers(0, 65_536, (5, 7, 1)).astype(np.uint16)
    colours = np.random.default_rng(1).integers(0, 65_536, (3, 65_536))
    tags = {256: 7, 257: 5, 258: 16, 259: 1, 262: 3, 277: 1, 278: 5, 320: colours.ravel().tolist()}
    found = decode(tiff_file(tags, [predicted(indices, 1, "<")], "<", tiled=False)).colour
    np.testing.assert_array_equal(found, np.moveaxis(colours[:, indices[:, :, 0]], 0, -1))


def test_inks_of_16_bits_let_light_through() -> None:
    inks = np.zeros((1, 4, 4), np.uint16)
    inks[0, 1, 0] = 65_535  # cyan takes red
    inks[0, 2] = 0, 0, 0, 65_535
    inks[0, 3] = 0, 0x8000, 0, 0x8000
    tags = {256: 4, 257: 1, 258: [16] * 4, 259: 1, 262: 5, 277: 4, 278: 1}
    found = decode(tiff_file(tags, [predicted(inks, 1, "<")], "<", tiled=False)).colour
    quarter, half = round(0x7FFF * 0x7FFF / 65_535), 0x7FFF
    white = 65_535
    assert found.tolist() == [[[white] * 3, [0, white, white], [0] * 3, [half, quarter, half]]]


# The primaries of sRGB in L*a*b*: under D50 as CSS Color 4 states them, under D65 by Lindbloom.
LAB_D50 = [(54.29, 80.82, 69.90), (87.82, -79.29, 80.99), (29.57, 68.30, -112.03), (100, 0, 0)]
LAB_D65 = [(53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86), (100, 0, 0)]
D65 = [0.3127, 0.3290]


def rationals(values: Sequence[float]) -> bytes:
    return struct.pack(
        "<" + "II" * len(values), *(n for v in values for n in (round(v * 1e4), 10_000))
    )


@pytest.mark.parametrize("photometric", [8, 9])
@pytest.mark.parametrize(("lab", "white"), [(LAB_D50, None), (LAB_D65, D65)])
@pytest.mark.parametrize("bits", [8, 16])
def test_lab_becomes_srgb_under_its_white(
    photometric: int, lab: list[tuple[float, float, float]], white: list[float] | None, bits: int
) -> None:
    step, peak = 1 << (bits - 8), (1 << bits) - 1
    values = np.array([lab])
    offset = 0 if photometric == 8 else 128
    stored = np.rint(
        np.dstack([values[:, :, 0] * peak / 100, (values[:, :, 1:] + offset) * step])
    ).astype(np.int64)
    samples = (stored & peak).astype(f"u{bits // 8}")
    tags = {256: 4, 257: 1, 258: [bits] * 3, 259: 1, 262: photometric, 277: 3, 278: 1}
    data = tiff_file(tags, [predicted(samples, 1, "<")], "<", tiled=False)
    if white is not None:
        data = with_rationals(data, 318, white)
    found = decode(data).colour
    assert found.dtype == samples.dtype
    expected = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]]) * peak
    # 8 bits round a* and b* to whole numbers, of which the darkest channel shows more.
    np.testing.assert_allclose(found, expected, atol=peak * (0.06 if bits == 8 else 0.011))


def with_rationals(data: bytes, tag: int, values: Sequence[float]) -> bytes:
    """A little-endian file of one page with one more tag, at its end."""
    (start,) = struct.unpack_from("<I", data, 4)
    (number,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i :][:12] for i in range(number)]
    body = data + bytes(len(data) % 2)
    place = len(body) + 2 + 12 * (number + 1) + 4
    entries.append(struct.pack("<HHII", tag, 5, len(values), place))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    directory = struct.pack("<H", number + 1) + b"".join(entries) + bytes(4)
    return body[:4] + struct.pack("<I", len(body)) + body[8:] + directory + rationals(values)


@pytest.mark.parametrize(("bits", "predictor"), [(12, 2), (16, 3), (16, 7)])
def test_a_predictor_without_a_meaning_is_refused(bits: int, predictor: int) -> None:
    tags = {256: 4, 257: 1, 258: [bits] * 3, 259: 1, 262: 2, 277: 3, 278: 1, 317: predictor}
    with pytest.raises(InputError, match=f"{bits} bits with predictor {predictor}"):
        decode(tiff_file(tags, [bytes(24)], "<", tiled=False))


def test_a_strip_that_is_missing_is_damage() -> None:
    tags = {256: 4, 257: 16, 258: [16] * 3, 259: 1, 262: 2, 277: 3, 278: 8}
    with pytest.raises(InputError, match="strip is missing"):
        decode(tiff_file(tags, [bytes(192)], "<", tiled=False))
