import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_bench.measuring.quality import Scored, result_from_scores, score_pictures
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import Quality
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.imresize import imresize


def _pictures(folder: Path, num: int) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for index in range(num):
        noise = generator.integers(0, 256, (6, 7, 3), np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(noise).resize((42, 36), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


class _Bicubic:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, lr: RgbImage) -> RgbImage:
        self.calls += 1
        return np.asarray(imresize(lr, Fraction(2)), np.uint8)


def test_bicubic_on_set5_scores_what_every_paper_prints(shared: Path) -> None:
    """33.66 dB and 0.9299: papers resize the luma; RGB, as networks get it, is 0.012 dB above."""
    paths = sorted((shared / "data/benchmark/Set5/HR").glob("*.png"))
    scored = score_pictures(_Bicubic(), paths, 2, identity="bicubic", cache=None)
    result = result_from_scores("Set5", scored, None)
    assert result.values["psnr_y_db"] == pytest.approx(33.66, abs=0.02)
    assert result.values["ssim_y"] == pytest.approx(0.9299, abs=5e-4)


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 3)
    first, second = _Bicubic(), _Bicubic()
    before = score_pictures(first, paths, 2, identity="a", cache=tmp_path / "cache")
    after = score_pictures(second, paths, 2, identity="a", cache=tmp_path / "cache")
    assert (first.calls, second.calls) == (3, 0)
    assert after.scores == before.scores
    assert after.num_known == 3


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 3)
    cache = tmp_path / "cache"
    score_pictures(_Bicubic(), paths[:2], 2, identity="a", cache=cache)
    (store,) = (cache / "scores").iterdir()
    store.write_text(store.read_text()[:-5])  # killed within the second line
    run = _Bicubic()
    scored = score_pictures(run, paths, 2, identity="a", cache=cache)
    assert run.calls == 2
    assert len(scored.scores) == 3


@pytest.mark.parametrize("changed", ["identity", "scale", "picture"])
def test_anything_that_changes_the_score_is_measured_anew(changed: str, tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 1)
    cache = tmp_path / "cache"
    score_pictures(_Bicubic(), paths, 2, identity="a", cache=cache)
    if changed == "picture":
        Image.open(paths[0]).rotate(180).save(paths[0])
    run = _Bicubic()
    scale = 3 if changed == "scale" else 2

    def upscale(lr: RgbImage) -> RgbImage:
        run.calls += 1
        return np.asarray(imresize(lr, Fraction(scale)), np.uint8)

    identity = "b" if changed == "identity" else "a"
    score_pictures(upscale, paths, scale, identity=identity, cache=cache)
    assert run.calls == 1


def test_a_renamed_picture_keeps_its_score(tmp_path: Path) -> None:
    (path,) = _pictures(tmp_path, 1)
    score_pictures(_Bicubic(), [path], 2, identity="a", cache=tmp_path / "cache")
    renamed = path.rename(tmp_path / "other.png")
    run = _Bicubic()
    scored = score_pictures(run, [renamed], 2, identity="a", cache=tmp_path / "cache")
    assert run.calls == 0
    assert list(scored.scores) == ["other.png"]


def test_pictures_of_one_name_are_all_scored(tmp_path: Path) -> None:
    paths = []
    for folder, path in zip("ab", _pictures(tmp_path, 2), strict=True):
        (tmp_path / folder).mkdir()
        paths.append(path.rename(tmp_path / folder / "x.png"))
    scored = score_pictures(_Bicubic(), paths, 2, identity="a", cache=None)
    assert list(scored.scores) == ["a/x.png", "b/x.png"]
    assert scored.scores["a/x.png"] != scored.scores["b/x.png"]


def test_a_corrupt_picture_among_good_ones_is_left_out(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 2)
    paths[0].write_bytes(paths[0].read_bytes()[:40])
    scored = score_pictures(_Bicubic(), paths, 2, identity="a", cache=None)
    assert list(scored.scores) == ["1.png"]


def test_no_usable_picture_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tiny.png"
    Image.new("RGB", (3, 3)).save(path)
    with pytest.raises(InputError, match="sides of at least 8"):
        score_pictures(_Bicubic(), [path], 2, identity="a", cache=None)


def _scored(**pictures: tuple[float, float]) -> Scored:
    scores = {n: Quality({"psnr_y_db": p, "ssim_y": s}) for n, (p, s) in pictures.items()}
    return Scored(scores, 0, {})


