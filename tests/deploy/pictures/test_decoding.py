"""Every kind of picture file against its specification."""

import io
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, features

from swise_deploy.errors import InputError
from swise_deploy.pictures.decoding import decode
from swise_deploy.pictures.files import read_rgb


def noise(shape: tuple[int, ...], dtype: type = np.uint16, *, below: int | None = None) -> Any:
    most = below or np.iinfo(dtype).max + 1
    return np.random.default_rng(1).integers(0, most, shape).astype(dtype)


def tiff(samples: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def packed_tiff(
    samples: NDArray[np.uint16],
    bits: int,
    *,
    photometric: int = 1,
    order: str = "<",
    deflate: bool = False,
) -> bytes:
    """One strip of samples of any depth, packed row by row (TIFF 6.0, section 3)."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    strip = b""
    for row in samples.reshape(height, -1):
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        strip += int(text, 2).to_bytes(len(text) // 8, "big")
    strip = zlib.compress(strip) if deflate else strip
    tags = [(256, width), (257, height), (259, 8 if deflate else 1), (262, photometric)]
    tags += [(273, 8), (277, channels), (278, height), (279, len(strip))]
    depth_place = 8 + len(strip) if channels > 2 else 0
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels) if channels > 2 else b""
    entries = [(tag, 4, 1, struct.pack(order + "I", value)) for tag, value in tags]
    depth_value = struct.pack(order + "HH", bits, 0) if channels == 1 else None
    entries.append((258, 3, channels, depth_value or struct.pack(order + "I", depth_place)))
    body = b"".join(struct.pack(order + "HHI", t, k, n) + v for t, k, n, v in sorted(entries))
    directory = struct.pack(order + "H", len(entries)) + body + bytes(4)
    start = 8 + len(strip) + len(depths)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return head + strip + depths + directory


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_tiff_is_black_where_its_header_says(
    order: Any, compression: str | None, photometric: str, bits: int
) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    samples = noise((7, 9), dtype)
    stored = samples if photometric == "minisblack" else np.iinfo(dtype).max - samples
    data = tiff(stored, photometric=photometric, byteorder=order, compression=compression)
    np.testing.assert_array_equal(decode(data).colour, samples)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(("channels", "photometric"), [(1, 0), (1, 1), (3, 2)])
def test_depths_between_8_and_16_bits_are_stretched_to_the_whole_range(
    bits: int, order: str, deflate: bool, channels: int, photometric: int
) -> None:
    peak = 2**bits - 1
    shape = (5, 7) if channels == 1 else (5, 7, 3)
    samples = noise(shape, below=peak + 1)
    samples.flat[:2] = 0, peak
    data = packed_tiff(samples, bits, photometric=photometric, order=order, deflate=deflate)
    shown = peak - samples if photometric == 0 else samples
    expected = np.rint(shown.astype(np.float64) * 65_535 / peak)
    np.testing.assert_array_equal(decode(data).colour, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_floating_point_keeps_its_values(dtype: type, order: Any, shape: tuple[int, ...]) -> None:
    samples: NDArray[Any] = np.random.default_rng(0).random(shape).astype(dtype)
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    picture = decode(tiff(samples, photometric=photometric, byteorder=order))
    assert picture.colour.dtype == np.float32
    np.testing.assert_array_equal(picture.colour, samples.astype(np.float32))


@pytest.mark.parametrize("values", [(0, 255.0), (-0.5, 1.0), (0.0, np.nan)])
def test_floating_point_beyond_0_and_1_is_refused_with_its_range(values: Any) -> None:
    with pytest.raises(InputError, match=f"from .* to {values[1]:g}"):
        decode(tiff(np.array([values], np.float32), photometric="minisblack"))


@pytest.mark.parametrize(
    ("dtype", "kind"), [(np.uint32, "unsigned"), (np.int16, "signed"), (np.int8, "signed")]
)
def test_other_kinds_of_numbers_are_refused(dtype: type, kind: str) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    with pytest.raises(InputError, match=f"1 {kind} samples a pixel of {bits} bits"):
        decode(tiff(np.ones((4, 4), dtype), photometric="minisblack"))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_colour_of_16_bits_keeps_every_bit(planar: str, order: Any, tile: Any) -> None:
    samples = noise((9, 20, 3))
    stored = samples if planar == "contig" else np.moveaxis(samples, -1, 0)
    data = tiff(stored, photometric="rgb", planarconfig=planar, byteorder=order, tile=tile)
    np.testing.assert_array_equal(decode(data).colour, samples)


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("num_colours", [1, 3])
def test_alpha_of_16_bits_is_kept_and_not_multiplied_in(kind: str, num_colours: int) -> None:
    colour = noise((4, 5, num_colours))
    alpha = noise((4, 5, 1)) | 0x8000
    multiplied = np.rint(colour * (alpha / 65_535)).astype(np.uint16)
    stored = np.concatenate([multiplied if kind == "assocalpha" else colour, alpha], axis=2)
    photometric = "rgb" if num_colours == 3 else "minisblack"
    data = tiff(stored, photometric=photometric, extrasamples=[kind], planarconfig="contig")
    picture = decode(data)
    np.testing.assert_array_equal(picture.alpha, alpha[:, :, 0])
    # Multiplied colours are rounded: half a step, divided by an alpha of at least one half.
    np.testing.assert_allclose(
        picture.colour.reshape(colour.shape).astype(int),
        colour,
        atol=1 if kind == "assocalpha" else 0,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("first", [True, False])
def test_the_page_that_is_no_thumbnail_is_read(dtype: type, first: bool) -> None:
    file = io.BytesIO()
    samples = np.random.default_rng(0).random((8, 12, 3))
    samples = (samples if dtype == np.float32 else samples * np.iinfo(dtype).max).astype(dtype)
    with tifffile.TiffWriter(file) as out:
        if not first:
            out.write(samples[::2, ::2], photometric="rgb", subfiletype=1)
        out.write(samples, photometric="rgb")
        if first:
            out.write(samples[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(decode(file.getvalue()).colour, samples)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_inside_the_page_of_its_thumbnail_is_read_with_the_tags_of_both(
    dtype: type,
) -> None:
    file, samples = io.BytesIO(), noise((8, 12, 3), dtype)
    with tifffile.TiffWriter(file) as out:
        make = (271, "s", 0, "Camera", True)
        out.write(samples[::4, ::4], photometric="rgb", subfiletype=1, subifds=1, extratags=[make])
        out.write(samples, photometric="rgb")
    picture = decode(file.getvalue())
    np.testing.assert_array_equal(picture.colour, samples)
    assert picture.colour.dtype == dtype
    assert picture.exif[271] == "Camera"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("num_colours", [1, 3])
def test_alpha_that_is_multiplied_in_is_taken_out(dtype: type, num_colours: int) -> None:
    peak = 1 if dtype is np.float32 else np.iinfo(dtype).max
    stored: NDArray[Any] = np.full((2, 3, num_colours + 1), 0.25 * peak).astype(dtype)
    stored[:, :, -1] = 0.5 * peak
    data = tiff(
        stored,
        photometric="rgb" if num_colours == 3 else "minisblack",
        extrasamples=["assocalpha"],
        planarconfig="contig",
    )
    picture = decode(data)
    assert picture.colour.dtype == dtype
    np.testing.assert_allclose(picture.colour / peak, 0.5, atol=2 / 255)
    assert picture.alpha is not None
    np.testing.assert_allclose(picture.alpha / peak, 0.5, atol=1 / 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_several_pages_are_refused_but_ground_truth_is_the_first(
    dtype: type, tmp_path: Path
) -> None:
    samples = noise((2, 6, 6, 3), dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(samples, photometric="rgb"))
    with pytest.raises(InputError, match="2 frames or pages"):
        decode(path.read_bytes())
    assert read_rgb(path).shape == (6, 6, 3)


def test_ground_truth_of_16_bits_is_rounded_to_8(tmp_path: Path) -> None:
    samples = noise((6, 7, 3))
    (tmp_path / "a.tif").write_bytes(tiff(samples, photometric="rgb", byteorder=">"))
    expected = np.floor(samples / 257 + 0.5)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), expected)
    grey = tiff(samples[:, :, 0], photometric="miniswhite")
    (tmp_path / "b.tif").write_bytes(grey)
    white_is_zero = np.floor((65_535 - samples[:, :, 0]) / 257 + 0.5)
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.tif")[:, :, 1], white_is_zero)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    ends = chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join([*chunks, *ends])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("key", ["first", "last"])
def test_a_transparent_grey_of_a_png_is_transparent(bits: int, key: str) -> None:
    values = [0, 2**bits - 1] * 4 if bits == 1 else [1, 2**bits - 2] * 4
    transparent = values[0] if key == "first" else values[1]
    text = "".join(f"{value:0{bits}b}" for value in values)
    row = b"\0" + int(text, 2).to_bytes(bits, "big")
    data = png(8, 1, bits, 0, row, chunk(b"tRNS", struct.pack(">H", transparent)))
    picture = decode(data)
    assert picture.alpha is not None
    peak = 65_535 if bits == 16 else 255
    assert picture.alpha.tolist() == [[0 if v == transparent else peak for v in values]]
    assert picture.colour.tolist() == [[v * peak // (2**bits - 1) for v in values]]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_of_a_png_is_transparent(bits: int) -> None:
    dtype = ">u2" if bits == 16 else "u1"
    # The second differs from the first in the low bits of one sample.
    colours = np.array([[[300 % 2**bits, 2, 3], [301 % 2**bits, 2, 3]]], dtype)
    key = struct.pack(">HHH", *colours[0, 0].tolist())
    picture = decode(png(2, 1, bits, 2, b"\0" + colours.tobytes(), chunk(b"tRNS", key)))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 2**bits - 1]]
    np.testing.assert_array_equal(picture.colour, colours)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_entry_of_a_palette_is_transparent(bits: int) -> None:
    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50])) + chunk(b"tRNS", bytes([7]))
    text = "".join(f"{value:0{bits}b}" for value in [0, 1] * 4)
    row = b"\0" + int(text, 2).to_bytes(bits, "big")
    picture = decode(png(8, 1, bits, 3, row, palette))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[7, 255] * 4]
    assert picture.colour.tolist() == [[[10, 20, 30], [200, 100, 50]] * 4]


QUARTERS = np.array([[1, 2], [3, 4], [5, 6]], np.uint8) * 40
# The standard's own words (TIFF 6.0, Orientation): where row 0 and column 0 of the file are shown.
UPRIGHT = {
    1: [[1, 2], [3, 4], [5, 6]],
    2: [[2, 1], [4, 3], [6, 5]],
    3: [[6, 5], [4, 3], [2, 1]],
    4: [[5, 6], [3, 4], [1, 2]],
    5: [[1, 3, 5], [2, 4, 6]],
    6: [[5, 3, 1], [6, 4, 2]],
    7: [[6, 4, 2], [5, 3, 1]],
    8: [[2, 4, 6], [1, 3, 5]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("where", ["exif", "xmp_attribute", "xmp_element", "tiff16", "planar"])
def test_a_picture_is_shown_upright(orientation: int, where: str) -> None:
    expected = np.array(UPRIGHT[orientation]) * 40
    file = io.BytesIO()
    image = Image.fromarray(QUARTERS)
    if where == "exif":
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(file, "PNG", exif=exif)
    elif where.startswith("xmp"):
        notes = PngImagePlugin.PngInfo()
        value = {
            "xmp_attribute": f"<d tiff:Orientation='{orientation}'/>",
            "xmp_element": f"<tiff:Orientation>{orientation}</tiff:Orientation>",
        }[where]
        notes.add_itxt("XML:com.adobe.xmp", value)
        image.save(file, "PNG", pnginfo=notes)
    else:
        samples = QUARTERS.astype(np.uint16) * 257
        extra = [(274, 3, 1, orientation, False)]
        if where == "tiff16":
            tifffile.imwrite(file, samples, photometric="minisblack", extratags=extra)
        else:
            stacked = np.stack([samples] * 3)
            tifffile.imwrite(
                file, stacked, photometric="rgb", planarconfig="separate", extratags=extra
            )
        expected = expected * 257
    colour = decode(file.getvalue()).colour
    np.testing.assert_array_equal(colour if colour.ndim == 2 else colour[:, :, 2], expected)


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("tag", "packet"), [(None, 6), (6, 6), (6, 3), (1, 6), (8, 5)])
def test_a_tiff_is_turned_once_by_its_tag_and_by_xmp_only_without_one(
    tag: int | None, packet: int, bits: int, quote: str
) -> None:
    samples = QUARTERS if bits == 8 else QUARTERS.astype(np.uint16) * 257
    xmp = f"<d tiff:Orientation={quote}{packet}{quote}/>".encode()
    extra: list[Any] = [(700, 1, len(xmp), xmp, False)]
    if tag is not None:
        extra.append((274, 3, 1, tag, False))
    file = io.BytesIO()
    tifffile.imwrite(
        file, samples, photometric="minisblack", extratags=extra, resolution=(300, 150)
    )
    picture = decode(file.getvalue())
    orientation = tag or packet
    expected = np.array(UPRIGHT[orientation]) * (40 if bits == 8 else 40 * 257)
    np.testing.assert_array_equal(picture.colour, expected)
    assert picture.orientation == orientation
    assert picture.info["dpi"] == ((150, 300) if orientation >= 5 else (300, 150))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("packet", [None, 6])
def test_an_avif_is_turned_as_its_container_says(orientation: int, packet: int | None) -> None:
    large = QUARTERS.repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    options = {} if packet is None else {"xmp": f'<d tiff:Orientation="{packet}"/>'.encode()}
    Image.fromarray(large).save(file, "AVIF", exif=exif, quality=100, **options)
    shown = decode(file.getvalue()).colour[8::16, 8::16]
    found = np.rint((shown if shown.ndim == 2 else shown[:, :, 0]) / 40)
    np.testing.assert_array_equal(found, UPRIGHT[orientation])


def profile(space: Literal["LAB", "XYZ", "sRGB"]) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def test_cmyk_with_a_profile_of_another_space_is_read_without_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(
        file, "JPEG", quality=100, icc_profile=profile("sRGB")
    )
    picture = decode(file.getvalue())
    assert picture.colour[4, 4, 0] > 240
    assert picture.colour[4, 4, 1:].max() < 15
    assert "icc_profile" not in picture.info
    assert "profile" in caplog.text


def test_lab_becomes_srgb() -> None:
    file = io.BytesIO()
    # L* 53.2, a* 80.1, b* 67.2 is sRGB's red; Pillow stores L* times 2.55 and a* and b* plus 128.
    Image.new("LAB", (4, 4), (136, 208, 195)).save(file, "TIFF")
    red, green, blue = decode(file.getvalue()).colour[0, 0].tolist()
    assert red > 240
    assert max(green, blue) < 25


def still(kind: str) -> Callable[[NDArray[np.uint8]], bytes]:
    def save(samples: NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(samples).save(file, kind)
        return file.getvalue()

    return save


@pytest.mark.parametrize("kind", ["GIF", "DIB", "BMP", "PNG", "TIFF"])
def test_still_pictures_of_other_formats_are_read(kind: str) -> None:
    samples = np.zeros((6, 8, 3), np.uint8)
    samples[:, 4:] = 255, 0, 51
    np.testing.assert_array_equal(decode(still(kind)(samples)).colour, samples)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read() -> None:
    picture = decode(still("AVIF")(np.full((16, 16, 3), (200, 100, 50), np.uint8)))
    np.testing.assert_allclose(picture.colour[8, 8].astype(int), (200, 100, 50), atol=4)


@pytest.mark.parametrize("lossless", [True, False])
def test_a_lossless_webp_is_known_as_one(lossless: bool) -> None:
    for mode in ("RGB", "RGBA"):
        file = io.BytesIO()
        Image.new(mode, (8, 8)).save(file, "WEBP", lossless=lossless, exif=Image.Exif())
        assert decode(file.getvalue()).is_lossless_webp is lossless


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 32\nshowpage\n", "PostScript"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"P6 2 2 255\n" + bytes(12), "Netpbm"),
        (b"qoif" + bytes(20), "QOI"),
        (b"\0\0\1\0\1\0" + bytes(20), "Windows icon"),
    ],
)
def test_formats_that_are_not_supported_are_named(data: bytes, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is not supported"):
        decode(data)


def test_no_other_program_is_started_for_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would run Ghostscript on PostScript, whatever the suffix of the file."""
    started = tmp_path / "started"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\ntouch '{started}'\n")
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    (tmp_path / "z.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 32\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(InputError, match=r"z\.png"):
        read_rgb(tmp_path / "z.png")
    assert not started.exists()


@pytest.mark.parametrize(("width", "height"), [(1, 80_000_000), (80_000_000, 1), (70_000, 3)])
def test_pictures_that_are_a_line_are_refused_by_their_sides(width: int, height: int) -> None:
    with pytest.raises(InputError, match=f"{width}x{height}"):
        decode(png(width, height, 8, 2, b"\0"))


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["LZW", "Zip", "None", "RLE"])
@pytest.mark.parametrize("endian", ["LSB", "MSB"])
@pytest.mark.parametrize("kind", ["Grayscale", "TrueColor"])
def test_imagemagick_shows_the_same_pixels(
    tmp_path: Path, compression: str, endian: str, kind: str
) -> None:
    convert = shutil.which("convert-im6.q16") or shutil.which("magick")
    if convert is None:
        pytest.skip("needs ImageMagick with 16 bits")
    path = tmp_path / "a.tif"
    options = ["-type", kind, "-depth", "16", "-endian", endian, "-compress", compression]
    subprocess.run([convert, "-size", "23x17", "plasma:", *options, str(path)], check=True)
    shown = subprocess.run(
        [convert, str(path), "-endian", "LSB", "-depth", "16", "rgb:-"],
        check=True,
        capture_output=True,
    )
    expected = np.frombuffer(shown.stdout, "<u2").reshape(17, 23, 3)
    colour = decode(path.read_bytes()).colour
    np.testing.assert_array_equal(
        colour if colour.ndim == 3 else colour[:, :, None],
        expected[:, :, : 3 if colour.ndim == 3 else 1],
    )
