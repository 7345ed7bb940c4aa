import itertools

import numpy as np
import pytest

from swise_engines.upscaling.tiles.tiling import Overlap, plan_spans, rigid_length, upscale_tiled


def enlarge(lr, scale):
    return lr.repeat(scale, axis=2).repeat(scale, axis=3)


def blur_then_enlarge(radius, scale):
    """Mean over (2*radius + 1)^2 pixels, black outside: sees exactly `radius` pixels far."""

    def infer(lr):
        padded = np.pad(lr, ((0, 0), (0, 0), (radius, radius), (radius, radius)))
        size = 2 * radius + 1
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
        return enlarge(windows.mean(axis=(4, 5), dtype=np.float32), scale)

    return infer


def tiled(infer, lr, *, scale, tile, overlap, batch=1):
    rows = plan_spans(lr.shape[2], tile, overlap)
    columns = plan_spans(lr.shape[3], tile, overlap)
    bands = list(upscale_tiled(infer, lr, scale=scale, rows=rows, columns=columns, batch=batch))
    assert [top for top, _ in bands] == np.cumsum(
        [0, *(b.shape[2] for _, b in bands[:-1])]
    ).tolist()
    return np.concatenate([band for _, band in bands], axis=2)


@pytest.mark.parametrize("length", [1, 7, 31, 32, 33, 47, 64, 97, 250])
@pytest.mark.parametrize(
    "overlap", [Overlap(0), Overlap(3), Overlap(2, fade=3), Overlap(4, step=4)]
)
def test_spans_cover_an_axis_once_and_keep_the_margin_from_every_cut(length, overlap):
    spans = plan_spans(length, 32, overlap)
    assert spans[0].start == spans[0].fade_in[0] == 0
    assert spans[-1].stop == spans[-1].fade_out[1] == length
    for before, after in itertools.pairwise(spans):
        assert before.fade_out == after.fade_in
        assert after.fade_in[1] - after.fade_in[0] == overlap.fade
        assert after.fade_in[0] - after.start >= overlap.margin
        assert before.stop - before.fade_out[1] >= overlap.margin
        assert after.fade_in[1] <= after.fade_out[0]
    assert all(span.start % overlap.step == 0 for span in spans)
    sizes = [span.stop - span.start for span in spans]
    assert max(sizes) <= 32
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] - sizes[0] in range(overlap.step)


@pytest.mark.parametrize("length", [1, 47, 48, 49, 50, 96, 97, 130, 251])
@pytest.mark.parametrize("overlap", [Overlap(3), Overlap(4, step=4), Overlap(2, fade=3, step=8)])
def test_rigid_tiles_all_have_the_length_and_the_axis_is_grown_by_less_than_a_step(length, overlap):
    grown = rigid_length(length, 47, overlap.step)
    assert 0 <= grown - max(length, 47) < overlap.step
    spans = plan_spans(grown, 47, overlap, is_rigid=True)
    assert {span.stop - span.start for span in spans} == {47}
    assert all(span.start % overlap.step == 0 for span in spans)
    for before, after in itertools.pairwise(spans):
        assert after.fade_in[0] - after.start >= overlap.margin
        assert before.stop - before.fade_out[1] >= overlap.margin
        assert after.fade_in[1] <= after.fade_out[0]


def test_an_axis_that_rigid_tiles_cannot_end_at_is_refused():
    with pytest.raises(ValueError, match="98 pixels in tiles of 47 leave a rest at steps of 2"):
        plan_spans(98, 47, Overlap(3, step=2), is_rigid=True)


@pytest.mark.parametrize(
    "overlap", [Overlap(5, fade=4, step=2), Overlap(10, step=8), Overlap(0), Overlap(16, 16, 8)]
)
def test_the_least_tile_that_is_named_is_enough_for_every_length_and_no_larger_than_needed(overlap):
    smallest = overlap.smallest_tile
    for length in range(smallest + 1, 3 * smallest):
        assert len(plan_spans(length, smallest, overlap)) > 1
    with_a_rest = 3 * smallest * overlap.step + 1
    with pytest.raises(ValueError, match=f"too small for an overlap of {overlap.width} "):
        plan_spans(with_a_rest, smallest - 1, overlap)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (33, 65), (70, 31), (64, 64)])
@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_of_a_network_with_a_known_receptive_field_equal_the_full_frame(
    height, width, scale, batch
):
    lr = np.random.default_rng(height).random((1, 3, height, width), np.float32)
    infer = blur_then_enlarge(3, scale)
    got = tiled(infer, lr, scale=scale, tile=24, overlap=Overlap(3), batch=batch)
    np.testing.assert_array_equal(got, infer(lr))


def test_one_pixel_too_little_overlap_shows():
    lr = np.random.default_rng(0).random((1, 3, 60, 60), np.float32)
    infer = blur_then_enlarge(3, 2)
    got = tiled(infer, lr, scale=2, tile=24, overlap=Overlap(2))
    assert np.abs(got - infer(lr)).max() > 0.01


def test_fading_hides_a_step_between_tiles():
    calls = itertools.count(1)

    def brighter_from_tile_to_tile(lr):
        return lr + np.float32(0.1 * next(calls))

    lr = np.zeros((1, 3, 20, 100), np.float32)
    got = tiled(brighter_from_tile_to_tile, lr, scale=1, tile=40, overlap=Overlap(2, fade=10))
    steps = np.abs(np.diff(got[0, 0, 0]))
    assert steps.max() == pytest.approx(0.01, rel=1e-3)  # 0.1 over 10 pixels


def test_a_constant_stays_constant_under_fading():
    lr = np.full((1, 3, 90, 77), 0.3, np.float32)
    got = tiled(lambda x: enlarge(x, 2), lr, scale=2, tile=32, overlap=Overlap(3, fade=5))
    np.testing.assert_allclose(got, 0.3, rtol=3e-7)