def test_drift_is_the_difference_of_means_and_the_worst_picture_lost_most() -> None:
    reference = _scored(a=(30.0, 0.90), b=(40.0, 0.95)).scores
    result = result_from_scores("set", _scored(a=(29.9, 0.89), b=(40.0, 0.95)), reference)
    assert result.drift["psnr_y_db"] == pytest.approx(-0.05)
    assert result.drift["ssim_y"] == pytest.approx(-0.005)
    assert result.worst.picture == "a"


def test_two_perfect_scores_have_no_drift_and_a_finite_mean() -> None:
    perfect = _scored(a=(math.inf, 1.0))
    result = result_from_scores("set", perfect, perfect.scores)
    assert result.pictures[0].drift["psnr_y_db"] == 0
    assert math.isfinite(result.values["psnr_y_db"] or math.nan)


def test_an_exact_picture_has_no_part_in_a_mean_of_psnr_and_is_named() -> None:
    result = result_from_scores("set", _scored(a=(30.0, 0.9), flat=(math.inf, 1.0)), None)
    assert result.values == {"psnr_y_db": 30.0, "ssim_y": pytest.approx(0.95)}
    assert result.exact == ("flat",)


def test_a_picture_that_another_subject_reproduces_exactly_counts_for_neither() -> None:
    """Else the worse one gains: 60 dB on the easy picture raise its mean above the better one's."""
    better = _scored(a=(31.0, 0.9), easy=(math.inf, 1.0))
    worse = _scored(a=(30.0, 0.9), easy=(60.0, 1.0))
    means = [
        result_from_scores("set", scored, None, exact={"easy"}).values["psnr_y_db"]
        for scored in (better, worse)
    ]
    assert means == [31.0, 30.0]


def test_means_are_over_the_pictures_that_all_subjects_have() -> None:
    result = result_from_scores("set", _scored(a=(30.0, 0.9), b=(50.0, 0.9)), None, common={"a"})
    assert result.values["psnr_y_db"] == 30.0
    assert set(result.skipped) == {"b"}


def test_a_picture_on_which_the_network_fails_is_skipped_and_named(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 2)

    class Fails(_Bicubic):
        def __call__(self, lr: RgbImage) -> RgbImage:
            if self.calls == 0:
                self.calls += 1
                raise RuntimeError("bad allocation")
            return super().__call__(lr)

    scored = score_pictures(Fails(), paths, 2, identity="a", cache=tmp_path / "cache")
    assert scored.skipped == {"0.png": "bad allocation"}
    assert list(scored.scores) == ["1.png"]


def test_scores_of_exact_pictures_and_of_tiny_ones_survive_the_cache(tmp_path: Path) -> None:
    flat, tiny = tmp_path / "flat.png", tmp_path / "tiny.png"
    Image.new("RGB", (40, 40), (90, 90, 90)).save(flat)
    noise = np.random.default_rng(0).integers(0, 256, (10, 10, 3), np.uint8)
    Image.fromarray(noise).save(tiny)
    runs = [
        score_pictures(_Bicubic(), [flat, tiny], 2, identity="a", cache=tmp_path / "cache")
        for _ in range(2)
    ]
    assert runs[1].num_known == 2
    for scored in runs:
        assert scored.scores["flat.png"].is_exact
        assert math.isnan(scored.scores["tiny.png"].ssim_y)


def test_own_low_resolution_is_what_is_upscaled_and_part_of_the_key(tmp_path: Path) -> None:
    paths = _pictures(tmp_path, 2)
    given: list[np.ndarray] = []

    def upscale(lr: np.ndarray) -> np.ndarray:
        given.append(lr)
        return lr.repeat(2, axis=0).repeat(2, axis=1)

    lr = {}
    for i, path in enumerate(paths):
        low = read_rgb(path)[::2, ::2] // 2
        lr[path] = tmp_path / f"low_{i}.png"
        Image.fromarray(low).save(lr[path])
    cache = tmp_path / "cache"
    own = score_pictures(upscale, paths, 2, identity="a", cache=cache, lr=lr)
    np.testing.assert_array_equal(given[0], read_rgb(paths[0])[::2, ::2] // 2)
    made = score_pictures(upscale, paths, 2, identity="a", cache=cache)
    again = score_pictures(upscale, paths, 2, identity="a", cache=cache, lr=lr)
    assert (made.num_known, again.num_known) == (0, 2)
    assert again.scores == own.scores != made.scores
    fewer = score_pictures(upscale, paths, 2, identity="a", cache=None, lr={paths[0]: lr[paths[0]]})
    assert list(fewer.skipped.values()) == ["no LR picture of the same name"]
