"""The picture decoder: bytes of any supported format to upright pixels at full depth."""

import io
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from swise_deploy.errors import InputError
from swise_deploy.pictures.bmp import decode_bit_fields, holds_bit_fields
from swise_deploy.pictures.colour import rgb_from_cmyk
from swise_deploy.pictures.formats import (
    ANIMATIONS,
    FORMAT_NAMES,
    PILLOW_READERS,
    refuse_size,
    unsupported_name,
)
from swise_deploy.pictures.png import (
    bit_depth,
    colour_chunks,
    deep_colour,
    holds_deep_colour,
    key_alpha,
)
from swise_deploy.pictures.samples import Samples, uint8_from_samples
from swise_deploy.pictures.tiff import (
    TiffPage,
    decode_page,
    is_tiff,
    main_frame,
    needs_segments,
)

logger = logging.getLogger(__name__)

_TIFF_XMP = 700  # Adobe XMP specification, part 3
_TIFF_ICC = 34675
_NO_UNIT, _CENTIMETRES, _CM_PER_INCH = 1, 3, 2.54
_XMP_ORIENTATION = re.compile(
    rb"""\btiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*(?:["']|<)""",
)
_AV1_CONFIG = b"av1C"
_AV1_HIGH_DEPTH = 0x40  # AV1 in ISOBMFF, 2.3.3: high_bitdepth


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """Pixels, upright, and the metadata as the file holds them.

    Attributes:
        colour: (H, W, 3) RGB or (H, W) greyscale.
        alpha: (H, W), of the same dtype; None where the picture is opaque.
        info: Pillow's facts about the file: "icc_profile", "xmp", "dpi", "comment"; and
            "colour_chunks" of a PNG, by name.
        exif: EXIF tags as stored, orientation included.
        text: Notes of a PNG.
        orientation: EXIF orientation, 1 to 8, that was applied to the pixels.
        is_lossless_webp: True for a WebP file without loss.
    """

    colour: Samples
    alpha: Samples | None
    info: Mapping[str, object]
    exif: Image.Exif
    text: Mapping[str, str]
    orientation: int = 1
    is_lossless_webp: bool = False


def decode(data: bytes, *, first_of_many: bool = False) -> DecodedPicture:
    """Decode a picture file; the format follows from its content.

    A palette becomes RGB, CMYK and Lab become sRGB, black-and-white becomes greyscale, 9 to 15 bits
    become 16.

    Args:
        data: The file.
        first_of_many: Read the first of several frames or pages instead of refusing them.

    Raises:
        InputError: The bytes are no supported picture, are damaged, hold several frames, or unpack
            to more than MAX_INPUT_PIXELS or a side of more than MAX_INPUT_SIDE.
    """
    try:
        return _decoded(data, first_of_many)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        name = unsupported_name(data)
        if name is not None:
            raise InputError(
                f"{name} is not supported. Expected {FORMAT_NAMES}: convert it to PNG"
            ) from error
        raise InputError(f"no {FORMAT_NAMES} picture, or a damaged one") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"it is refused: {error}") from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise InputError(f"damaged or not supported: {error or type(error).__name__}") from error


def _decoded(data: bytes, first_of_many: bool) -> DecodedPicture:
    if holds_bit_fields(data):
        fields = decode_bit_fields(data)
        stated = {} if fields.dpi is None else {"dpi": fields.dpi}
        return DecodedPicture(fields.colour, fields.alpha, stated, Image.Exif(), {})
    try:
        image = Image.open(io.BytesIO(data), formats=PILLOW_READERS)
    except UnidentifiedImageError:
        if not is_tiff(data):
            raise
        return _picture_of_page(decode_page(data, first_of_many=first_of_many))
    with image:
        refuse_size(*image.size)
        if image.format == "TIFF":
            return _decode_tiff(data, image, first_of_many)
        if not first_of_many:
            _refuse_frames(image)
        _warn_of_lost_depth(data, image)
        colour, alpha, has_srgb = _pixels(data, image)  # first: getexif loads a PNG
        exif, info, text = image.getexif(), dict(image.info), dict(getattr(image, "text", {}))
        if has_srgb:
            info.pop("icc_profile", None)
        info["colour_chunks"] = colour_chunks(data)
        orientation = _orientation(exif, info, text)
        if image.format == "AVIF":
            orientation = _avif_orientation(info)
        is_lossless = _is_lossless_webp(data)
        return _upright(
            colour, alpha, info, exif, text, orientation=orientation, is_lossless=is_lossless
        )


