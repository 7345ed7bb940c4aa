from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_bench.reports.showcase import describe_score, make_showcase, write_figure
from swise_deploy.evaluation.metrics import Quality
from swise_deploy.pictures.files import RgbImage


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Flat grey, with noise in one corner."""
    image = np.full((100, 120, 3), 128, np.uint8)
    image[60:, 80:] = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    path = tmp_path / "corner.png"
    Image.fromarray(image).save(path)
    return path


def _nearest(lr: RgbImage) -> RgbImage:
    return np.asarray(lr.repeat(2, 0).repeat(2, 1))


def test_the_crop_lies_where_the_detail_is(picture: Path) -> None:
    showcase = make_showcase(picture, 2, {"nearest": _nearest}, side=40)
    left, top, width, height = showcase.box
    assert (width, height) == (40, 40)
    assert left >= 60
    assert top >= 40


def test_panels_are_hr_bicubic_and_the_subjects_in_order(picture: Path) -> None:
    showcase = make_showcase(picture, 2, {"b": _nearest, "a": _nearest}, side=40)
    assert [panel.label for panel in showcase.panels] == ["HR", "bicubic", "b", "a"]
    assert showcase.panels[0].score is None
    assert all(panel.crop.shape == (40, 40, 3) for panel in showcase.panels)
    assert showcase.panels[2].score == showcase.panels[3].score


def test_a_picture_smaller_than_the_crop_is_shown_whole(picture: Path) -> None:
    showcase = make_showcase(picture, 2, {"nearest": _nearest}, side=500)
    assert showcase.box == (0, 0, 120, 100)


def test_the_figure_holds_every_panel(picture: Path, tmp_path: Path) -> None:
    subjects = {f"method {index}": _nearest for index in range(5)}
    showcase = make_showcase(picture, 2, subjects, side=40)
    path = tmp_path / "figure.png"
    write_figure(path, showcase)
    with Image.open(path) as figure:
        # 7 panels in 2 rows of 4, each 320 wide at 8 times.
        assert figure.width > 4 * 320
        assert figure.height > 2 * 320
        hr = np.asarray(figure)
    first = showcase.panels[0].crop.repeat(8, 0).repeat(8, 1)
    windows = np.lib.stride_tricks.sliding_window_view(hr[12, :, :], 320, axis=0)
    assert (windows == first[0].T).all(axis=(1, 2)).any()


def test_scores_are_printed_as_in_papers() -> None:
    assert describe_score(Quality({"psnr_y_db": 26.4801, "ssim_y": 0.79688})) == "26.48 dB / 0.7969"
    assert describe_score(None) == "PSNR / SSIM"
