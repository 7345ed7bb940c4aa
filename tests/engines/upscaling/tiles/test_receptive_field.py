import json

import numpy as np
import pytest

from swise_engines.upscaling.tiles.receptive_field import cached_overlap, measure_overlap
from swise_engines.upscaling.tiles.tiling import Overlap, Planes


def blur(radius):
    def infer(lr):
        padded = np.pad(lr, ((0, 0), (0, 0), (radius, radius), (radius, radius)))
        size = 2 * radius + 1
        columns = np.lib.stride_tricks.sliding_window_view(padded, size, axis=2).mean(-1)
        return np.lib.stride_tricks.sliding_window_view(columns, size, axis=3).mean(-1)

    return infer


def blocks(side):
    """Replace every block of side x side pixels by its mean: depends on where blocks start."""

    def infer(lr):
        n, c, h, w = lr.shape
        pad = (-h % side, -w % side)
        whole = np.pad(lr, ((0, 0), (0, 0), (0, pad[0]), (0, pad[1])), mode="edge")
        means = whole.reshape(n, c, whole.shape[2] // side, side, -1, side).mean(axis=(3, 5))
        return means.repeat(side, axis=2).repeat(side, axis=3)[:, :, :h, :w]

    return infer


@pytest.mark.parametrize("radius", [0, 1, 4, 13])
def test_the_receptive_field_of_a_mean_filter_is_its_radius(radius):
    assert measure_overlap(blur(radius), 1, rounds=False) == Overlap(radius, step=1)


def test_a_receptive_field_beyond_the_first_probe_is_found_by_the_second():
    assert measure_overlap(blur(60), 1, rounds=False) == Overlap(60, step=1)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_blocks_demand_tiles_that_start_where_blocks_start(side):
    assert measure_overlap(blocks(side), 1, rounds=False) == Overlap(0, step=side)


def test_an_average_over_the_picture_has_no_receptive_field():
    def infer(lr):
        return lr * 0.5 + lr.mean(axis=(2, 3), keepdims=True)

    assert measure_overlap(infer, 1, rounds=False) is None


def test_a_receptive_field_is_found_through_rounding_to_8_bits():
    def infer(lr):
        return np.rint(np.clip(blur(5)(lr), 0, 1) * 255) / 255

    found = measure_overlap(infer, 1, rounds=True)
    assert found is not None
    assert found.margin == 5


@pytest.mark.parametrize("overlap", [Overlap(7, step=2), None])
def test_what_was_measured_is_kept(tmp_path, overlap):
    path = tmp_path / "field.json"
    assert cached_overlap(path, lambda: overlap) == overlap
    assert cached_overlap(path, lambda: pytest.fail("measured again")) == overlap


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"schema_version": 99, "margin": 1})])
def test_a_spoilt_or_older_note_is_measured_again(tmp_path, text):
    path = tmp_path / "field.json"
    path.write_text(text)
    assert cached_overlap(path, lambda: Overlap(3)) == Overlap(3)
    assert json.loads(path.read_text())["margin"] == 3


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert cached_overlap(tmp_path / "file" / "field.json", lambda: Overlap(3)) == Overlap(3)
    assert "measured again next time" in caplog.text


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_a_tile_of_one_small_size_shows_its_receptive_field(radius: int) -> None:
    kernel = 2 * radius + 1

    def infer(lr: Planes) -> Planes:
        """A mean over a window of `kernel` pixels, edges repeated, each pixel doubled."""
        assert lr.shape == (1, 3, 32, 24)
        padded = np.pad(lr, ((0, 0), (0, 0), (radius, radius), (radius, radius)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
        return windows.mean(axis=(-2, -1)).repeat(2, 2).repeat(2, 3)

    overlap = measure_overlap(infer, 2, rounds=False, sizes=[(24, 32)])
    assert overlap is not None
    assert overlap.margin == radius
