"""BMP of bit fields, written by the letter of the Windows GDI reference."""

import struct
from typing import Any

import numpy as np
import pytest

from swise_deploy.errors import InputError
from swise_deploy.pictures.decoding import decode

SIZE = 13, 7  # rows of 16 bits are padded
MASKS = {
    "565": (16, (0xF800, 0x7E0, 0x1F)),
    "655": (16, (0xFC00, 0x3E0, 0x1F)),
    "x555": (16, (0x7C00, 0x3E0, 0x1F)),
    "1555": (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "4444": (16, (0xF00, 0xF0, 0xF, 0xF000)),
    "8888": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "rgba": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    "bgrx": (32, (0xFF, 0xFF00, 0xFF0000)),
    "2-10-10-10": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
}


def bmp(
    stored: Any, bits: int, masks: tuple[int, ...], *, header: int = 40, top_down: bool = False
) -> bytes:
    width, height = SIZE
    compression = 6 if header == 40 and len(masks) == 4 else 3
    fields = struct.pack(
        "<IiiHHIIiiII",
        header,
        width,
        -height if top_down else height,
        1,
        bits,
        compression,
        0,
        3937,
        7874,
        0,
        0,
    )
    head = (fields + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    rows = [row.tobytes() for row in stored.astype(f"<u{bits // 8}")]
    pixels = b"".join(row + bytes(-len(row) % 4) for row in (rows if top_down else rows[::-1]))
    place = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", place + len(pixels), 0, 0, place) + head + pixels


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("header", [40, 56, 108, 124])
@pytest.mark.parametrize("top_down", [False, True])
def test_fields_of_any_place_and_width_become_colours(
    name: str, header: int, *, top_down: bool
) -> None:
    bits, masks = MASKS[name]
    stored = np.random.default_rng(0).integers(0, 1 << bits, SIZE[::-1])
    picture = decode(bmp(stored, bits, masks, header=header, top_down=top_down))
    peaks = [mask // (mask & -mask) for mask in masks]
    shares = [
        (stored & mask) // (mask & -mask) / peak for mask, peak in zip(masks, peaks, strict=True)
    ]
    white = 65_535 if name == "2-10-10-10" else 255
    expected = np.rint(np.dstack(shares[:3]) * white)
    np.testing.assert_array_equal(picture.colour, expected)
    if len(masks) == 4:
        assert picture.alpha is not None
        np.testing.assert_array_equal(picture.alpha, np.rint(shares[3] * white))
    assert picture.info["dpi"] == pytest.approx((100, 200), abs=0.01)


def test_an_alpha_of_0_throughout_is_none() -> None:
    bits, masks = MASKS["8888"]
    assert decode(bmp(np.full(SIZE[::-1], 0x123456), bits, masks, header=124)).alpha is None


@pytest.mark.parametrize("mask", [0, 0x505])
def test_masks_without_a_meaning_are_refused(mask: int) -> None:
    with pytest.raises(InputError, match="mask"):
        decode(bmp(np.zeros(SIZE[::-1]), 16, (0xF800, mask, 0x1F)))


def test_missing_pixels_are_damage() -> None:
    bits, masks = MASKS["565"]
    with pytest.raises(InputError, match="damaged"):
        decode(bmp(np.zeros(SIZE[::-1]), bits, masks)[:-3])
