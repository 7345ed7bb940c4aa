import logging
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import LUMA_WEIGHTS, Quality
from swise_deploy.evaluation.pairs import evaluate, mean_quality, read_pairs
from swise_deploy.pictures.folders import find_images, picture_names
from swise_deploy.training.run.validation import pairs_from_folder


def write_grey(path: Path, value: int, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def test_pictures_are_named_after_their_files(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "y.png"]
    assert picture_names(paths) == {paths[0]: "x.png", paths[1]: "y.png"}


def test_pictures_of_one_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "c" / "x.png", tmp_path / "z.png"]
    assert list(picture_names(paths).values()) == ["a/x.png", "b/c/x.png", "z.png"]
    assert picture_names([]) == {}


def test_pictures_of_one_name_all_count_in_the_mean(tmp_path: Path) -> None:
    """Errors of 1/255 and of 10/255: 20 dB apart, the mean 10 dB below the better one."""
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
def test_tiny_pictures_are_reported_and_skipped(tmp_path, caplog, read) -> None:
    write_grey(tmp_path / "large.png", 9, (16, 12))
    write_grey(tmp_path / "tiny.png", 9, (16, 11))
    write_grey(tmp_path / "one.png", 9, (1, 1))
    with caplog.at_level(logging.WARNING):
        pairs = read(find_images(tmp_path), 3)
    assert [pair.name for pair in pairs] == ["large.png"]
    assert "tiny.png is smaller than 12 pixels" in caplog.text


def test_only_tiny_pictures_are_refused(tmp_path: Path) -> None:
    write_grey(tmp_path / "tiny.png", 9, (7, 90))
    with pytest.raises(InputError, match="all of 1 pictures are too small at x2"):
        read_pairs(find_images(tmp_path), 2)


def test_an_exact_picture_is_excluded_from_the_mean() -> None:
    plain = {
        name: Quality({"psnr_y_db": db, "ssim_y": 0.9}) for name, db in (("a", 30.0), ("b", 40.0))
    }
    exact = Quality({"psnr_y_db": math.inf, "ssim_y": 1.0})
    mean = mean_quality({**plain, "black": exact})
    assert mean.psnr_y_db == 35.0
    assert mean.ssim_y == pytest.approx((0.9 + 0.9 + 1.0) / 3)


def test_a_set_of_exact_pictures_has_a_finite_mean_above_every_other() -> None:
    exact = Quality({"psnr_y_db": math.inf, "ssim_y": 1.0})
    mean = mean_quality({"a": exact, "b": exact})
    # The least that an 8-bit picture of 100 megapixels can differ: blue off by one in one pixel.
    least_error = (LUMA_WEIGHTS[2] ** 2) / 1e8
    assert 10 * math.log10(255**2 / least_error) < mean.psnr_y_db < math.inf


def test_pictures_below_the_window_of_ssim_count_for_psnr_alone() -> None:
    small = Quality({"psnr_y_db": 20.0, "ssim_y": math.nan})
    whole = Quality({"psnr_y_db": 30.0, "ssim_y": 0.8})
    mean = mean_quality({"small": small, "whole": whole})
    assert (mean.psnr_y_db, mean.ssim_y) == (25.0, 0.8)
    assert math.isnan(mean_quality({"small": small}).ssim_y)
