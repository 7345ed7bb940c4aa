"""Pictures of a search: crops, held-out pictures, and views that reach further."""

import numpy as np

from swise_deploy.evaluation.pairs import Pair, pair_from_hr
from swise_export.precision.crops import split_pictures, textured_crops
from tests.export.precision.quantised.test_qdq import picture


def flat_with_one_busy_corner() -> Pair:
    hr = np.full((64, 96, 3), 128, np.uint8)
    hr[32:64, 64:96] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    return pair_from_hr("corner", hr, 2)


def test_crops_contain_the_most_texture() -> None:
    pair = flat_with_one_busy_corner()
    first, second = textured_crops([pair], size=16, per_picture=2, scale=2)
    np.testing.assert_array_equal(first.lr, pair.lr[16:32, 32:48])
    np.testing.assert_array_equal(first.hr, pair.hr[32:64, 64:96])
    assert first.name != second.name


def test_small_pictures_are_used_whole() -> None:
    pair = flat_with_one_busy_corner()
    (crop,) = textured_crops([pair], size=100, per_picture=3, scale=2)
    np.testing.assert_array_equal(crop.lr, pair.lr)


def test_every_other_picture_is_held_out() -> None:
    pairs = [picture(i, size=64) for i in range(5)]
    split = split_pictures(pairs, 2)
    assert {crop.name.split()[0] for crop in split.crops} == {"p0", "p2", "p4"}
    assert [pair.name for pair in split.held_out] == ["p1", "p3"]


def test_halves_can_be_swapped() -> None:
    pairs = [picture(i, size=64) for i in range(5)]
    split = split_pictures(pairs, 2, swapped=True)
    assert {crop.name.split()[0] for crop in split.crops} == {"p1", "p3"}
    assert [pair.name for pair in split.held_out] == ["p0", "p2", "p4"]


def test_extremes_reach_from_black_to_white_and_hold_closer_lines() -> None:
    # Lines of two greys, 8 pixels wide; in the picture at half size they are 4 wide.
    lines = np.tile(np.repeat(np.array([100, 140], np.uint8), 16), 8)
    hr = np.repeat(np.tile(lines, (128, 1))[:, :, None], 3, axis=2)
    pair = pair_from_hr("lines", hr, 2)
    split = split_pictures([pair, pair], 2)
    half = next(view for view in split.extremes if "half" in view.name)
    for view in split.extremes:
        assert (view.lr.min(), view.lr.max()) == (0, 255)
        assert view.hr.shape[0] == 2 * view.lr.shape[0]

    def num_edges(lr: np.ndarray) -> int:
        return int(np.sum(np.diff((lr[8, :48, 0] > 127).astype(int)) != 0))

    assert num_edges(half.lr) == 2 * num_edges(split.crops[0].lr) + 1
