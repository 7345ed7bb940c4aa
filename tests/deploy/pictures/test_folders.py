import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.pictures.folders import find_images, picture_names, printable, walk_files


def write(path: Path, size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2"),
        ("DIV2K_valid_HR_sub", "DIV2K_valid_LR_bicubic/X4_sub"),
        ("HR", "LR_bicubic/X3"),
        ("HR", "X2"),
        ("GTmod12", "LRbicx4"),
        ("gt", "lq"),
        ("trainHR", "trainLR"),
        ("DIV2K_train_HR", "DIV2K_train_LR_mild"),
        ("HR/train", "LR/train"),
        ("train_sharp", "train_sharp_bicubic/X4"),
        ("sharp", "blur"),
        ("target", "input"),
        ("high_resolution", "low_resolution"),
        ("original", "LR"),
    ],
)
def test_low_resolution_beside_its_ground_truth_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, high: str, low: str
) -> None:
    write(tmp_path / high / "0001.png")
    write(tmp_path / low / "0001.png", (8, 6))
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path) == [f"{high}/0001.png"]
    assert f"{low.split('/', maxsplit=1)[0]} beside {high.split('/', maxsplit=1)[0]}" in caplog.text


def test_low_resolution_below_the_pictures_it_was_made_from_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "baby.png")
    write(tmp_path / "LR_bicubic" / "X2" / "babyx2.png", (8, 6))
    assert found(tmp_path) == ["baby.png"]


@pytest.mark.parametrize(
    "name", ["LR", "X4", "colour", "history", "ghq", "algorithm", "input", "noisy", "sharp"]
)
def test_a_folder_alone_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / name / "a.png")
    assert found(tmp_path) == [f"{name}/a.png"]


def test_low_resolution_given_by_itself_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "DIV2K_train_LR_bicubic" / "X2" / "a.png").parent
    with caplog.at_level(logging.WARNING):
        assert found(folder) == ["a.png"]
    assert "taken as ground truth" in caplog.text


def test_low_resolution_in_the_same_folder_is_told_by_name_and_size(tmp_path: Path) -> None:
    write(tmp_path / "img_SRF_2_HR.png")
    write(tmp_path / "img_SRF_2_LR.png", (8, 6))
    write(tmp_path / "0001.png", (17, 12))
    write(tmp_path / "0001x2.png", (8, 6))
    write(tmp_path / "photo.png")
    write(tmp_path / "photox2.png", (32, 24))  # enlarged: a picture of its own
    assert found(tmp_path) == ["0001.png", "img_SRF_2_HR.png", "photo.png", "photox2.png"]


def test_links_are_followed_each_real_folder_once(tmp_path: Path) -> None:
    write(tmp_path / "store" / "DIV2K" / "a.png")
    write(tmp_path / "store" / "Flickr2K" / "deep" / "b.png")
    data = tmp_path / "DF2K"
    data.mkdir()
    (data / "DIV2K").symlink_to(tmp_path / "store" / "DIV2K")
    (data / "again").symlink_to(tmp_path / "store" / "DIV2K")
    (data / "Flickr2K").symlink_to("../store/Flickr2K")
    (tmp_path / "store" / "Flickr2K" / "loop").symlink_to(data)
    (data / "broken").symlink_to("nowhere")
    (data / "c.png").symlink_to(write(tmp_path / "c.png"))
    assert found(data) == ["DIV2K/a.png", "Flickr2K/deep/b.png", "c.png"]


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git"])
def test_hidden_folders_and_files_are_not_searched(tmp_path: Path, name: str) -> None:
    kept = write(tmp_path / "a.png")
    write(tmp_path / name / "deep" / "a-checkpoint.png")
    shutil.copy(kept, tmp_path / "._a.png")
    assert found(tmp_path) == ["a.png"]
    assert found(tmp_path / name) == ["deep/a-checkpoint.png"]  # asked for by its name


def test_formats_that_are_not_read_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.png")
    for i in range(20):
        (tmp_path / f"{i}.JP2").write_bytes(b"")
    (tmp_path / "b.jxl").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        find_images(tmp_path)
    assert "21 files of other formats" in caplog.text
    assert "20 .jp2, 1 .jxl" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"20 \.jp2, 1 \.jxl"):
        find_images(tmp_path)


def test_further_pages_are_counted_and_thumbnails_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [Image.new("L", (16, 12), i) for i in range(30)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    tifffile = pytest.importorskip("tifffile", reason="writes a page that is marked as smaller")
    with tifffile.TiffWriter(tmp_path / "preview.tif") as writer:
        writer.write(np.zeros((12, 16), np.uint8))
        writer.write(np.zeros((6, 8), np.uint8), subfiletype=1)
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path) == ["preview.tif", "stack.tif"]
    assert "stack.tif: 29 further pages" in caplog.text
    assert "preview.tif" not in caplog.text


def test_a_name_that_is_no_utf_8_is_found_and_can_be_printed(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9\x1b[31m.png")
    write(tmp_path / "a.png").rename(odd)
    (path,) = find_images(tmp_path)
    assert path == odd
    name = picture_names([path])[path]
    assert name == r"caf\xe9\x1b[31m.png"
    assert printable("grün 🌄.png") == "grün 🌄.png"


def test_a_folder_that_cannot_be_searched_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.png")
    locked = tmp_path / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with caplog.at_level(logging.WARNING):
        assert [path.name for path in walk_files(tmp_path)] == ["a.png"]
    assert "locked: Permission denied" in caplog.text


def test_low_resolution_alone_among_the_subfolders_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "DIV2K_train_LR_bicubic" / "X2" / "a.png")
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path) == ["DIV2K_train_LR_bicubic/X2/a.png"]
    assert "taken as ground truth" in caplog.text


def test_a_link_to_itself_is_no_picture(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("b.png")
    assert find_images(tmp_path) == [tmp_path / "a.png"]
