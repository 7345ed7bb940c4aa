"""TIFF of more than 8 bits: any depth, byte order, planes, floating point, both greyscales.

Pillow (libtiff) unpacks every compression, but only 16-bit grey and interleaved 16-bit colour;
tifffile, which is pure Python, unpacks every layout, but needs imagecodecs for compressions such as
LZW. Each does what it can.
"""

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import refuse_size
from swise_deploy.pictures.png import deep_colour, raw_modes

if TYPE_CHECKING:
    import tifffile

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Tags and values of TIFF 6.0.
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _SAMPLE_FORMAT, _PLANAR = 254, 255, 339, 284
_REDUCED_OR_MASK = 1 | 4
_OLD_REDUCED = 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
_UNSIGNED = 1
_NONE, _ADOBE_DEFLATE, _DEFLATE = 1, 8, 32946
_REVERSED_BITS = 2
_UNPACKED_AT_ONCE = 1 << 20  # samples
# Editors that resample overshoot by about this much.
_FLOAT_TOLERANCE = 1e-3

Samples = NDArray[np.uint8 | np.uint16 | np.float32]
"""uint8 or uint16 over their whole range, or float32 in [0, 1]."""


@dataclass(frozen=True, slots=True)
class DeepTiff:
    """Pixels of a TIFF page: uint16 over its whole range, or float32 in [0, 1]; black is 0.

    Attributes:
        colour: (H, W, 3) RGB or (H, W) greyscale.
        alpha: (H, W), not multiplied into the colour; None where there is none.
        exif: All tags of the page.
    """

    colour: Samples
    alpha: Samples | None
    exif: Image.Exif


def is_tiff(data: bytes) -> bool:
    """True if the first bytes are those of a TIFF or BigTIFF."""
    return data[:4] in SIGNATURES


def main_frame(image: Image.Image, *, first_of_many: bool) -> int:
    """Index of the page that is no thumbnail and no mask.

    Raises:
        InputError: There are several, and not the first of them is asked for.
    """
    found: list[int] = []
    for frame in range(getattr(image, "n_frames", 1)):
        image.seek(frame)
        if not _is_secondary(getattr(image, "tag_v2", {})):
            found.append(frame)
            if first_of_many:
                break
        if len(found) > 1:
            raise _several_pages(getattr(image, "n_frames", 2))
    return found[0] if found else 0


def _is_secondary(tags: Any) -> bool:  # of Pillow, or a dictionary
    return bool(
        int(tags.get(_NEW_SUBFILE_TYPE, 0)) & _REDUCED_OR_MASK
        or int(tags.get(_SUBFILE_TYPE, 0)) == _OLD_REDUCED
    )


def _several_pages(number: int) -> InputError:
    return InputError(f"it holds {number} frames or pages; expected a still picture. Split it")


