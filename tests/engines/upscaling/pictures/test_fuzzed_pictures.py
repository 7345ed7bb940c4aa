"""Damaged files: hundreds of them, in every format; each is read or refused, nothing else."""

import io

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import FORMATS, Format
from swise_engines.upscaling.pictures.codecs import Picture, decode_picture, encode_picture
from swise_engines.upscaling.pictures.metadata import Metadata
from swise_engines.upscaling.stills import upscale_picture
from swise_engines.upscaling.upscaler import Upscaler

NUM_DAMAGED = 120  # of each of five formats


def whole_files():
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[271] = "Camera"
    exif[274] = 6
    metadata = Metadata(exif=exif, icc=b"profile", dpi=(72, 72), text={"Title": "x"}, xmp=b"<x/>")
    for file_format in FORMATS:
        for dtype in (np.uint8, np.uint16):
            for channels in (1, 3, 4):
                if dtype == np.uint16 and file_format not in ("png", "tiff"):
                    continue
                if channels == 4 and file_format in ("jpg", "bmp"):
                    continue
                samples = rng.integers(0, np.iinfo(dtype).max, (9, 11, channels), dtype)
                colour = samples[:, :, 0] if channels == 1 else samples[:, :, :3]
                alpha = samples[:, :, 3] if channels == 4 else None
                yield file_format, encode_picture(Picture(colour, alpha, metadata), file_format)


def damaged(data, rng):
    bad = bytearray(data)
    match rng.integers(4):
        case 0:
            return bytes(bad[: rng.integers(len(bad))])
        case 1:
            for _ in range(rng.integers(1, 20)):
                bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        case 2:
            start = rng.integers(len(bad))
            bad[start : start + rng.integers(64)] = rng.bytes(rng.integers(64))
        case 3:
            # Headers decide most: hit the first bytes.
            for _ in range(rng.integers(1, 6)):
                bad[rng.integers(min(64, len(bad)))] = rng.integers(256)
    return bytes(bad)


@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_files_are_read_or_refused(file_format, small_network):
    rng = np.random.default_rng(7)
    files = [data for name, data in whole_files() if name == file_format]
    num_refused = 0
    with Upscaler.open(small_network(radius=0)) as upscaler:
        for i in range(NUM_DAMAGED):
            data = damaged(files[i % len(files)], rng)
            try:
                picture = decode_picture(data)
            except InputError:
                num_refused += 1
                continue
            assert min(picture.size) >= 1
            if max(picture.size) <= 64:
                result = upscale_picture(upscaler, picture)
                again: Format = (
                    "png" if picture.alpha is not None or picture.colour.itemsize > 1 else "jpg"
                )
                with Image.open(io.BytesIO(encode_picture(result, again))) as image:
                    assert image.size == result.size
    assert num_refused > NUM_DAMAGED / 10
