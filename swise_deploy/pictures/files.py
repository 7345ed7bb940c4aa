"""Pictures in and out: files to uint8 RGB arrays and back."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.pictures.decoding import decode
from swise_deploy.pictures.formats import SUFFIXES, WRITTEN_SUFFIXES
from swise_deploy.pictures.samples import uint8_from_samples
from swise_deploy.storage.files import read_regular, writing

__all__ = [
    "SUFFIXES",
    "RgbImage",
    "read_readable",
    "read_rgb",
    "uint8_from_samples",
    "write_image",
]

logger = logging.getLogger(__name__)

RgbImage = NDArray[np.uint8]
"""(H, W, 3), uint8, RGB, sRGB-coded."""

MAX_PICTURE_BYTES = 1 << 30
"""Size of a picture file: above that of 89 million pixels of three samples of 32 bits."""


def read_rgb(path: Path) -> RgbImage:
    """Read a picture as (H, W, 3) uint8 RGB, upright by its EXIF or XMP orientation.

    Greyscale is repeated over the channels, transparency is dropped, 16 bits become 8. Of
    several pages or frames the first is read.

    Raises:
        InputError: The file is missing, is no picture, is truncated, or is suspiciously large.
    """
    try:
        picture = decode(read_regular(path, max_bytes=MAX_PICTURE_BYTES), first_of_many=True)
    except FileNotFoundError as error:
        raise InputError(f"no picture at {path}. Check the path") from error
    except OSError as error:
        raise InputError(f"cannot read picture {path}: {error.strerror or error}") from error
    except InputError as error:
        raise InputError(f"cannot read picture {path}: {error}") from error
    eight_bit = uint8_from_samples(picture.colour)
    return eight_bit if eight_bit.ndim == 3 else np.repeat(eight_bit[:, :, None], 3, axis=2)


def write_image(path: Path, image: RgbImage) -> None:
    """Write a picture, whole or not at all; the format follows from the suffix.

    Raises:
        InputError: The suffix names no picture format.
        OutputError: The file cannot be written.
    """
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise InputError(
            f"cannot write {path}: expected a suffix among {', '.join(sorted(WRITTEN_SUFFIXES))}"
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
