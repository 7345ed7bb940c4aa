import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError, OutputError
from swise_deploy.pictures import formats
from swise_deploy.pictures.files import read_readable, read_rgb, write_image
from swise_deploy.pictures.folders import find_images, sample_paths
from swise_deploy.storage.files import writing


def test_samples_ship_with_the_package() -> None:
    assert len(sample_paths()) == 5
    assert all(read_rgb(path).shape == (192, 192, 3) for path in sample_paths())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new(mode, (5, 3)).save(tmp_path / f"a.{suffix}")
    image = read_rgb(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 5, 3)
    assert image.dtype == np.uint8


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 65535, 128 * 257]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep.png")[0, :, 0], [0, 1, 255, 128])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate a quarter turn clockwise to see it upright
    Image.new("RGB", (4, 2)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (4, 2, 3)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_broken_picture_is_named(tmp_path: Path, keep: int) -> None:
    whole = sample_paths()[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:keep])
    with pytest.raises(InputError, match=r"cut\.png"):
        read_rgb(tmp_path / "cut.png")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_INPUT_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="10x10 pixels are 100; at most 99"):
        read_rgb(tmp_path / "bomb.png")


def test_pillow_refuses_what_it_finds_far_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("RGB", (100, 100)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="refused"):
        read_rgb(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("tag", "kind"), [(0x0100, 1), (0x010F, 5), (0x011A, 2)], ids=["width", "make", "resolution"]
)
def test_a_picture_is_turned_upright_whatever_else_its_exif_holds(
    tmp_path: Path, tag: int, kind: int
) -> None:
    """Pillow raises struct.error, AttributeError and TypeError where a tag has the wrong type."""
    tags = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", tag, kind, 1, b"\1")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").shape == (4, 2, 3)


def test_one_broken_picture_does_not_stop_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    found = read_readable(find_images(tmp_path))
    assert [path.name for path in found] == ["good.png"]
    assert "bad.png" in caplog.text


def test_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture in"):
        find_images(tmp_path)


def test_only_broken_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of 1 pictures"):
        read_readable(find_images(tmp_path))


def test_written_picture_reads_back(tmp_path: Path) -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    write_image(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(read_rgb(tmp_path / "new" / "a.png"), image)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with writing(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), writing(tmp_path / "file" / "a.txt"):
        pass
