import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import centre_crop
from swise_deploy.training.data.picture_cache import PicturePairs
from swise_deploy.training.data.picture_store import Entry, PictureStore
from swise_deploy.training.run.validation import (
    held_out_indices,
    pairs_from_cache,
    pairs_from_folder,
    score_network,
)

CPU = torch.device("cpu")


class Repeat(nn.Module):
    """Every pixel repeated 2 x 2, with an offset in levels of 255."""

    def __init__(self, offset):
        super().__init__()
        self.offset = offset

    def forward(self, lr):
        return lr.repeat_interleave(2, 2).repeat_interleave(2, 3) + self.offset / 255


def pairs(names, sides):
    entries, offset = [], 0
    for name, side in zip(names, sides, strict=True):
        entries.append(Entry(name, side, side, offset))
        offset += side * side * 3
    store = PictureStore(tuple(entries), np.full(offset, 77, np.uint8))
    return PicturePairs(store, store, 2, "key", {})


def test_held_out_pictures_hang_on_names_not_on_order():
    names = [f"{i}.png" for i in range(10)]
    chosen = held_out_indices(pairs(names, [20] * 10), 3, smallest=8)
    turned = held_out_indices(pairs(names[::-1], [20] * 10), 3, smallest=8)
    assert len(chosen) == 3
    assert {names[i] for i in chosen} == {names[::-1][i] for i in turned}


def test_pictures_too_small_for_a_crop_are_not_held_out():
    some = pairs([f"{i}.png" for i in range(8)], [20, 5] * 4)
    assert set(held_out_indices(some, 2, smallest=8)) <= {0, 2, 4, 6}
    with pytest.raises(InputError, match="holdout is 3, of 4 usable pictures"):
        held_out_indices(some, 3, smallest=8)


@pytest.mark.parametrize(("side", "shape"), [(0, (7, 10)), (4, (4, 4)), (8, (7, 8)), (99, (7, 10))])
def test_the_centre_crop_is_the_middle(side, shape):
    picture = np.zeros((7, 10, 3), np.uint8)
    picture[3, 4] = 255
    cropped = centre_crop(picture, side)
    assert cropped.shape == (*shape, 3)
    assert cropped.max() == 255


@pytest.mark.parametrize("offset", [1, 5])
def test_scores_are_those_of_the_protocol(offset):
    # A grey that is off by d levels is off by d * (65.481 + 128.553 + 24.966) / 255 in luma.
    grey = pairs_from_cache(pairs(["a.png"], [24]), [0], crop=16)
    score = score_network(Repeat(offset), grey, 2, device=CPU)["a.png"]
    error = offset * 219 / 255
    assert score.psnr_y_db == pytest.approx(20 * np.log10(255 / error), abs=1e-6)


def test_a_validation_folder_is_read_and_cropped(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (21, 30, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"")
    (whole,) = pairs_from_folder(tmp_path, 2)
    assert (whole.hr.shape, whole.lr.shape) == ((20, 30, 3), (10, 15, 3))
    (cropped,) = pairs_from_folder(tmp_path, 2, crop=12)
    assert cropped.hr.shape == (12, 12, 3)
    assert dataclasses.asdict(cropped).keys() == {"name", "lr", "hr"}
