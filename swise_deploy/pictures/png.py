"""PNG at full depth: colour of 16 bits, and transparency by a colour key (tRNS).

Pillow decodes 16-bit colour to its high bytes. Read a second time with the byte order named the
other way round, the same decoder gives the low bytes. No small library reads 16-bit PNG: pypng is
pure Python (minutes for a photograph), imagecodecs has 26 MB.
"""

import io
import struct
import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_SWAPPED_ORDER = {
    ";16B": ";16L",
    ";16L": ";16B",
    ";16N": ";16B" if sys.byteorder == "little" else ";16L",
}
_GREY_ALPHA = "LA;16B"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# PNG 3rd edition, 11.3.2, with the number of their bytes.
_COLOUR_CHUNKS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_BIT_DEPTH_OFFSET = 24  # signature 8, chunk header 8, width 4, height 4 (PNG 3rd edition, 11.2.1)


def bit_depth(data: bytes) -> int:
    """Bits of a sample, or of a palette index, from the header of a PNG."""
    return data[_BIT_DEPTH_OFFSET]


def colour_chunks(data: bytes) -> dict[str, bytes]:
    """The chunks of a PNG that say which colours its numbers are, by name, but for profiles."""
    found: dict[str, bytes] = {}
    place = len(_SIGNATURE)
    while data.startswith(_SIGNATURE) and place + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        if kind == b"IDAT":
            break
        if kind in _COLOUR_CHUNKS and size == _COLOUR_CHUNKS[kind]:
            found[kind.decode()] = data[place + 8 : place + 8 + size]
        place += size + 12
    return found


def raw_modes(image: Image.Image) -> list[str]:
    """Name the storage of the pixels of a picture that is not loaded yet, in Pillow's terms."""
    args = [tile.args for tile in getattr(image, "tile", [])]
    return [arg if isinstance(arg, str) else str(arg[0]) for arg in args if arg]


def holds_deep_colour(image: Image.Image) -> bool:
    """True if a picture that is not loaded yet holds 16-bit colour, which Pillow reduces to 8."""
    modes = raw_modes(image)
    return image.mode in ("RGB", "RGBA") and any(";16" in mode for mode in modes)


def deep_colour(data: bytes) -> NDArray[np.uint16]:
    """Decode a PNG for which `holds_deep_colour`.

    Returns:
        (H, W, C), uint16, C = 2 grey and alpha, 3 RGB, 4 RGB and alpha; not turned upright.

    Raises:
        ValueError: The storage of the pixels is not known here.
    """
    high = _open(data)
    mode = raw_modes(high)[0]
    if mode == _GREY_ALPHA:
        # Two 16-bit samples a pixel read as four 8-bit ones.
        high.tile = [tile._replace(args="RGBA") for tile in high.tile]
        split = np.asarray(high)
        return _join(split[:, :, 0::2], split[:, :, 1::2])
    if mode[-4:] not in _SWAPPED_ORDER:
        raise ValueError(f"16-bit pixels stored as {mode!r} are not supported")
    swapped = mode[:-4] + _SWAPPED_ORDER[mode[-4:]]
    low = _open(data)
    low.tile = [
        tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped)
        for tile in low.tile
    ]
    return _join(np.asarray(high), np.asarray(low))


def _open(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=("PNG",))


def _join(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    joined: NDArray[np.uint16] = np.left_shift(high, 8, dtype=np.uint16)
    joined |= low
    return joined


def key_alpha(
    samples: NDArray[np.unsignedinteger], key: int | tuple[int, ...], *, bits: int
) -> NDArray[np.unsignedinteger]:
    """Alpha channel of a PNG in which one colour is transparent.

    Args:
        samples: (H, W) grey or (H, W, 3) RGB; uint16, or uint8 to which fewer bits were stretched.
        key: The transparent grey or colour, as stored.
        bits: Depth of the file, 1 to 16.

    Returns:
        (H, W), dtype of the samples: 0 where the colour is the key, else the largest value.
    """
    peak = np.iinfo(samples.dtype).max
    mask = (1 << bits) - 1
    stretch = peak // mask if bits < 8 else 1
    stored = np.array(key, np.int64) & mask
    same = samples == (stored * stretch).astype(samples.dtype)
    transparent = same.all(axis=2) if samples.ndim == 3 else same
    return np.where(transparent, 0, peak).astype(samples.dtype)
