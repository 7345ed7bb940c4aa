"""Pictures in and out: files to uint8 RGB arrays and back."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from swise_deploy.errors import InputError
from swise_deploy.storage.files import writing

logger = logging.getLogger(__name__)

RgbImage = NDArray[np.uint8]
"""(H, W, 3), uint8, RGB, sRGB-coded."""

# Pillow's own bound, fixed here so that another program's setting does not change it.
MAX_INPUT_PIXELS = 89_478_485

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


def read_rgb(path: Path) -> RgbImage:
    """Read a picture as (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Greyscale is repeated over the channels, transparency is dropped, 16 bits become 8.

    Raises:
        InputError: The file is missing, is no picture, is truncated, or is suspiciously large.
    """
    try:
        with Image.open(path) as image:
            return _decoded(image)
    except FileNotFoundError as error:
        raise InputError(f"no picture at {path}. Check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"picture {path} refused: {error}") from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise InputError(
            f"cannot read picture {path}: {error}. "
            "Expected a whole PNG, JPEG, WebP, TIFF or BMP file"
        ) from error


def _decoded(image: Image.Image) -> RgbImage:
    width, height = image.size
    if width * height > MAX_INPUT_PIXELS:
        raise Image.DecompressionBombError(
            f"{width}x{height} pixels; at most {MAX_INPUT_PIXELS:,} are accepted"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return _rgb_from_deep(upright)
    return np.asarray(upright.convert("RGB"), np.uint8)


def _rgb_from_deep(image: Image.Image) -> RgbImage:
    grey = np.asarray(image, np.float64)
    if image.mode.startswith("I"):
        grey = grey / 257.0  # 65535 becomes 255
    else:
        grey = grey * (255.0 if grey.max(initial=0.0) <= 1.0 else 1.0)
    eight_bit = np.clip(np.floor(grey + 0.5), 0, 255).astype(np.uint8)
    return np.repeat(eight_bit[:, :, None], 3, axis=2)


def write_image(path: Path, image: RgbImage) -> None:
    """Write a picture, whole or not at all; the format follows from the suffix.

    Raises:
        InputError: The suffix names no picture format.
        OutputError: The file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"cannot write {path}: expected a suffix among {', '.join(sorted(SUFFIXES))}"
        )
    with writing(path) as temporary:
        Image.fromarray(image).save(temporary)


def read_readable(paths: Sequence[Path]) -> dict[Path, RgbImage]:
    """Read many pictures; unreadable ones are reported in the log and skipped.

    Raises:
        InputError: Not one of them can be read.
    """
    images: dict[Path, RgbImage] = {}
    reason = ""
    for path in paths:
        try:
            images[path] = read_rgb(path)
        except InputError as error:
            reason = str(error)
            logger.warning("skipped: %s", error)
    if not images:
        raise InputError(f"none of {len(paths)} pictures can be read; the last: {reason}")
    return images
