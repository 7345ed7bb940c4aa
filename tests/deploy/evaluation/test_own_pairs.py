import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.evaluation.own_pairs import fit_pair, match_by_name
from swise_deploy.evaluation.pairs import pair_from_files, read_pairs


@pytest.mark.parametrize(
    ("hr", "lr", "partner"),
    [
        ("HR/0001.png", ["LR/0001.png", "LR/0002.png"], "LR/0001.png"),
        ("HR/0001.png", ["X2/0001x2.png", "X3/0001x3.png"], "X2/0001x2.png"),
        ("HR/baby.png", ["LR/X2/baby.png", "LR/X4/baby.png"], "LR/X2/baby.png"),
        ("HR/baby.bmp", ["LRbicx2/baby.png", "LRbicx3/baby.png"], "LRbicx2/baby.png"),
        ("HR/img_HR.png", ["LR/img_LR.png"], "LR/img_LR.png"),
        ("a/1.png", ["lr/b/1.png", "lr/a/1.png"], "lr/a/1.png"),
        ("HR/Photo.PNG", ["LR/photo.jpg"], "LR/photo.jpg"),
    ],
)
def test_partners_are_found_by_name_and_scale(hr: str, lr: list[str], partner: str) -> None:
    matches = match_by_name([Path(hr)], list(map(Path, lr)), 2)
    assert matches.pairs == {Path(hr): Path(partner)}


def test_pictures_without_a_partner_are_listed_and_other_scales_are_not() -> None:
    hr = [Path("HR/a.png"), Path("HR/b.png")]
    lr = [Path("LR/X2/ax2.png"), Path("LR/X3/ax3.png"), Path("LR/X2/cx2.png")]
    assert match_by_name(hr, lr, 2).unpaired == (Path("HR/b.png"), Path("LR/X2/cx2.png"))


@pytest.mark.parametrize(
    ("lr", "complaint"),
    [
        (["LR/other.png"], "none of 1 pictures has a partner"),
        (["one/a.png", "two/a.png"], "several low-resolution partners"),
    ],
)
def test_what_cannot_be_matched_is_refused(lr: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        match_by_name([Path("HR/a.png")], list(map(Path, lr)), 2)


# HR of 13x9 at x2: MATLAB's imresize rounds up to 7x5, most scripts down to 6x4.
@pytest.mark.parametrize("lr_size", [(7, 5), (6, 4), (6, 5)])
def test_sides_that_are_one_pixel_off_are_cropped(lr_size: tuple[int, int]) -> None:
    hr = np.arange(13 * 9 * 3, dtype=np.uint32).astype(np.uint8).reshape(13, 9, 3)
    lr = np.zeros((*lr_size, 3), np.uint8)
    fitted = fit_pair(lr, hr, 2, name="a")
    assert fitted.lr.shape == (6, 4, 3)
    np.testing.assert_array_equal(fitted.hr, hr[:12, :8])
    assert fitted.cropped


@pytest.mark.parametrize(("lr_size", "ratio"), [((3, 2), "4.33"), ((13, 9), "1"), ((9, 4), "1.44")])
def test_sizes_of_another_scale_are_refused(lr_size: tuple[int, int], ratio: str) -> None:
    with pytest.raises(InputError, match=rf"ratio of {ratio}; expected x2"):
        fit_pair(np.zeros((*lr_size, 3), np.uint8), np.zeros((13, 9, 3), np.uint8), 2, name="a")


def test_own_pairs_are_read_with_their_own_pixels_and_cropped_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (41, 60, 3), np.uint8)
    lr = hr[:40:2, ::2] // 3
    for folder, picture in (("HR", hr), ("LR", lr)):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    paths, partners = [tmp_path / "HR" / "a.png"], [tmp_path / "LR" / "a.png"]
    with caplog.at_level(logging.WARNING):
        (pair,) = read_pairs(paths, 2, crop=20, lr_paths=partners)
    assert "1 of 1 pairs cropped" in caplog.text
    np.testing.assert_array_equal(pair.lr, lr[5:15, 10:20])
    np.testing.assert_array_equal(pair.hr, hr[10:30, 20:40])
    whole = pair_from_files("a", paths[0], partners[0], 2)
    np.testing.assert_array_equal(whole.lr, lr)
