import dataclasses

import numpy as np
import pytest

from swise_deploy.training.data.batches import BatchStream, crop_source, cut_crops, draw_crops, turn
from swise_deploy.training.data.picture_cache import PicturePairs
from swise_deploy.training.data.picture_store import Entry, PictureStore

SCALE = 3


def store(pictures):
    entries, offset = [], 0
    for i, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        entries.append(Entry(f"{i}.png", height, width, offset))
        offset += picture.size
    return PictureStore(tuple(entries), np.concatenate([p.ravel() for p in pictures]))


@pytest.fixture
def source():
    """HR is LR with every pixel repeated, so that a crop shows whether it is the right one."""
    rng = np.random.default_rng(1)
    lows = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((9, 14), (20, 6), (7, 7))]
    # Ground truths reach beyond the last whole LR pixel, as uncropped pictures do.
    highs = [
        np.pad(low.repeat(SCALE, 0).repeat(SCALE, 1), ((0, 2), (0, 1), (0, 0))) for low in lows
    ]
    return crop_source(PicturePairs(store(highs), store(lows), SCALE, "key", {}), 6)


def draw_batch(source, **chosen):
    return cut_crops(source, draw_crops(source, **chosen))


def test_hr_crops_lie_over_their_lr_crops_in_every_orientation(source):
    for step in range(20):
        batch = draw_batch(source, seed=0, step=step, batch_size=8)
        assert batch.lr.shape == (8, 6, 6, 3)
        np.testing.assert_array_equal(batch.hr, batch.lr.repeat(SCALE, 1).repeat(SCALE, 2))


def test_what_teachers_make_is_cut_as_hr_is(source):
    torch = pytest.importorskip("torch")
    from swise_deploy.training.data.device_pictures import DevicePictures

    # As large as a whole number of LR pixels, where HR is larger.
    lows = [source.pairs.lr.picture(i) for i in range(3)]
    teacher_sr = store([255 - low.repeat(SCALE, 0).repeat(SCALE, 1) for low in lows])
    pairs = dataclasses.replace(source.pairs, teacher_sr=teacher_sr)
    source = dataclasses.replace(source, pairs=pairs)
    crops = draw_crops(source, seed=0, step=0, batch_size=16)
    batch = cut_crops(source, crops)
    np.testing.assert_array_equal(batch.teacher_sr, 255 - batch.hr)
    cut = DevicePictures(pairs, source.patch_size, torch.device("cpu")).cut(torch.tensor(crops))
    for array, tensor in zip(batch.arrays, cut, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


def test_the_eight_orientations_are_the_symmetries_of_the_square():
    corner = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    seen = {turn(corner, o).tobytes() for o in range(8)}
    assert len(seen) == 8
    np.testing.assert_array_equal(turn(corner, 0), corner)
    np.testing.assert_array_equal(turn(corner, 4), corner[:, ::-1])


def test_the_parts_of_a_batch_are_the_batch(source):
    whole = draw_batch(source, seed=3, step=5, batch_size=6)
    parts = [
        draw_batch(source, seed=3, step=5, batch_size=6, part=i, num_parts=3) for i in range(3)
    ]
    np.testing.assert_array_equal(np.concatenate([p.lr for p in parts]), whole.lr)
    np.testing.assert_array_equal(np.concatenate([p.hr for p in parts]), whole.hr)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_gives_the_batches_of_its_steps_with_and_without_threads(source, workers):
    stream = BatchStream(
        lambda step: draw_batch(source, seed=7, step=step, batch_size=2),
        first_step=40,
        workers=workers,
    )
    try:
        for step in range(40, 60):
            expected = draw_batch(source, seed=7, step=step, batch_size=2)
            np.testing.assert_array_equal(stream.next_batch().hr, expected.hr)
    finally:
        stream.close()
    assert stream.waited_s > 0


def test_other_steps_and_seeds_give_other_crops(source):
    drawn = {
        draw_batch(source, seed=seed, step=step, batch_size=4).lr.tobytes()
        for seed in range(3)
        for step in range(3)
    }
    assert len(drawn) == 9


def test_pictures_are_drawn_by_the_square_root_of_their_area(source):
    sides = np.sqrt([9 * 14, 20 * 6, 7 * 7])
    np.testing.assert_allclose(source.chances, sides / sides.sum())


def test_pictures_that_are_held_out_are_not_drawn(source):
    rest = crop_source(source.pairs, 6, without=(0, 1))
    assert rest.indices == (2,)
    last = source.pairs.lr.picture(2)
    crops = draw_batch(rest, seed=0, step=0, batch_size=16).lr
    windows = {
        turn(last[top : top + 6, left : left + 6], o).tobytes()
        for top in range(2)
        for left in range(2)
        for o in range(8)
    }
    assert {crop.tobytes() for crop in crops} <= windows


def test_a_device_cuts_the_crops_that_the_host_cuts(source):
    torch = pytest.importorskip("torch")
    from swise_deploy.training.data.device_pictures import DevicePictures

    pictures = DevicePictures(source.pairs, source.patch_size, torch.device("cpu"))
    for step in range(20):
        crops = draw_crops(source, seed=5, step=step, batch_size=8)
        lr, hr = pictures.cut(torch.from_numpy(crops))
        expected = cut_crops(source, crops)
        np.testing.assert_array_equal(lr.numpy(), expected.lr)
        np.testing.assert_array_equal(hr.numpy(), expected.hr)
