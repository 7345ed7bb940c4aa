"""Degradations against closed forms, and their draws against each other."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.training.data.batches import (
    CropDegradation,
    crop_source,
    cut_crops,
    cut_degraded_crops,
    draw_crops,
)
from swise_deploy.training.data.degradation import degradation_names, degrade, read_degradation
from swise_deploy.training.data.kernels import convolve, gaussian_kernel, sinc_kernel
from swise_deploy.training.data.picture_cache import PicturePairs
from swise_deploy.training.data.picture_store import Entry, PictureStore


def recipe(tmp_path: Path, text: str) -> str:
    (tmp_path / "own.toml").write_text(text)
    return str(tmp_path / "own.toml")


def grey(level: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_nothing_but_shrinking_is_matlabs_bicubic(tmp_path: Path) -> None:
    hr = read_rgb(sample_paths()[0])
    alone = read_degradation(recipe(tmp_path, '[[step]]\nkind = "shrink"\n'))
    added = read_degradation(recipe(tmp_path, '[[step]]\nkind = "jpeg"\nshare = 0.0\n'))
    for degradation in (alone, added):
        made = degrade(hr, 3, degradation, np.random.default_rng(0))
        np.testing.assert_array_equal(made, pair_from_hr("", hr, 3).lr)


def test_gaussian_noise_has_the_deviation_that_is_asked_for(tmp_path: Path) -> None:
    text = '[[step]]\nkind = "shrink"\n[[step]]\nkind = "noise"\ngaussian = [12.0, 12.0]\n'
    degradation = read_degradation(recipe(tmp_path, text))
    made = degrade(grey(128, 512, 512), 2, degradation, np.random.default_rng(1)).astype(float)
    # 196608 draws: the deviation of their deviation is 12 / sqrt(2 * 196608) = 0.02.
    assert made.std() == pytest.approx(12, abs=0.1)
    assert made.mean() == pytest.approx(128, abs=0.1)
    channels = made.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.02


def test_grey_noise_is_the_same_in_all_channels(tmp_path: Path) -> None:
    text = '[[step]]\nkind = "noise"\ngaussian = [20.0, 20.0]\ngrey_share = 1.0\n'
    degradation = read_degradation(recipe(tmp_path, text))
    made = degrade(grey(100), 1, degradation, np.random.default_rng(1))
    assert made.std() > 5
    np.testing.assert_array_equal(made[..., 0], made[..., 2])


def test_poisson_noise_grows_with_the_root_of_the_light(tmp_path: Path) -> None:
    text = '[[step]]\nkind = "noise"\npoisson = [1.0, 1.0]\npoisson_share = 1.0\n'
    degradation = read_degradation(recipe(tmp_path, text))
    picture = np.concatenate([grey(50, 200, 200), grey(200, 200, 200)], axis=1)
    made = degrade(picture, 1, degradation, np.random.default_rng(2)).astype(float)
    # Two values: 2 photons at full light; p photons of mean m have the deviation sqrt(m).
    dark = made[:, :200][made[:, :200] < 255].std()
    assert dark > 0
    photons = 2
    expected = 255 * np.sqrt(50 / 255 / photons)
    light = np.random.default_rng(3).poisson(50 / 255 * photons, 10**5) / photons * 255
    assert light.std() == pytest.approx(expected, rel=0.02)
    assert made[:, :200].mean() == pytest.approx(np.clip(light, 0, 255).mean(), rel=0.05)


def test_jpeg_is_pillows(tmp_path: Path) -> None:
    hr = read_rgb(sample_paths()[0])
    degradation = read_degradation(
        recipe(tmp_path, '[[step]]\nkind = "jpeg"\nquality = [40, 40]\n[[step]]\nkind = "shrink"\n')
    )
    made = degrade(hr, 1, degradation, np.random.default_rng(0))
    buffer = io.BytesIO()
    Image.fromarray(hr).save(buffer, "JPEG", quality=40)
    np.testing.assert_array_equal(made, np.asarray(Image.open(buffer)))


@pytest.mark.parametrize("name", degradation_names())
def test_a_seed_gives_the_same_picture_and_another_one_does_not(name: str) -> None:
    hr = read_rgb(sample_paths()[1])[:120, :100]
    degradation = read_degradation(name)
    first, same, other = (
        degrade(hr, 2, degradation, np.random.default_rng((seed, 5))) for seed in (1, 1, 2)
    )
    assert first.shape == (60, 50, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [(4, 4), (2, 6), (1, 1)])
def test_tiny_pictures_are_degraded_too(size: tuple[int, int]) -> None:
    for seed in range(20):
        made = degrade(
            grey(9, *size), 1, read_degradation("real-esrgan"), np.random.default_rng(seed)
        )
        assert made.shape == (*size, 3)


def test_a_gaussian_kernel_is_the_formula() -> None:
    kernel = gaussian_kernel(7, (1.5, 1.5), 0.3)
    x = np.arange(7) - 3
    expected = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=1e-12)
    wide = gaussian_kernel(21, (3.0, 1.0), np.pi / 2)  # the first axis is turned to the vertical
    assert wide[13, 10] > wide[10, 13]


def test_a_low_pass_filter_keeps_slow_waves_and_stops_fast_ones() -> None:
    kernel = sinc_kernel(21, np.pi / 3)
    x = np.arange(256)
    for frequency, least, most in ((np.pi / 8, 0.9, 1.1), (np.pi * 0.8, 0.0, 0.1)):
        wave = np.cos(frequency * x)[None, :, None].repeat(256, 0).astype(np.float32)
        kept = convolve(wave, kernel)[100:150, 100:150].std() / wave[100:150, 100:150].std()
        assert least <= kept <= most


def test_convolution_is_the_sum_of_shifted_pictures() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.random((9, 8, 3)).astype(np.float32), rng.random((3, 3))
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="symmetric")
    flipped = kernel[::-1, ::-1]  # a convolution, not a correlation
    expected = sum(flipped[i, j] * padded[i : i + 9, j : j + 8] for i in range(3) for j in range(3))
    np.testing.assert_allclose(convolve(image, kernel), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[step]]\nkind = "blurr"\n', "'blurr'"),
        ('[[step]]\nkind = "blur"\nsigmas = [1, 2]\n', "'sigmas'"),
        ('[[step]]\nkind = "blur"\nsigma = [3.0, 1.0]\n', r"sigma is \[3.0, 1.0\]"),
        ('[[step]]\nkind = "jpeg"\nquality = [1, 200]\n', "quality"),
        ('[[step]]\nkind = "noise"\nshare = 1.5\n', "share"),
        ('[[step]]\nkind = "shrink"\n[[step]]\nkind = "shrink"\n', "shrinks 2 times"),
        ("steps = 3\n", "the keys steps"),
        (
            '[[step]]\nkind = "either"\nfirst = [{kind = "shrink"}]\nsecond = [{kind = "jpeg"}]\n',
            "once in both",
        ),
    ],
)
def test_what_is_wrong_in_a_degradation_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_degradation(recipe(tmp_path, text))


def pairs(scale: int = 2) -> PicturePairs:
    hr = read_rgb(sample_paths()[2])
    entry = Entry("a.png", hr.shape[0], hr.shape[1], 0)
    store = PictureStore((entry,), hr.reshape(-1))
    lr = pair_from_hr("", hr, scale).lr
    low = PictureStore((Entry("a.png", lr.shape[0], lr.shape[1], 0),), lr.reshape(-1))
    return PicturePairs(store, low, scale, "key", {})


def test_crops_degraded_by_shrinking_alone_are_the_cached_ones(tmp_path: Path) -> None:
    """Away from the picture's edges a crop with its surroundings shrinks as the whole does."""
    degradation = read_degradation(recipe(tmp_path, '[[step]]\nkind = "shrink"\n'))
    source = crop_source(pairs(), 16)
    crops = np.array([[0, 30, 40, orientation] for orientation in range(8)])
    made = cut_degraded_crops(source, crops, CropDegradation(degradation, 0, 0, 0))
    expected = cut_crops(source, crops)
    np.testing.assert_array_equal(made.hr, expected.hr)
    np.testing.assert_array_equal(made.lr[0], expected.lr[0])
    # Turned by a quarter, the two axes are rounded in the other order.
    np.testing.assert_allclose(made.lr.astype(int), expected.lr.astype(int), atol=1)


def test_two_processes_make_the_crops_of_one() -> None:
    degradation = read_degradation("real-esrgan")
    source = crop_source(pairs(), 16)

    def made(part: int, num_parts: int) -> np.ndarray:
        crops = draw_crops(source, seed=3, step=7, batch_size=4, part=part, num_parts=num_parts)
        how = CropDegradation(degradation, 3, 7, part * len(crops))
        return cut_degraded_crops(source, crops, how).lr

    np.testing.assert_array_equal(made(0, 1), np.concatenate([made(0, 2), made(1, 2)]))