def is_deep(image: Image.Image) -> bool:
    """True if the page at which an opened TIFF stands has other samples than up to 8 bits."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(ExifTags.Base.BitsPerSample, (1,))
    return max(bits) > 8 or any(kind != _UNSIGNED for kind in tags.get(_SAMPLE_FORMAT, ()))


def decode_deep(
    data: bytes, image: Image.Image | None, frame: int = 0, *, first_of_many: bool = False
) -> DeepTiff:
    """Decode a page of more than 8 bits.

    Args:
        data: The file.
        image: As Pillow opened it, at that page and not loaded; None where Pillow could not.
        frame: Number of the page for Pillow.
        first_of_many: Where Pillow could not open it, read the first of several pages.

    Raises:
        InputError: The samples are of a kind that is not supported.
    """
    if image is not None and _pillow_unpacks(image):
        return _by_pillow(data, image, frame)
    return _by_tifffile(data, first_of_many)


def _pillow_unpacks(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR, 1) != 1 or any(kind != _UNSIGNED for kind in tags.get(_SAMPLE_FORMAT, ())):
        return False
    modes = raw_modes(image)
    return image.mode.startswith("I;16") or any(
        mode.startswith(("RGB;16", "RGBA;16", "RGBX;16")) for mode in modes
    )


def _by_pillow(data: bytes, image: Image.Image, frame: int) -> DeepTiff:
    tags: Any = getattr(image, "tag_v2", {})
    exif = image.getexif()
    bits = max(tags.get(ExifTags.Base.BitsPerSample, (16,)))
    photometric = tags.get(ExifTags.Base.PhotometricInterpretation, _BLACK_IS_ZERO)
    if image.mode.startswith("I;16"):
        grey = stretched(np.asarray(image), bits)
        return DeepTiff(_black_is_zero(grey, photometric), None, exif)
    has_alpha = raw_modes(image)[0].startswith("RGBA")
    pixels = deep_colour(data, frame=frame)
    return DeepTiff(pixels[:, :, :3], pixels[:, :, 3] if has_alpha else None, exif)


def stretched(values: NDArray[np.generic], bits: int) -> NDArray[np.uint16]:
    """Values of `bits` bits, 1 to 16, as uint16 over its whole range, rounded to nearest."""
    if bits == 16:
        return np.asarray(values, np.uint16)
    peak = (1 << bits) - 1
    wide = np.asarray(values, np.uint32)
    scaled: NDArray[np.uint16] = ((wide * 65_535 + peak // 2) // peak).astype(np.uint16)
    return scaled


def _black_is_zero(samples: Samples, photometric: int) -> Samples:
    if photometric != _WHITE_IS_ZERO:
        return samples
    if samples.dtype == np.uint16:
        return np.uint16(65_535) - samples.astype(np.uint16, copy=False)
    return np.float32(1) - samples.astype(np.float32, copy=False)


def _by_tifffile(data: bytes, first_of_many: bool) -> DeepTiff:
    import tifffile  # slow to import, and needed for few files

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _main_page(file, first_of_many)
        refuse_size(page.imagewidth, page.imagelength)
        _refuse_layout(page)
        samples = _scaled(_page_samples(page), page)
        exif = Image.Exif()
        exif.endian, exif.bigtiff = file.byteorder, file.is_bigtiff
        exif.load_from_fp(io.BytesIO(data), page.offset)
    if samples.ndim == 2:
        return DeepTiff(_black_is_zero(samples, int(page.photometric)), None, exif)
    num_colours = 3 if int(page.photometric) == _RGB else 1
    colour = samples[:, :, :3] if num_colours == 3 else samples[:, :, 0]
    extra = [int(kind) for kind in page.extrasamples]
    is_alpha = bool(extra) and extra[0] in (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA)
    alpha = samples[:, :, num_colours] if is_alpha else None
    if alpha is not None and extra[0] == _ASSOCIATED_ALPHA:
        colour = _divided(colour, alpha)
    return DeepTiff(_black_is_zero(colour, int(page.photometric)), alpha, exif)


def _main_page(
    file: "tifffile.TiffFile", first_of_many: bool
) -> Any:  # its types leave out what pages have
    pages: list[Any] = []
    for page in file.pages:
        tags = getattr(page, "tags", None)
        kinds = {} if tags is None else {tag.code: tag.value for tag in tags.values()}
        if not _is_secondary(kinds):
            pages.append(page)
            if first_of_many:
                break
        if len(pages) > 1:
            raise _several_pages(len(file.pages))
    return pages[0] if pages else file.pages[0]


# TIFF 6.0, section 19.
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}


def _refuse_layout(page: Any) -> None:
    photometric = int(page.photometric)
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise InputError(
            f"a TIFF of {page.bitspersample} bits whose colours are {_name(page.photometric)}; "
            "expected greyscale or RGB. Convert it to RGB"
        )
    kind, bits = int(page.sampleformat), int(page.bitspersample)
    is_unsigned = kind == _UNSIGNED and bits <= 16
    is_float = page.dtype is not None and page.dtype.kind == "f"
    if not (is_unsigned or is_float) or page.imagedepth > 1 or page.samplesperpixel > 5:
        raise InputError(
            f"a TIFF with {page.samplesperpixel} {_SAMPLE_FORMATS.get(kind, 'unknown')} samples a "
            f"pixel of {bits} bits; expected grey or RGB, unsigned of up to 16 bits or floating "
            "point. Convert it to 16 bits"
        )


def _name(value: object) -> str:
    return str(getattr(value, "name", value))


def _page_samples(page: Any) -> NDArray[Any]:
    """(H, W) or (H, W, C), as stored."""
    bits = int(page.bitspersample)
    if bits not in (8, 16, 32, 64) and int(page.compression) in (_NONE, _ADOBE_DEFLATE, _DEFLATE):
        return _unpacked(page)
    try:
        samples = page.asarray(maxworkers=1)
    except (NotImplementedError, ValueError, KeyError) as error:
        if "imagecodecs" not in str(error):
            raise
        raise InputError(
            f"a TIFF of {bits} bits with {_name(page.compression)} compression and "
            f"{_name(page.planarconfig)} samples needs the package 'imagecodecs'. Install it with: "
            "pip install 'swise-deploy[tiff]', or store the picture without compression"
        ) from error
    found: NDArray[Any] = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples
    return found


def _unpacked(page: Any) -> NDArray[np.uint16]:
    """Samples of 2 to 15 bits in strips, packed without gaps in each row (TIFF 6.0, section 3)."""
    if page.is_tiled or (int(page.planarconfig) != 1 and page.samplesperpixel > 1):
        raise InputError(
            f"a TIFF of {page.bitspersample} bits in tiles or planes. Convert it to 16 bits"
        )
    if page.predictor != 1:
        raise InputError(f"a TIFF of {page.bitspersample} bits with a predictor. Convert it")
    bits, width = int(page.bitspersample), page.imagewidth * page.samplesperpixel
    order: Any = "little" if page.fillorder == _REVERSED_BITS else "big"
    row_bytes = -(-width * bits // 8)
    values = np.zeros((page.imagelength, width), np.uint16)
    top = 0
    for segment, _ in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
        if segment is None:
            raise ValueError("a strip is missing")
        num_rows = min(page.rowsperstrip, page.imagelength - top)
        size = num_rows * row_bytes
        strip = bytes(segment)
        if int(page.compression) != _NONE:
            strip = zlib.decompressobj().decompress(strip, size)
        rows = np.frombuffer(strip, np.uint8, size).reshape(num_rows, row_bytes)
        step = max(1, _UNPACKED_AT_ONCE // width)
        for first in range(0, num_rows, step):
            part = np.unpackbits(rows[first : first + step], axis=1, bitorder=order)
            wide = np.zeros((len(part), width, 16), np.uint8)
            wide[:, :, 16 - bits :] = part[:, : width * bits].reshape(len(part), width, bits)
            packed = np.packbits(wide, axis=2).view(">u2")[:, :, 0]
            values[top + first : top + first + len(part)] = packed
        top += num_rows
    shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
    return values.reshape(shape[:2] if page.samplesperpixel == 1 else shape)


def _scaled(samples: NDArray[Any], page: Any) -> Samples:
    if samples.dtype.kind != "f":
        return stretched(samples, int(page.bitspersample))
    values = samples.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= -_FLOAT_TOLERANCE and high <= 1 + _FLOAT_TOLERANCE):  # refuses NaN as well
        raise InputError(
            f"floating-point samples from {low:g} to {high:g}; expected 0 (black) to 1 (white). "
            "Scale them"
        )
    return np.clip(values, 0, 1)


def _divided(colour: Samples, alpha: Samples) -> Samples:
    """Take the alpha out of colours into which it is multiplied."""
    wide = colour.astype(np.float64)
    share = alpha.astype(np.float64)
    peak = 1.0 if alpha.dtype == np.float32 else 65_535.0
    share = share[:, :, None] if colour.ndim == 3 else share
    plain = np.clip(
        np.divide(wide * peak, share, out=np.zeros_like(wide), where=share > 0), 0, peak
    )
    if alpha.dtype == np.float32:
        return np.asarray(plain, np.float32)
    return np.asarray(np.rint(plain), np.uint16)
