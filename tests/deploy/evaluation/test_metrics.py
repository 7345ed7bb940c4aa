import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from swise_deploy.evaluation.metrics import luma, psnr, quality, ssim
from swise_deploy.evaluation.pairs import evaluate, mean_quality, pair_from_hr, read_pairs
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import find_images
from swise_deploy.pictures.imresize import imresize

PUBLISHED_BICUBIC = [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]


@pytest.mark.parametrize(("scale", "psnr_db", "ssim_y"), PUBLISHED_BICUBIC)
def test_bicubic_on_luma_scores_what_is_published_for_set5(
    shared: Path, scale: int, psnr_db: float, ssim_y: float
) -> None:
    # The published row comes from the SRCNN authors' script: 8-bit luma, shrunk and enlarged in
    # floating point, rounded once.
    scores = []
    for path in find_images(shared / "data" / "benchmark" / "Set5" / "HR"):
        hr = np.floor(luma(pair_from_hr(path.name, read_rgb(path), scale).hr) + 0.5)
        sr = np.floor(imresize(imresize(hr, Fraction(1, scale)), scale) + 0.5)
        inner = (slice(scale, -scale),) * 2
        scores.append((psnr(sr[inner], hr[inner]), ssim(sr[inner], hr[inner])))
    measured = np.mean(scores, axis=0)
    assert measured[0] == pytest.approx(psnr_db, abs=0.005)  # two printed digits
    assert measured[1] == pytest.approx(ssim_y, abs=0.0001)  # four printed digits


@pytest.mark.parametrize(("scale", "psnr_db", "ssim_y"), PUBLISHED_BICUBIC)
def test_bicubic_through_the_rgb_protocol_is_close_to_published(
    shared: Path, scale: int, psnr_db: float, ssim_y: float
) -> None:
    # RGB networks are scored on luma that is not rounded to 8 bits, which is worth up to 0.02 dB.
    pairs = read_pairs(find_images(shared / "data" / "benchmark" / "Set5" / "HR"), scale)
    scores = evaluate(lambda lr: np.asarray(imresize(lr, scale), np.uint8), pairs, scale)
    assert mean_quality(scores).psnr_y_db == pytest.approx(psnr_db, abs=0.02)
    assert mean_quality(scores).ssim_y == pytest.approx(ssim_y, abs=0.001)


def test_luma_is_studio_swing() -> None:
    picture = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(luma(picture), [[16, 235, 16 + 65.481]], atol=1e-9)


def test_psnr_of_a_known_error() -> None:
    reference = np.zeros((4, 4))
    # An error of 10/255 everywhere: 20 log10(255 / 10).
    assert psnr(reference + 10, reference) == pytest.approx(20 * math.log10(25.5))
    assert psnr(reference, reference) == math.inf


@pytest.mark.parametrize("size", [(11, 11), (37, 23)])
def test_ssim_equals_scikit_image(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 255, size)
    y = np.clip(x + rng.normal(0, 20, size), 0, 255)
    _, full = structural_similarity(
        x,
        y,
        win_size=11,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    # scikit-image also averages windows that leave the picture; the field does not.
    assert ssim(x, y) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


def test_ssim_is_unknown_below_its_window() -> None:
    assert math.isnan(ssim(np.zeros((10, 40)), np.zeros((10, 40))))


def test_border_is_left_out() -> None:
    hr = np.full((20, 20, 3), 100, np.uint8)
    sr = hr.copy()
    sr[:2] = 0
    assert quality(sr, hr, border=2).psnr_y_db == math.inf
    assert quality(sr, hr, border=1).psnr_y_db < 30


def test_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        psnr(np.zeros((2, 2)), np.zeros((2, 3)))