def _decode_tiff(data: bytes, image: Image.Image, first_of_many: bool) -> DecodedPicture:
    try:
        frame = main_frame(image, first_of_many=first_of_many)
        if frame is not None:
            image.seek(frame)
            refuse_size(*image.size)
    except (SyntaxError, KeyError):  # Pillow does not know the layout of a later page
        frame = None
    if frame is None or needs_segments(image):
        return _picture_of_page(decode_page(data, first_of_many=first_of_many))
    info, stated = dict(image.info), image.getexif().get(ExifTags.Base.Orientation)
    orientation = _orientation(image.getexif(), info, {})
    colour, alpha, has_srgb = _pixels(data, image)
    exif = image.getexif()
    # Pillow turns a TIFF while it loads it, and removes what says so.
    is_turned = stated != exif.get(ExifTags.Base.Orientation)
    if has_srgb:
        info.pop("icc_profile", None)
    return _upright(colour, alpha, info, exif, {}, orientation=orientation, is_turned=is_turned)


def _picture_of_page(page: TiffPage) -> DecodedPicture:
    info = _tiff_info(page.exif)
    colour = _srgb_from_inks(page.colour, info) if page.is_cmyk else page.colour
    if page.is_cmyk or page.has_srgb:
        info.pop("icc_profile", None)
    alpha = page.alpha
    if alpha is not None and alpha.dtype != colour.dtype:
        alpha = uint8_from_samples(alpha)
    orientation = _orientation(page.exif, info, {})
    return _upright(colour, alpha, info, page.exif, {}, orientation=orientation)


def _srgb_from_inks(cmyk: Samples, info: Mapping[Any, object]) -> Samples:
    """Convert (H, W, 4) inks to sRGB: with a profile in 8 bits, all that Pillow converts."""
    profile = info.get("icc_profile")
    if cmyk.dtype == np.uint16 and icc_space(profile) != "CMYK":
        return rgb_from_cmyk(np.asarray(cmyk, np.uint16))
    if cmyk.dtype == np.uint16:
        logger.warning("a CMYK picture of 16 bits is read with 8, to apply its profile")
    image = Image.fromarray(np.ascontiguousarray(uint8_from_samples(cmyk)), "CMYK")
    image.info["icc_profile"] = profile
    return np.asarray(_srgb_from_cmyk(image))


def _tiff_info(exif: Image.Exif) -> dict[Any, object]:
    """Profile and XMP packet, as Pillow's `info` has them for the TIFF files that it reads."""
    info: dict[Any, object] = {}
    if isinstance(icc := exif.get(_TIFF_ICC), bytes):
        info["icc_profile"] = icc
    if isinstance(xmp := exif.get(_TIFF_XMP), bytes):
        info["xmp"] = xmp
    return info


