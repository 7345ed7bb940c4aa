"""Picture formats: the one list of what is read and written, with suffixes and limits.

Pillow knows dozens of formats, and some of them start other programs (PostScript). Only the formats
of this list are ever opened, whatever the suffix of a file.
"""

from typing import Literal, get_args

from PIL import features

from swise_deploy.errors import InputError

Format = Literal["png", "jpg", "webp", "tiff", "bmp", "avif"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Formats that are written."""

HAS_AVIF = bool(features.check("avif"))
"""True where Pillow was built with AVIF."""

PILLOW_READERS = (
    "PNG",
    "JPEG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    *(("AVIF",) if HAS_AVIF else ()),
)
"""Pillow's names of the formats that are opened."""

ANIMATIONS = ("GIF", "PNG", "AVIF")
"""Pillow's names of the formats whose animations FFmpeg reads as videos."""

_WRITTEN_SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".jpe": "jpg",
    ".jfif": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
    **({".avif": "avif"} if HAS_AVIF else {}),
}
# Read, but not written; the value is the format of the result.
_READ_ONLY_SUFFIXES: dict[str, Format] = {
    ".apng": "png",
    ".dib": "bmp",
    ".gif": "png",
    ".mpo": "jpg",
}

SUFFIXES = frozenset({*_WRITTEN_SUFFIXES, *_READ_ONLY_SUFFIXES})
"""Suffixes of picture files that are read, in lower case."""

WRITTEN_SUFFIXES = frozenset(_WRITTEN_SUFFIXES)
"""Suffixes of picture files that are written, in lower case."""

FORMAT_NAMES = f"PNG, JPEG, WebP, TIFF, BMP, GIF{' or AVIF' if HAS_AVIF else ''}"

# Pillow's own bound, fixed here so that another program's setting does not change it.
MAX_INPUT_PIXELS = 89_478_485
MAX_INPUT_SIDE = 65_535
"""The longest side that JPEG holds. Work grows with the rows, so thin pictures need a bound too."""

_NETPBM = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"Pf", b"PF")
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypavif", "AVIF (this Pillow has no decoder for it)"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"\0\0\x01\0", "a Windows icon"),
    (0, b"\x0a\x05\x01", "PCX"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\x01\xda", "SGI"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"SIMPLE  =", "FITS"),
    *((0, start + space, "Netpbm") for start in _NETPBM for space in (b"\n", b" ", b"\r", b"\t")),
)


def format_of(suffix: str) -> Format:
    """Name the format of a picture that is written with a suffix such as ".png".

    Raises:
        InputError: The suffix names no format that is written.
    """
    try:
        return _WRITTEN_SUFFIXES[suffix.lower()]
    except KeyError as error:
        raise InputError(
            f"suffix {suffix!r} names no picture format that is written. "
            f"Expected one of {', '.join(_WRITTEN_SUFFIXES)}"
        ) from error


def result_suffix(suffix: str) -> str:
    """The suffix of the result for a picture with this suffix: the same where it is written."""
    read_only = _READ_ONLY_SUFFIXES.get(suffix.lower())
    return suffix if read_only is None else f".{read_only}"


def unsupported_name(data: bytes) -> str | None:
    """The format of a file that is not in the list, by its first bytes; None where unknown."""
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    return None


def refuse_size(width: int, height: int) -> None:
    """Check the size of a picture before it is unpacked.

    Raises:
        InputError: It has too many pixels, or too long a side.
    """
    if width < 1 or height < 1:
        raise InputError(f"{width}x{height} pixels; expected at least 1x1")
    if width * height > MAX_INPUT_PIXELS:
        raise InputError(
            f"{width}x{height} pixels are {width * height:,}; at most {MAX_INPUT_PIXELS:,} are "
            "accepted. Cut the picture into parts"
        )
    if max(width, height) > MAX_INPUT_SIDE:
        raise InputError(
            f"{width}x{height} pixels; a side has at most {MAX_INPUT_SIDE:,}. "
            "Cut the picture into parts"
        )
