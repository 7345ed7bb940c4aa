"""TIFF beyond what Pillow unpacks: any depth, byte order, planes, floating point, Lab, CMYK.

Pillow (libtiff) unpacks every compression, but only 16-bit grey and interleaved 16-bit colour of
what has more than 8 bits; the rest is read by its strips, with tifffile for the directories.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from swise_deploy.errors import InputError
from swise_deploy.pictures.colour import D50, srgb_from_lab
from swise_deploy.pictures.formats import refuse_size
from swise_deploy.pictures.samples import Samples, peak_of, stretched
from swise_deploy.pictures.tiff_segments import COMPRESSIONS, page_samples

if TYPE_CHECKING:
    import tifffile

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Tags and values of TIFF 6.0.
(
    _NEW_SUBFILE_TYPE,
    _SUBFILE_TYPE,
    _SAMPLE_FORMAT,
) = 254, 255, 339
_REDUCED_OR_MASK = 1 | 4
_OLD_REDUCED = 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_CIE_LAB, _ICC_LAB = 8, 9
# Samples of a pixel without alpha, by photometric interpretation.
_NUM_COLOURS = {
    _WHITE_IS_ZERO: 1,
    _BLACK_IS_ZERO: 1,
    _RGB: 3,
    _PALETTE: 1,
    _CMYK: 4,
    _CIE_LAB: 3,
    _ICC_LAB: 3,
}
_WHITE_POINT, _INK_SET, _CMYK_INKS = 318, 332, 1
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
_UNSIGNED = 1
_WEBP = 50_001
_FILL_ORDER, _REVERSED_BITS = 266, 2
# Editors that resample overshoot by about this much.
_FLOAT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class TiffPage:
    """Pixels of a TIFF page over their whole range; black, or no ink, is 0.

    Attributes:
        colour: (H, W, 3) RGB, (H, W) greyscale, or (H, W, 4) CMYK.
        alpha: (H, W), not multiplied into the colour; None where there is none.
        exif: All tags of the page.
        is_cmyk: True where `colour` holds inks.
        has_srgb: True where `colour` was brought to sRGB, whatever the profile of the file says.
    """

    colour: Samples
    alpha: Samples | None
    exif: Image.Exif
    is_cmyk: bool = False
    has_srgb: bool = False


def is_tiff(data: bytes) -> bool:
    """True if the first bytes are those of a TIFF or BigTIFF."""
    return data[:4] in SIGNATURES


def main_frame(image: Image.Image, *, first_of_many: bool) -> int | None:
    """Index of the page that is no thumbnail and no mask.

    Returns:
        The index, or None where all are: then a page inside one of them may be the picture.

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
    return found[0] if found else None


def _is_secondary(tags: Any) -> bool:  # of Pillow, or a dictionary
    return bool(
        int(tags.get(_NEW_SUBFILE_TYPE, 0)) & _REDUCED_OR_MASK
        or int(tags.get(_SUBFILE_TYPE, 0)) == _OLD_REDUCED
    )


def _several_pages(number: int) -> InputError:
    return InputError(f"it holds {number} frames or pages; expected a still picture. Split it")


