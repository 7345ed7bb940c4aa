import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import evaluate, mean_quality, read_pairs
from swise_deploy.pictures.folders import find_images, picture_names
from swise_deploy.training.run.validation import pairs_from_folder


def write_grey(path: Path, level: int, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


def test_pictures_are_called_by_their_file_names(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "y.png"]
    assert picture_names(paths) == {paths[0]: "x.png", paths[1]: "y.png"}


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "c" / "x.png", tmp_path / "z.png"]
    assert list(picture_names(paths).values()) == ["a/x.png", "b/c/x.png", "z.png"]
    assert picture_names([]) == {}


def test_every_picture_counts_in_the_mean_whatever_its_name(tmp_path: Path) -> None:
    """Off by 1 and by 10 levels of grey: 20 dB apart, the mean 10 dB below the better one."""
    write_grey(tmp_path / "day" / "x.png", 100)
    write_grey(tmp_path / "night" / "x.png", 109)
    pairs = read_pairs(find_images(tmp_path), 2)
    scores = evaluate(lambda _: np.full((20, 24, 3), 99, np.uint8), pairs, 2)
    better, worse = (scores[f"{folder}/x.png"].psnr_y_db for folder in ("day", "night"))
    assert better - worse == pytest.approx(20)
    assert mean_quality(scores).psnr_y_db == pytest.approx(better - 10)


@pytest.mark.parametrize(
    "read", [read_pairs, lambda paths, scale: pairs_from_folder(paths[0].parent, scale)]
)
def test_tiny_pictures_are_left_out_and_told(tmp_path, caplog, read) -> None:
    write_grey(tmp_path / "large.png", 9, (16, 12))
    write_grey(tmp_path / "tiny.png", 9, (16, 11))
    write_grey(tmp_path / "one.png", 9, (1, 1))
    with caplog.at_level(logging.WARNING):
        pairs = read(find_images(tmp_path), 3)
    assert [pair.name for pair in pairs] == ["large.png"]
    assert "tiny.png is smaller than 12 pixels" in caplog.text


def test_nothing_but_tiny_pictures_is_refused(tmp_path: Path) -> None:
    write_grey(tmp_path / "tiny.png", 9, (7, 90))
    with pytest.raises(InputError, match="all of 1 pictures are too small at x2"):
        read_pairs(find_images(tmp_path), 2)
