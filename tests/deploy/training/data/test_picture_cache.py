import json
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import read_rgb
from swise_deploy.training.data.batches import crop_source
from swise_deploy.training.data.picture_cache import open_pairs


def silent(what, done, total):
    assert 1 <= done <= total, what


def write_rgb16_png(path, levels):
    """16-bit RGB, which Pillow reads but does not write."""
    height, width = levels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def folder(tmp_path):
    """One picture of every kind that turns up in people's folders."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (17, 23, 3), np.uint8)
    place = tmp_path / "pictures"
    (place / "sub").mkdir(parents=True)
    Image.fromarray(rgb).save(place / "rgb.png")
    Image.fromarray(rgb[:, :, 0]).save(place / "grey.png")
    Image.fromarray(np.dstack([rgb, rgb[:, :, :1]])).save(place / "sub" / "alpha.png")
    Image.fromarray(rgb).convert("CMYK").save(place / "cmyk.jpg")
    Image.fromarray(rgb[:, :, 0].astype(np.uint16) * 257).save(place / "grey16.png")
    write_rgb16_png(place / "rgb16.png", rgb.astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(rgb).save(place / "turned.jpg", exif=exif)
    Image.fromarray(rgb[:2, :2]).save(place / "tiny.png")
    whole = (place / "rgb.png").read_bytes()
    (place / "corrupt.png").write_bytes(whole[: len(whole) // 2])
    (place / "empty.jpg").write_bytes(b"")
    (place / "notes.txt").write_text("no picture")
    return place


def test_every_kind_of_picture_is_cached_or_named(folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        pairs = open_pairs(folder, 3, root=tmp_path / "cache", report=silent)
    names = [entry.name for entry in pairs.hr.entries]
    assert sorted(names) == [
        "cmyk.jpg",
        "grey.png",
        "grey16.png",
        "rgb.png",
        "rgb16.png",
        "sub/alpha.png",
        "tiny.png",
        "turned.jpg",
    ]
    assert sorted(pairs.skipped) == ["corrupt.png", "empty.jpg"]
    assert "corrupt.png" in caplog.text
    original = read_rgb(folder / "rgb.png")
    found = {name: pairs.hr.picture(i) for i, name in enumerate(names)}
    for same in ("rgb.png", "rgb16.png", "sub/alpha.png"):
        np.testing.assert_array_equal(found[same], original)
    for grey in ("grey.png", "grey16.png"):
        np.testing.assert_array_equal(found[grey], np.repeat(original[:, :, :1], 3, axis=2))
    assert found["turned.jpg"].shape == (23, 17, 3)


def test_lr_is_the_protocols_and_tiny_pictures_give_no_crop(folder, tmp_path):
    pairs = open_pairs(folder, 3, root=tmp_path / "cache", report=silent)
    for i, entry in enumerate(pairs.hr.entries):
        if entry.name != "tiny.png":
            expected = pair_from_hr("", read_rgb(folder / entry.name), 3).lr
            np.testing.assert_array_equal(pairs.lr.picture(i), expected)
    source = crop_source(pairs, 5)
    assert source.too_small == ("tiny.png",)
    with pytest.raises(InputError, match=r"crops of 50 LR pixels at x3.*expected 150"):
        crop_source(pairs, 50)


def test_second_opening_decodes_nothing(folder, tmp_path):
    open_pairs(folder, 2, root=tmp_path / "cache", report=silent)
    done = []
    open_pairs(folder, 2, root=tmp_path / "cache", report=lambda what, *_: done.append(what))
    assert set(done) == {"checking pictures"}


def test_a_changed_picture_is_noticed(folder, tmp_path):
    before = open_pairs(folder, 2, root=tmp_path / "cache", report=silent)
    inverted = 255 - read_rgb(folder / "rgb.png")
    Image.fromarray(inverted).save(folder / "rgb.png")
    after = open_pairs(folder, 2, root=tmp_path / "cache", report=silent)
    assert before.key != after.key
    index = [entry.name for entry in after.hr.entries].index("rgb.png")
    np.testing.assert_array_equal(after.hr.picture(index), inverted)


@pytest.mark.parametrize("damage", ["cut", "index", "json"])
def test_a_damaged_cache_is_made_again(folder, tmp_path, damage):
    pairs = open_pairs(folder, 2, root=tmp_path / "cache", report=silent)
    expected = pairs.hr.picture(0).copy()
    place = tmp_path / "cache" / pairs.key
    del pairs
    index = json.loads((place / "hr.json").read_text())
    if damage == "cut":
        (place / "hr.bin").write_bytes((place / "hr.bin").read_bytes()[:-1])
    elif damage == "index":
        index["entries"][0]["offset"] = 10**9
        (place / "hr.json").write_text(json.dumps(index))
    else:
        (place / "hr.json").write_text("{")
    again = open_pairs(folder, 2, root=tmp_path / "cache", report=silent)
    np.testing.assert_array_equal(again.hr.picture(0), expected)


def test_a_build_that_dies_leaves_no_cache(folder, tmp_path):
    def die(what, done, total):
        if what == "decoding pictures" and done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_pairs(folder, 2, root=tmp_path / "cache", report=die)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    again = open_pairs(folder, 2, root=tmp_path / "cache", report=silent)
    index = tmp_path / "cache" / again.key / "hr.json"
    assert len(json.loads(index.read_text())["entries"]) == len(again.hr.entries)


def test_a_folder_without_one_readable_picture_is_refused(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"not one of 1 pictures can be read: broken\.png"):
        open_pairs(tmp_path, 2, root=tmp_path / "cache", report=silent)


def test_twelve_bits_in_sixteen_are_pointed_out(tmp_path, caplog):
    ramp = np.linspace(0, 4095, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "raw.png")
    Image.fromarray(ramp * 16).save(tmp_path / "scaled.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    with caplog.at_level(logging.WARNING):
        open_pairs(tmp_path, 2, root=tmp_path / "cache", report=silent)
    assert "raw.png is nearly black" in caplog.text
    assert "scaled.png" not in caplog.text
    assert "black.png is" not in caplog.text
