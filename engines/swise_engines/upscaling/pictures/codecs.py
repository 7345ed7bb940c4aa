"""Still pictures with all that they hold: 8 and 16 bits, greyscale, transparency, metadata."""

import io
import logging
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from swise_deploy.errors import InputError, OutputError
from swise_deploy.pictures.files import MAX_INPUT_PIXELS
from swise_engines.upscaling.pictures.metadata import (
    Metadata,
    exif_for_size,
    metadata_from_image,
    png_notes,
)
from swise_engines.upscaling.pictures.sixteen_bit import (
    deep_from_bytes,
    is_deep,
    png_from_deep,
    tiff_from_samples,
)

logger = logging.getLogger(__name__)

Samples = NDArray[np.unsignedinteger]
"""uint8 or uint16."""

Format = Literal["png", "jpg", "webp", "tiff", "bmp"]
FORMATS: tuple[Format, ...] = get_args(Format)
_FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
}
_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_DEEP_FORMATS = ("png", "tiff")
_OPAQUE_FORMATS = ("jpg", "bmp")
_MAX_SIDE = {"jpg": 65_535, "webp": 16_383}

MAX_OUTPUT_PIXELS = 400_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A still picture, upright.

    Attributes:
        colour: (H, W, 3) RGB or (H, W) greyscale; uint8 or uint16.
        alpha: (H, W), of the same dtype; None where the picture is opaque.
        metadata: What the file holds beside the pixels.
    """

    colour: Samples
    alpha: Samples | None
    metadata: Metadata

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.colour.shape[1], self.colour.shape[0]


def format_of(suffix: str) -> Format:
    """Name the picture format of a file suffix such as ".png".

    Raises:
        InputError: The suffix names no picture format.
    """
    try:
        return _FORMAT_OF_SUFFIX[suffix.lower()]
    except KeyError as error:
        raise InputError(
            f"suffix {suffix!r} names no picture format. "
            f"Expected one of {', '.join(_FORMAT_OF_SUFFIX)}"
        ) from error


def decode_picture(data: bytes) -> Picture:
    """Decode a PNG, JPEG, WebP, TIFF or BMP file.

    A palette becomes RGB, CMYK becomes sRGB through its profile, black-and-white becomes greyscale.

    Raises:
        InputError: The bytes are no such picture, are damaged, hold more than one frame, or unpack
            to more than MAX_INPUT_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_READABLE) as image:
            _refuse_unusable(image)
            if is_deep(image):
                upright = ImageOps.exif_transpose(image)
                return _picture(deep_from_bytes(data), metadata_from_image(image, upright))
            upright = _plain_mode(ImageOps.exif_transpose(image))
            return _picture(np.asarray(upright), metadata_from_image(image, upright))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError("not a PNG, JPEG, WebP, TIFF or BMP picture, or damaged") from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise InputError(f"damaged or not supported: {error or type(error).__name__}") from error


def _refuse_unusable(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_INPUT_PIXELS:
        raise InputError(
            f"{width}x{height} are {width * height:,} pixels, more than the "
            f"{MAX_INPUT_PIXELS:,} that are accepted. Cut it into parts"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # further MPO frames are previews and depth maps
        raise InputError(
            f"it holds {frames} frames or pages; expected a still picture. "
            "Split it, or give a video"
        )
    if image.mode in ("F", "I") or image.mode.startswith("I;32"):
        raise InputError(
            f"samples of 32 bits (mode {image.mode}) are not supported. Convert it to 16 bits"
        )
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (8,))
    if image.mode not in ("I;16", "I;16B") and max(bits) > 8 and not is_deep(image):
        raise InputError(
            f"TIFF with {bits} bits a sample, stored plane by plane or otherwise unusually, is not "
            "supported. Store its channels interleaved"
        )


def _plain_mode(image: Image.Image) -> Image.Image:
    """Turn any mode into L, LA, RGB, RGBA or I;16."""
    if image.mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        transparent = "transparency" in image.info and image.mode in ("L", "RGB")
        return image.convert("LA" if image.mode == "L" else "RGBA") if transparent else image
    if image.mode.startswith("I;16"):
        return image.convert("I;16")
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "CMYK":
        return _srgb_from_cmyk(image)
    transparent = "transparency" in image.info or image.mode in ("PA", "La", "RGBa")
    return image.convert("RGBA" if transparent else "RGB")


def _srgb_from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.pop("icc_profile", None)
    if profile is None:
        return image.convert("RGB")
    converted = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
    )
    if converted is None:
        raise InputError("its CMYK profile cannot be applied. Convert it to RGB")
    converted.info.pop("icc_profile", None)
    return converted