def needs_segments(image: Image.Image) -> bool:
    """True if the page at which an opened TIFF stands is not read with Pillow's 8-bit modes."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(ExifTags.Base.BitsPerSample, (1,))
    compression = tags.get(ExifTags.Base.Compression)
    return (
        max(bits) > 8
        or any(kind != _UNSIGNED for kind in tags.get(_SAMPLE_FORMAT, ()))
        or tags.get(ExifTags.Base.PhotometricInterpretation) in (_CIE_LAB, _ICC_LAB)
        # Pillow forgets the reversed bits of some layouts; its libtiff is built without WebP.
        or (tags.get(_FILL_ORDER) == _REVERSED_BITS and compression in COMPRESSIONS)
        or compression == _WEBP
    )


def decode_page(data: bytes, *, first_of_many: bool = False) -> TiffPage:
    """Decode the page with the picture, where Pillow's 8-bit modes do not hold it.

    Args:
        data: The file.
        first_of_many: Read the first of several pages instead of refusing them.

    Raises:
        InputError: The samples are of a kind that is not supported.
    """
    import tifffile  # slow to import, and needed for few files

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page, described = _main_page(file, first_of_many)
        refuse_size(page.imagewidth, page.imagelength)
        _refuse_layout(page)
        photometric = int(page.photometric)
        samples = _page_samples(data, page)
        if samples.ndim == 2:
            samples = samples[:, :, None]
        exif = _tags_of(data, file, *((page,) if page is described else (described, page)))
    num_colours = _NUM_COLOURS[photometric]
    if photometric == _PALETTE:
        return TiffPage(_from_palette(samples[:, :, 0], page), None, exif)
    samples = _scaled(samples, page)
    colour = samples[:, :, :num_colours] if num_colours > 1 else samples[:, :, 0]
    extra = [int(kind) for kind in page.extrasamples]
    is_alpha = bool(extra) and extra[0] in (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA)
    alpha = samples[:, :, num_colours] if is_alpha else None
    if alpha is not None and extra[0] == _ASSOCIATED_ALPHA:
        colour = _divided(colour, alpha)
    if photometric in (_CIE_LAB, _ICC_LAB):
        is_signed = photometric == _CIE_LAB
        lab = np.asarray(colour, f"u{colour.itemsize}")
        srgb = srgb_from_lab(lab, is_signed=is_signed, white=_white_of(exif))
        return TiffPage(srgb, alpha, exif, has_srgb=True)
    if photometric == _CMYK:
        return TiffPage(colour, alpha, exif, is_cmyk=True)
    return TiffPage(_black_is_zero(colour, photometric), alpha, exif)


def _black_is_zero(samples: Samples, photometric: int) -> Samples:
    if photometric != _WHITE_IS_ZERO:
        return samples
    white: Samples = np.array(peak_of(samples.dtype), samples.dtype)
    return np.subtract(white, samples)


def _main_page(file: "tifffile.TiffFile", first_of_many: bool) -> tuple[Any, Any]:
    """The page with the picture, and the one with what is said of it: usually the same.

    Raw converters and scanners put the picture inside the page of its thumbnail.
    """
    pages: list[Any] = []
    for page in file.pages:
        if not _is_secondary_page(page):
            pages.append(page)
            if first_of_many:
                break
        if len(pages) > 1:
            raise _several_pages(len(file.pages))
    if pages:
        return pages[0], pages[0]
    for page in file.pages:
        for inner in getattr(page, "pages", None) or ():
            if not _is_secondary_page(inner):
                return inner, page
    return file.pages[0], file.pages[0]


def _is_secondary_page(page: Any) -> bool:  # tifffile's types leave out what pages have
    tags = getattr(page, "tags", None)
    return _is_secondary({} if tags is None else {tag.code: tag.value for tag in tags.values()})


def _tags_of(data: bytes, file: "tifffile.TiffFile", *pages: Any) -> Image.Exif:
    """The tags of several pages; those of later ones count."""
    exif = Image.Exif()
    for page in pages:
        tags = Image.Exif()
        tags.endian, tags.bigtiff = file.byteorder, file.is_bigtiff
        tags.load_from_fp(io.BytesIO(data), page.offset)
        if not len(exif):
            exif = tags
        else:
            exif.update(tags)
    return exif


# TIFF 6.0, section 19.
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}


def _refuse_layout(page: Any) -> None:
    photometric, inks = int(page.photometric), page.tags.get(_INK_SET)
    if photometric not in _NUM_COLOURS or (inks is not None and inks.value != _CMYK_INKS):
        raise InputError(
            f"a TIFF of {page.bitspersample} bits whose colours are {_name(page.photometric)}; "
            "expected greyscale, RGB, CMYK or Lab. Convert it to RGB"
        )
    kind, bits = int(page.sampleformat), int(page.bitspersample)
    is_unsigned = kind == _UNSIGNED and bits <= 16
    if photometric in (_CIE_LAB, _ICC_LAB):
        is_unsigned = bits in (8, 16)  # two's complement, whatever the format says
    is_float = page.dtype is not None and page.dtype.kind == "f"
    is_float &= photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    num_samples = page.samplesperpixel
    is_known = _NUM_COLOURS[photometric] <= num_samples <= 5 and page.imagedepth == 1
    if not (is_unsigned or is_float) or not is_known:
        raise InputError(
            f"a TIFF with {num_samples} {_SAMPLE_FORMATS.get(kind, 'unknown')} samples a "
            f"pixel of {bits} bits; expected grey or RGB, unsigned of up to 16 bits or floating "
            "point. Convert it to 16 bits"
        )


def _name(value: object) -> str:
    return str(getattr(value, "name", value))


def _page_samples(data: bytes, page: Any) -> NDArray[Any]:
    """(H, W) or (H, W, C), as stored."""
    if int(page.compression) in COMPRESSIONS:
        return page_samples(data, page)
    try:
        samples = page.asarray(maxworkers=1)
    except (NotImplementedError, ValueError, KeyError) as error:
        if "imagecodecs" not in str(error):
            raise
        raise InputError(
            f"a TIFF with {_name(page.compression)} compression needs the package 'imagecodecs'. "
            "Install it with: pip install 'swise-deploy[tiff]', or store the picture with LZW or "
            "ZIP compression, or with none"
        ) from error
    found: NDArray[Any] = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples
    return found


def _scaled(samples: NDArray[Any], page: Any) -> Samples:
    if int(page.photometric) in (_CIE_LAB, _ICC_LAB):
        return samples.view(f"u{samples.itemsize}")
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


def _from_palette(indices: NDArray[Any], page: Any) -> Samples:
    """(H, W, 3), uint8 for up to 256 colours, as Pillow reads them, else uint16."""
    colours = np.asarray(page.colormap, np.uint16).T
    if len(colours) <= 256:
        colours = (colours >> 8).astype(np.uint8)
    found: Samples = colours[indices]
    return found


def _white_of(tags: Image.Exif) -> tuple[float, float]:
    """Chromaticity of the white of Lab; that of ICC and of libtiff where none is stated."""
    stated = tags.get(_WHITE_POINT)
    if isinstance(stated, tuple) and len(stated) == 2:
        x, y = float(stated[0]), float(stated[1])
        if x > 0 and y > 0 and x + y < 1:  # refuses NaN as well
            return x, y
    return D50


def _divided(colour: Samples, alpha: Samples) -> Samples:
    """Take the alpha out of colours into which it is multiplied."""
    wide = colour.astype(np.float64)
    share = alpha.astype(np.float64)
    peak = peak_of(alpha.dtype)
    share = share[:, :, None] if colour.ndim == 3 else share
    plain = np.clip(
        np.divide(wide * peak, share, out=np.zeros_like(wide), where=share > 0), 0, peak
    )
    return (plain if alpha.dtype == np.float32 else np.rint(plain)).astype(alpha.dtype)
