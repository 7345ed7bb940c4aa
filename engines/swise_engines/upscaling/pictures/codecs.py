"""Still pictures with their metadata: decoded, checked against a format, encoded."""

import io
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from swise_deploy.errors import InputError, OutputError
from swise_deploy.pictures.decoding import decode, icc_space
from swise_deploy.pictures.formats import Format
from swise_deploy.pictures.samples import Samples, peak_of
from swise_engines.upscaling.pictures.metadata import (
    Metadata,
    exif_for_size,
    metadata_of,
    photoshop_segment,
    png_notes,
)
from swise_engines.upscaling.pictures.writers import png_from_deep, tiff_from_samples

logger = logging.getLogger(__name__)

_DEEP_FORMATS = ("png", "tiff")
_OPAQUE_FORMATS = ("jpg", "bmp")
_MAX_SIDE = {"jpg": 65_535, "webp": 16_383, "avif": 65_536}
DEFAULT_QUALITY = 95

MAX_OUTPUT_PIXELS = 400_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A still picture, upright.

    Attributes:
        colour: (H, W, 3) RGB or (H, W) greyscale; uint8, uint16, or float32 in [0, 1].
        alpha: (H, W), of the same dtype; None where the picture is opaque.
        metadata: Everything that the file holds beside the pixels.
        is_lossless_webp: True if it was read from a WebP file without loss.
    """

    colour: Samples
    alpha: Samples | None
    metadata: Metadata
    is_lossless_webp: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.colour.shape[1], self.colour.shape[0]

    @property
    def is_opaque(self) -> bool:
        """True without an alpha channel, and with one that is opaque everywhere."""
        return self.alpha is None or bool((self.alpha == peak_of(self.alpha.dtype)).all())


def decode_picture(data: bytes) -> Picture:
    """Decode a picture file with its metadata; see `swise_deploy.pictures.decoding.decode`.

    Raises:
        InputError: The bytes are no supported still picture, or are damaged.
    """
    found = decode(data)
    try:
        metadata = metadata_of(found)
    except Exception as error:  # Pillow raises anything on hostile tags
        raise InputError(f"damaged metadata: {error or type(error).__name__}") from error
    return Picture(found.colour, found.alpha, metadata, is_lossless_webp=found.is_lossless_webp)


def refuse_unwritable(picture: Picture, file_format: Format, scale: int) -> None:
    """Check before the work that the upscaled picture can be written.

    Raises:
        InputError: It has too many pixels, or its format cannot hold its size or its transparency.
    """
    width, height = (side * scale for side in picture.size)
    if width * height > MAX_OUTPUT_PIXELS:
        raise InputError(
            f"the output would have {width}x{height} pixels, more than {MAX_OUTPUT_PIXELS:,}. "
            "Cut the picture into parts"
        )
    limit = _MAX_SIDE.get(file_format)
    if limit is not None and max(width, height) > limit:
        raise InputError(
            f"the output would be {width}x{height}; {file_format} holds at most {limit} a side. "
            "Use --format png"
        )
    if not picture.is_opaque and file_format in _OPAQUE_FORMATS:
        raise InputError(f"it is transparent, which {file_format} cannot hold. Use --format png")
    if picture.colour.dtype != np.uint8 and file_format not in _DEEP_FORMATS:
        bits = 8 * picture.colour.itemsize
        raise InputError(
            f"it has {bits} bits a channel, which {file_format} cannot hold. "
            "Use --format png or tiff"
        )


def encode_picture(picture: Picture, file_format: Format, *, quality: int | None = None) -> bytes:
    """Encode a picture with its metadata.

    Floating point becomes 16 bits in PNG. Greyscale with transparency becomes RGB with transparency
    in WebP, AVIF, and TIFF without a grey profile, as few programs read the former.

    Args:
        picture: What to encode; more than 8 bits need png or tiff, transparency also webp or avif.
        file_format: BMP holds no metadata but the resolution.
        quality: 1 to 100, for jpg, webp and avif; webp at 100 is lossless. None is 95, and lossless
            for a picture from a lossless WebP file.

    Raises:
        OutputError: The format cannot hold it, such as a JPEG more than 64 KiB of EXIF.
    """
    try:
        return _encoded(picture, file_format, quality)
    except Exception as error:  # encoders raise anything on odd metadata
        raise OutputError(
            f"{file_format} cannot hold it: {error or type(error).__name__}. Use --format png"
        ) from error


def _encoded(picture: Picture, file_format: Format, quality: int | None) -> bytes:
    metadata = picture.metadata
    if metadata.has_other_colours and file_format != "png":
        logger.warning(
            "the gamma or the primaries of a PNG (gAMA, cHRM, cICP) are left out: %s has no place "
            "for them, and its colours will look different",
            file_format,
        )
    if metadata.iptc is not None and file_format not in ("jpg", "tiff"):
        logger.warning("IPTC captions are left out: %s has no place for them", file_format)
    samples = picture.colour
    if picture.alpha is not None and file_format not in _OPAQUE_FORMATS:
        samples = _stack(samples, picture.alpha)
    if file_format == "tiff":
        is_grey_alpha = samples.ndim == 3 and samples.shape[2] == 2
        if is_grey_alpha and icc_space(metadata.icc) != "GRAY":
            samples = samples[:, :, [0, 0, 0, 1]]
        return tiff_from_samples(samples, metadata)
    if samples.dtype != np.uint8:
        deep = _sixteen_bit(samples)
        return png_from_deep(deep[:, :, None] if deep.ndim == 2 else deep, metadata)
    image, profile = Image.fromarray(samples), metadata.icc
    if file_format in ("webp", "avif") and image.mode in ("L", "LA"):
        image, profile = _rgb_from_grey(image, profile)
    options: dict[str, object] = {}
    if profile is not None:
        options["icc_profile"] = profile
    has_resolution = file_format not in ("webp", "avif")
    exif = exif_for_size(metadata, *picture.size, with_resolution=not has_resolution)
    if len(exif):
        options["exif"] = exif
    if metadata.dpi is not None and has_resolution:
        options["dpi"] = metadata.dpi
    if quality is None and picture.is_lossless_webp and file_format == "webp":
        quality = 100
    if metadata.iptc is not None and file_format == "jpg":
        options["extra"] = photoshop_segment(metadata.iptc)
    options |= _format_options(file_format, metadata, quality or DEFAULT_QUALITY)
    file = io.BytesIO()
    image.save(file, _PILLOW_NAMES[file_format], **options)
    return file.getvalue()


def _sixteen_bit(samples: Samples) -> NDArray[np.uint16]:
    if samples.dtype == np.float32:
        return np.asarray(np.rint(samples * np.float32(65_535)), np.uint16)
    return samples.astype(np.uint16, copy=False)


def _rgb_from_grey(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """RGB(A) of a grey picture, with the profile that holds for it: a grey one is applied."""
    if profile is None or icc_space(profile) != "GRAY":
        return image.convert("RGBA" if image.mode == "LA" else "RGB"), profile
    grey = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    rgb = ImageCms.profileToProfile(image.getchannel(0), grey, srgb, outputMode="RGB")
    assert rgb is not None, "only conversions in place give None"
    rgb.info.pop("icc_profile", None)  # Pillow's AVIF writer would take it
    if image.mode == "LA":
        rgb.putalpha(image.getchannel("A"))
    return rgb, None


def _stack(colour: Samples, alpha: Samples) -> Samples:
    height, width = alpha.shape
    stacked: Samples = np.concatenate(
        [colour.reshape(height, width, -1), alpha[:, :, None]], axis=2
    )
    return stacked


_PILLOW_NAMES: dict[Format, str] = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WEBP",
    "bmp": "BMP",
    "avif": "AVIF",
}


def _format_options(file_format: Format, metadata: Metadata, quality: int) -> dict[str, object]:
    if file_format == "png":
        return {"pnginfo": png_notes(metadata)}
    if file_format == "bmp":
        return {}
    options: dict[str, object] = {"quality": quality}
    if metadata.xmp is not None:
        options["xmp"] = metadata.xmp
    if file_format == "avif":
        return options | {"subsampling": "4:4:4"}
    if file_format == "webp":
        return options | {"lossless": quality == 100, "exact": True}
    if metadata.comment is not None:
        options["comment"] = metadata.comment
    return options | {"subsampling": "4:4:4"}
