import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import HAS_AVIF, format_of
from swise_engines.upscaling.pictures import codecs as pictures
from swise_engines.upscaling.pictures.codecs import (
    Picture,
    decode_picture,
    encode_picture,
    refuse_unwritable,
)
from swise_engines.upscaling.pictures.metadata import Metadata

tifffile = pytest.importorskip("tifffile", reason="the reference for 16-bit TIFF")

needs_avif = pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def encoded(image, file_format, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, file_format, **options)
    return file.getvalue()


def png16(samples):
    """16-bit PNG, unfiltered, by the letter of the specification."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_every_bit(channels):
    samples = noise((5, 7, channels), np.uint16)
    picture = decode_picture(png16(samples))
    expected = samples[:, :, 0] if channels < 3 else samples[:, :, :3]
    np.testing.assert_array_equal(picture.colour, expected)
    if channels in (2, 4):
        np.testing.assert_array_equal(picture.alpha, samples[:, :, -1])
    again = decode_picture(encode_picture(picture, "png"))
    np.testing.assert_array_equal(again.colour, expected)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_of_16_bits_keeps_every_bit(byteorder, compression, channels):
    samples = noise((6, 5, channels), np.uint16)
    file = io.BytesIO()
    extra = ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(
        file,
        samples,
        photometric="rgb",
        byteorder=byteorder,
        compression=compression,
        extrasamples=extra,
    )
    picture = decode_picture(file.getvalue())
    np.testing.assert_array_equal(picture.colour, samples[:, :, :3])
    written = encode_picture(picture, "tiff")
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(written)), samples)


def test_planar_tiff_of_16_bits_keeps_every_bit():
    file, planes = io.BytesIO(), noise((3, 8, 5), np.uint16)
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(decode_picture(file.getvalue()).colour, planes.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("file_format", "pillow_name"),
    [("png", "PNG"), ("tiff", "TIFF"), ("bmp", "BMP"), ("webp", "WEBP")],
)
@pytest.mark.parametrize("shape", [(4, 6, 3), (4, 6, 4), (1, 1, 3), (3, 5)])
def test_lossless_formats_give_back_the_pixels(file_format, pillow_name, shape):
    if file_format == "bmp" and shape[-1] == 4:
        pytest.skip("BMP is not written with transparency")
    samples = noise(shape)
    picture = decode_picture(encoded(samples, "PNG"))
    data = encode_picture(picture, file_format, quality=100)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == pillow_name
        mode = {2: "L"}.get(len(shape), "RGBA" if shape[-1] == 4 else "RGB")
        np.testing.assert_array_equal(np.asarray(image.convert(mode)), samples)


def test_greyscale_stays_greyscale_and_a_palette_becomes_colour():
    assert decode_picture(encoded(noise((4, 4)), "PNG")).colour.ndim == 2
    image = Image.fromarray(noise((8, 8, 3))).quantize(16)
    image.info["transparency"] = 3
    file = io.BytesIO()
    image.save(file, "PNG")
    picture = decode_picture(file.getvalue())
    assert picture.colour.shape == (8, 8, 3)
    np.testing.assert_array_equal(picture.alpha == 0, np.asarray(image) == 3)


def test_cmyk_becomes_rgb():
    data = encoded_cmyk((0, 255, 255, 0))
    red, green, blue = decode_picture(data).colour[4, 4]
    assert red > 240
    assert max(green, blue) < 15


def encoded_cmyk(colour):
    file = io.BytesIO()
    Image.new("CMYK", (8, 8), colour).save(file, "JPEG", quality=100)
    return file.getvalue()


def jpeg_with_metadata():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees clockwise
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    file = io.BytesIO()
    # Left half black, right half white: after turning, top black and bottom white.
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 16:] = 255
    Image.fromarray(image).save(
        file, "JPEG", exif=exif, icc_profile=SRGB, dpi=(300, 300), comment=b"note", quality=100
    )
    return file.getvalue()


@pytest.mark.parametrize("file_format", ["jpg", "png", "webp", "tiff"])
def test_metadata_go_along_and_orientation_is_applied(file_format):
    picture = decode_picture(jpeg_with_metadata())
    assert picture.colour.shape == (32, 16, 3)
    assert picture.colour[:8].max() < 10
    assert picture.colour[-8:].min() > 245
    with Image.open(io.BytesIO(encode_picture(picture, file_format))) as image:
        assert image.info["icc_profile"] == SRGB
        exif = image.getexif()
        assert ExifTags.Base.Orientation not in exif
        assert exif[ExifTags.Base.Make] == "Camera"
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert details[ExifTags.Base.ISOSpeedRatings] == 400
        assert details[ExifTags.Base.ExifImageWidth] == 16
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        if file_format != "webp":  # has no field for it
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)
        if file_format == "jpg":
            assert image.info["comment"] == b"note"


FORMATS = ["jpg", "png", "webp", "tiff", pytest.param("avif", marks=needs_avif)]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_text_of_exif_keeps_its_bytes(file_format, dtype):
    if dtype == np.uint16 and file_format not in ("png", "tiff"):
        pytest.skip("8 bits only")
    texts = {ExifTags.Base.Artist: "Jané Ü", ExifTags.Base.Copyright: "© 株式会社"}
    exif = Image.Exif()
    for tag, text in texts.items():
        exif[tag] = text.encode()
    metadata = decode_picture(encoded(noise((4, 4, 3)), "JPEG", exif=exif)).metadata
    picture = Picture(noise((4, 4, 3), dtype), None, metadata)
    once = decode_picture(encode_picture(picture, file_format))
    with Image.open(io.BytesIO(encode_picture(once, file_format))) as image:
        found = image.getexif()
        # Pillow gives the bytes as Latin-1.
        assert {tag: found[tag].encode("latin-1").decode() for tag in texts} == texts


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_directory_of_exif_is_empty(file_format):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    picture = decode_picture(encoded(noise((4, 4, 3)), "JPEG", exif=exif))
    with Image.open(io.BytesIO(encode_picture(picture, file_format))) as image:
        found = image.getexif()
        assert found[ExifTags.Base.Make] == "Camera"
        assert ExifTags.IFD.Exif not in found
        assert ExifTags.IFD.GPSInfo not in found


@pytest.mark.parametrize("file_format", FORMATS)
def test_iptc_captions_stay_where_there_is_a_place(file_format, caplog):
    # IPTC-NAA Information Interchange Model: record 2, data set 120, the caption.
    records = b"\x1c\x02\x78\x00\x05Hello"
    body = b"Photoshop 3.0\08BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records
    segment = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    data = encoded(noise((4, 4, 3)), "JPEG", extra=segment)
    written = encode_picture(decode_picture(data), file_format)
    has_place = file_format in ("jpg", "tiff")
    assert ("IPTC" in caplog.text) is not has_place
    assert decode_picture(written).metadata.iptc == (records if has_place else None)
    if file_format == "tiff":
        (page,) = tifffile.TiffFile(io.BytesIO(written)).pages
        assert page.tags[33723].value == records


@pytest.mark.parametrize("file_format", ["webp", pytest.param("avif", marks=needs_avif)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_resolution_is_stated_in_exif_where_a_format_has_no_other_place(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise((4, 8, 3)), "JPEG", exif=exif, dpi=(300, 150))
    expected = (300, 150) if orientation == 1 else (150, 300)
    again = decode_picture(encode_picture(decode_picture(data), file_format))
    assert again.metadata.dpi == pytest.approx(expected)
    assert decode_picture(encode_picture(again, "png")).metadata.dpi == pytest.approx(
        expected, abs=0.02
    )


LINEAR = {"gAMA": struct.pack(">I", 100_000)}
WIDE = {"cHRM": struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600)}
PQ = {"cICP": bytes([9, 16, 0, 1])}
USUAL = {"gAMA": struct.pack(">I", 45_455), "sRGB": b"\0"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("chunks", [LINEAR, WIDE, PQ, USUAL, {**LINEAR, **WIDE}])
def test_chunks_of_colour_stay_in_a_png_and_are_missed_elsewhere(dtype, chunks, caplog):
    notes = PngImagePlugin.PngInfo()
    for name, body in chunks.items():
        notes.add(name.encode(), body)
    metadata = decode_picture(encoded(noise((4, 4, 3)), "PNG", pnginfo=notes)).metadata
    picture = Picture(noise((4, 4, 3), dtype), None, metadata)
    data = encode_picture(picture, "png")
    assert decode_picture(data).metadata.colour_chunks == chunks
    assert all(data.count(name.encode() + body) == 1 for name, body in chunks.items())
    assert caplog.text == ""
    encode_picture(picture, "tiff")
    assert ("gamma or the primaries" in caplog.text) is (chunks is not USUAL)


def test_a_profile_overrides_chunks_of_colour(caplog):
    metadata = Metadata(icc=SRGB, colour_chunks=LINEAR)
    encode_picture(Picture(noise((4, 4, 3)), None, metadata), "jpg")
    assert caplog.text == ""


def test_a_comment_becomes_a_note_of_a_png():
    data = encoded(noise((4, 4, 3)), "JPEG", comment="né".encode())
    with Image.open(io.BytesIO(encode_picture(decode_picture(data), "png"))) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert image.text["Comment"] == "né"


@pytest.mark.parametrize("file_format", ["png", "tiff"])
def test_metadata_go_along_at_16_bits(file_format):
    metadata = decode_picture(jpeg_with_metadata()).metadata
    picture = Picture(noise((4, 4, 3), np.uint16), None, metadata)
    with Image.open(io.BytesIO(encode_picture(picture, file_format))) as image:
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[ExifTags.Base.Make] == "Camera"
        details = image.getexif().get_ifd(ExifTags.IFD.Exif)
        assert details[ExifTags.Base.ISOSpeedRatings] == 400
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)


@pytest.mark.parametrize("file_format", ["jpg", "png", "webp", "tiff"])
def test_an_xmp_packet_goes_along(file_format):
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
    picture = Picture(noise((4, 4, 3)), None, Metadata(xmp=packet))
    assert decode_picture(encode_picture(picture, file_format)).metadata.xmp == packet


XMP = (
    "<x:xmpmeta xmlns:x='adobe:ns:meta/' xmlns:t='http://ns.adobe.com/tiff/1.0/' "
    'xmlns:exif="http://ns.adobe.com/exif/1.0/"><d t:Orientation=\'6\' t:Make="Camera" '
    'exif:PixelXDimension="60"><exif:PixelYDimension>48</exif:PixelYDimension>'
    "<t:ImageWidth/>kept</d></x:xmpmeta>"
)


@pytest.mark.parametrize("file_format", ["jpg", "png", "webp", "tiff"])
def test_xmp_loses_what_describes_the_old_pixels(file_format):
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", XMP)
    notes.add_text("Raw profile type exif", "\nexif\n 0\n")
    picture = decode_picture(encoded(noise((4, 4, 3)), "PNG", pnginfo=notes))
    again = decode_picture(encode_picture(picture, file_format)).metadata
    assert again.xmp is not None
    packet = again.xmp.decode()
    for gone in ("Orientation", "PixelXDimension", "PixelYDimension", "ImageWidth"):
        assert gone not in packet
    assert 't:Make="Camera"' in packet
    assert "kept" in packet
    assert again.text == {}


def grey_profile():
    """A minimal ICC profile for greyscale with a gamma of 1 (ICC.1:2022)."""
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"linear grey\0"
    places, body, start = [], b"", 128 + 4 + 12 * 4
    for name, part in ((b"desc", text), (b"cprt", text), (b"wtpt", white), (b"kTRC", curve)):
        places.append(name + struct.pack(">II", start + len(body), len(part)))
        body += part + bytes(-len(part) % 4)
    table = struct.pack(">I", 4) + b"".join(places)
    head = bytearray(128)
    head[0:4] = struct.pack(">I", 128 + len(table) + len(body))
    head[8:12], head[12:24], head[36:40] = b"\2\x10\0\0", b"mntrGRAYXYZ ", b"acsp"
    head[68:80] = struct.pack(">iii", 63190, 65536, 54061)
    return bytes(head) + table + body


@pytest.mark.parametrize("file_format", ["jpg", "png", "tiff", "webp", "avif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_grey_profile_stays_with_grey_pixels_or_is_applied(file_format, alpha):
    if file_format == "avif" and not HAS_AVIF:
        pytest.skip("this Pillow has no AVIF")
    if file_format == "jpg" and alpha:
        pytest.skip("JPEG has no transparency")
    grey = np.full((8, 8), 55, np.uint8)
    see_through = np.full((8, 8), 128, np.uint8) if alpha else None
    picture = Picture(grey, see_through, Metadata(icc=grey_profile()))
    data = encode_picture(picture, file_format, quality=100)
    with Image.open(io.BytesIO(data)) as image:
        kept = image.info.get("icc_profile")
        is_grey = image.mode in ("L", "LA")
        value = np.asarray(image.convert("RGB"))[4, 4].astype(int)
    if kept is None:
        # 55/255 of linear light is 1.055 * 0.2157^(1/2.4) - 0.055 = 0.502 in sRGB (IEC 61966-2-1).
        np.testing.assert_allclose(value, 0.502 * 255, atol=3)
    else:
        assert is_grey
        assert kept[16:20] == b"GRAY"
        np.testing.assert_allclose(value, 55, atol=2)


@pytest.mark.parametrize("quality", [None, 95])
@pytest.mark.parametrize("lossless", [True, False])
def test_a_lossless_webp_stays_lossless_unless_a_quality_is_asked_for(quality, lossless):
    samples = noise((16, 16, 3))
    picture = decode_picture(encoded(samples, "WEBP", lossless=lossless))
    data = encode_picture(picture, "webp", quality=quality)
    assert (data[12:16] == b"VP8L") is (lossless and quality is None)


@pytest.mark.parametrize("file_format", ["jpg", "bmp"])
def test_an_alpha_channel_that_is_opaque_everywhere_is_no_transparency(file_format):
    picture = Picture(noise((4, 6, 3)), np.full((4, 6), 255, np.uint8), Metadata())
    refuse_unwritable(picture, file_format, 2)
    with Image.open(io.BytesIO(encode_picture(picture, file_format))) as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_floating_point_stays_in_a_tiff_and_has_16_bits_in_a_png(channels):
    samples = np.random.default_rng(0).random((5, 7, channels)).astype(np.float32)
    colour = samples[:, :, 0] if channels < 3 else samples[:, :, :3]
    alpha = samples[:, :, -1] if channels in (2, 4) else None
    picture = Picture(colour, alpha, Metadata())
    stored = tifffile.imread(io.BytesIO(encode_picture(picture, "tiff")))
    expected = samples[:, :, [0, 0, 0, 1]] if channels == 2 else samples
    np.testing.assert_array_equal(stored.reshape(expected.shape), expected)
    png = decode_picture(encode_picture(picture, "png"))
    np.testing.assert_array_equal(png.colour, np.rint(colour * 65_535))
    with pytest.raises(InputError, match="32 bits"):
        refuse_unwritable(picture, "webp", 2)


def test_a_resolution_is_turned_with_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise((4, 8, 3)), "JPEG", exif=exif, dpi=(300, 150))
    assert decode_picture(data).metadata.dpi == pytest.approx((150, 300))


def test_notes_of_a_png_go_along():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", "somebody")
    data = encoded(noise((4, 4, 3)), "PNG", pnginfo=notes)
    with Image.open(io.BytesIO(encode_picture(decode_picture(data), "png"))) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert image.text["Author"] == "somebody"


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    # 60000 x 60000 black pixels in a few bytes: the header is enough to refuse it.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    data += struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    with pytest.raises(InputError, match="pixels"):
        decode_picture(data)


def test_more_than_one_frame_is_refused():
    frames = [Image.fromarray(noise((8, 8, 3), seed=i)) for i in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="3 frames"):
        decode_picture(file.getvalue())


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(InputError):
        decode_picture(data)


@pytest.mark.parametrize(
    ("picture", "file_format", "message"),
    [
        (Picture(noise((4, 4, 3)), noise((4, 4)), Metadata()), "jpg", "transparent"),
        (Picture(noise((4, 4, 3)), noise((4, 4)), Metadata()), "bmp", "transparent"),
        (Picture(noise((4, 4, 3), np.uint16), None, Metadata()), "webp", "16 bits"),
        (Picture(noise((1, 5000, 3)), None, Metadata()), "webp", "20000x4.*16383"),
        (Picture(noise((1, 20_000)), None, Metadata()), "jpg", "80000x4.*65535"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_the_work(picture, file_format, message):
    with pytest.raises(InputError, match=message):
        refuse_unwritable(picture, file_format, 4)
    refuse_unwritable(picture, "png", 4)


def test_an_output_beyond_the_pixel_bound_is_refused(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_OUTPUT_PIXELS", 63)
    with pytest.raises(InputError, match="8x8"):
        refuse_unwritable(Picture(noise((4, 4)), None, Metadata()), "png", 2)


def test_a_suffix_names_its_format():
    assert [format_of(s) for s in (".JPG", ".tif", ".webp")] == ["jpg", "tiff", "webp"]
    with pytest.raises(InputError, match=r"\.gif"):
        format_of(".gif")