def _stated_dpi(exif: Image.Exif) -> tuple[float, float] | None:
    """Pixels per inch by the tags of TIFF, which EXIF has too."""
    x, y = (exif.get(tag) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
    unit = exif.get(ExifTags.Base.ResolutionUnit)
    if not (isinstance(x, Real) and isinstance(y, Real)) or unit == _NO_UNIT:
        return None
    per_inch = _CM_PER_INCH if unit == _CENTIMETRES else 1.0
    return float(x) * per_inch, float(y) * per_inch


def _refuse_frames(image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # further MPO frames are previews and depth maps
        as_video = ", or give it alone with a video such as out.mp4 as output"
        raise InputError(
            f"it holds {frames} frames; expected a still picture. Split it"
            f"{as_video if image.format in ANIMATIONS else ''}"
        )


def _warn_of_lost_depth(data: bytes, image: Image.Image) -> None:
    place = data.find(_AV1_CONFIG) if image.format == "AVIF" else -1
    if place >= 0 and data[place + 6] & _AV1_HIGH_DEPTH:
        logger.warning("an AVIF picture of 10 or 12 bits is read with 8, all that Pillow decodes")


def _is_lossless_webp(data: bytes) -> bool:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    place = 12
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        place += 8 + size + size % 2
    return False


def _pixels(data: bytes, image: Image.Image) -> tuple[Samples, Samples | None, bool]:
    """Colour, alpha, and whether the colour was brought to sRGB by its profile."""
    if holds_deep_colour(image):
        samples = deep_colour(data)
        if image.format == "PNG" and samples.shape[2] == 3 and "transparency" in image.info:
            return samples, key_alpha(samples, image.info["transparency"], bits=16), False
        return *_split(samples), False
    key = image.info.get("transparency") if image.format == "PNG" else None
    if key is not None and image.mode in ("1", "L", "I;16", "RGB"):
        samples = _grey_or_colour(image)
        return samples, key_alpha(samples, key, bits=bit_depth(data)), False
    has_srgb = image.mode == "CMYK"
    plain = _plain_mode(image)
    return *_split(_grey_or_colour(plain)), has_srgb


def _grey_or_colour(image: Image.Image) -> NDArray[Any]:
    samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    return samples.astype(np.uint16) if samples.dtype.itemsize == 2 else samples


def _split(samples: NDArray[Any]) -> tuple[Samples, Samples | None]:
    if samples.ndim == 2:
        return samples, None
    channels = samples.shape[2]
    colour = samples[:, :, 0] if channels < 3 else samples[:, :, :3]
    return colour, samples[:, :, -1] if channels in (2, 4) else None


def _plain_mode(image: Image.Image) -> Image.Image:
    """Turn any mode into 1, L, LA, RGB, RGBA or I;16."""
    if image.mode in ("1", "L", "LA", "RGB", "RGBA", "I;16"):
        transparent = "transparency" in image.info and image.mode in ("L", "RGB")
        return image.convert("LA" if image.mode == "L" else "RGBA") if transparent else image
    if image.mode == "CMYK":
        return _srgb_from_cmyk(image)
    if image.mode == "La":
        return image.convert("LA")
    transparent = "transparency" in image.info or image.mode in ("PA", "RGBa")
    return image.convert("RGBA" if transparent else "RGB")


def _srgb_from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile is not None and icc_space(profile) == "CMYK":
        try:
            return _through_profile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("a CMYK profile cannot be applied and is ignored: %s", error)
    elif profile is not None:
        logger.warning("a CMYK picture has a profile of another colour space, which is ignored")
    return image.convert("RGB")


def _through_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None, "only conversions in place give None"
    return converted


def icc_space(profile: object) -> str | None:
    """The colour space of an ICC profile, such as "RGB", "GRAY" or "CMYK"; None for no profile."""
    # ICC.1:2022, 7.2: bytes 16 to 19 are the space, 36 to 39 the signature "acsp".
    if not isinstance(profile, bytes) or len(profile) < 128 or profile[36:40] != b"acsp":
        return None
    return profile[16:20].decode("ascii", "replace").strip()


def _upright(
    colour: Samples,
    alpha: Samples | None,
    info: Mapping[Any, object],
    exif: Image.Exif,
    text: Mapping[str, str],
    *,
    orientation: int,
    is_turned: bool = False,
    is_lossless: bool = False,
) -> DecodedPicture:
    dpi = info.get("dpi") or _stated_dpi(exif)
    kept = {str(key): value for key, value in info.items()}
    if isinstance(dpi, tuple):
        kept["dpi"] = dpi[::-1] if orientation >= 5 else dpi
    return DecodedPicture(
        colour=colour if is_turned else _turned(colour, orientation),
        alpha=alpha if alpha is None or is_turned else _turned(alpha, orientation),
        info=kept,
        exif=exif,
        text=text,
        orientation=orientation,
        is_lossless_webp=is_lossless,
    )


def _orientation(exif: Image.Exif, info: Mapping[Any, object], text: Mapping[str, str]) -> int:
    """EXIF orientation; that of the XMP packet where EXIF has none."""
    stored = exif.get(ExifTags.Base.Orientation)
    if stored is None:
        packet = text.get("XML:com.adobe.xmp", "").encode() or info.get("xmp")
        match = _XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
        stored = int(match[1]) if match else 1
    return stored if isinstance(stored, int) and 1 <= stored <= 8 else 1


def _avif_orientation(info: Mapping[Any, object]) -> int:
    """That of the container, which alone counts (MIAF, ISO/IEC 23000-22); Pillow puts it there."""
    exif, stored = Image.Exif(), info.get("exif")
    exif.load(stored if isinstance(stored, bytes) else b"")
    return _orientation(exif, {}, {})


def _turned(samples: Samples, orientation: int) -> Samples:
    """Turn and mirror pixels; `orientation` is that of EXIF 2.32, 4.6.4."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    turned: Samples = np.ascontiguousarray(samples[rows, columns])
    return turned