def _picture(samples: NDArray[np.generic], metadata: Metadata) -> Picture:
    dtype = np.uint8 if samples.dtype == np.uint8 else np.uint16
    pixels: Samples = samples.astype(dtype, copy=False)
    if pixels.ndim == 2:
        return Picture(pixels, None, metadata)
    channels = pixels.shape[2]
    colour = pixels[:, :, 0] if channels < 3 else pixels[:, :, :3]
    alpha = pixels[:, :, -1] if channels in (2, 4) else None
    return Picture(colour, alpha, metadata)


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
    if picture.alpha is not None and file_format in _OPAQUE_FORMATS:
        raise InputError(f"it is transparent, which {file_format} cannot hold. Use --format png")
    if picture.colour.dtype == np.uint16 and file_format not in _DEEP_FORMATS:
        raise InputError(
            f"it has 16 bits a channel, which {file_format} cannot hold. Use --format png or tiff"
        )


def encode_picture(picture: Picture, file_format: Format, *, quality: int = 95) -> bytes:
    """Encode a picture with its metadata.

    Greyscale with transparency becomes RGB with transparency where few programs read the former.

    Args:
        picture: What to encode; 16 bits need png or tiff, transparency png, tiff or webp.
        file_format: BMP holds no metadata but the resolution.
        quality: 1 to 100, for jpg and webp; webp at 100 is lossless.

    Raises:
        OutputError: The format cannot hold it, such as a JPEG more than 64 KiB of EXIF.
    """
    try:
        return _encoded(picture, file_format, quality)
    except Exception as error:  # encoders raise anything on odd metadata
        raise OutputError(
            f"{file_format} cannot hold it: {error or type(error).__name__}. Use --format png"
        ) from error


def _encoded(picture: Picture, file_format: Format, quality: int) -> bytes:
    metadata = picture.metadata
    samples = picture.colour
    if picture.alpha is not None:
        samples = _stack(samples, picture.alpha)
    if file_format == "tiff":
        return tiff_from_samples(samples, metadata)
    if samples.dtype == np.uint16:
        deep = samples.astype(np.uint16, copy=False)
        return png_from_deep(deep[:, :, None] if deep.ndim == 2 else deep, metadata)
    if file_format == "webp" and samples.ndim == 3 and samples.shape[2] == 2:
        samples = samples[:, :, [0, 0, 0, 1]]
    image = Image.fromarray(samples)
    options: dict[str, object] = {}
    if metadata.icc is not None:
        options["icc_profile"] = metadata.icc
    exif = exif_for_size(metadata, *picture.size)
    if len(exif):
        options["exif"] = exif
    if metadata.dpi is not None and file_format != "webp":
        options["dpi"] = metadata.dpi
    options |= _format_options(file_format, metadata, quality)
    file = io.BytesIO()
    image.save(file, _PILLOW_NAMES[file_format], **options)
    return file.getvalue()


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
}


def _format_options(file_format: Format, metadata: Metadata, quality: int) -> dict[str, object]:
    if file_format == "png":
        return {"pnginfo": png_notes(metadata)}
    if file_format == "bmp":
        return {}
    options: dict[str, object] = {"quality": quality}
    if metadata.xmp is not None:
        options["xmp"] = metadata.xmp
    if file_format == "webp":
        return options | {"lossless": quality == 100, "exact": True}
    if metadata.comment is not None:
        options["comment"] = metadata.comment
    return options | {"subsampling": "4:4:4"}
