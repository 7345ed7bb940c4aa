"""What networks make that a run learns from."""

import numpy as np
import pytest
import torch

from swise_deploy.models.registry import network_module
from swise_deploy.runner import float_from_image, image_from_float
from swise_deploy.training.picture_cache import Entry, PicturePairs, PictureStore, with_taught
from swise_deploy.training.teaching import (
    WINDOW,
    MeanOfNetworks,
    key_of_files,
    upscale_in_windows,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(9, 14), (WINDOW + 5, 20), (30, 2 * WINDOW + 1)])
def test_windows_make_the_picture_that_the_whole_makes(size):
    torch.manual_seed(0)
    network = network_module("fsrcnn").build(2).eval()
    lr = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with torch.inference_mode():
        whole = image_from_float(network(torch.from_numpy(float_from_image(lr))).numpy())
    windows = upscale_in_windows(network, lr, 2, device=CPU)
    assert windows.shape == (2 * size[0], 2 * size[1], 3)
    # Other sums of other sizes: a value between two levels may fall to either side.
    assert np.abs(windows.astype(int) - whole).max() <= 1
    assert len(np.unique(whole)) > 10


def test_the_mean_of_networks_is_that_of_their_pictures():
    torch.manual_seed(0)
    networks = [network_module("fsrcnn").build(2).eval() for _ in range(2)]
    lr = torch.rand(1, 3, 6, 7)
    with torch.inference_mode():
        expected = (networks[0](lr) + networks[1](lr)) / 2
        torch.testing.assert_close(MeanOfNetworks(networks)(lr), expected)


def test_pictures_are_made_once_and_again_for_other_teachers(tmp_path):
    lr = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    store = PictureStore(
        (Entry("empty.png", 0, 0, 0), Entry("a.png", 2, 3, 0)), np.ascontiguousarray(lr).ravel()
    )
    pairs = PicturePairs(store, store, 1, "key", {})
    made = []

    def invert(picture):
        made.append(picture.shape)
        return 255 - picture

    def taught(name):
        return with_taught(pairs, invert, name=name, root=tmp_path, report=lambda *_: None).taught

    for name in ("one", "one", "two"):
        np.testing.assert_array_equal(taught(name).picture(1), 255 - lr)
    assert taught("one").picture(0).shape == (0, 0, 3)
    assert made == [(2, 3, 3)] * 2


def test_the_key_of_files_follows_their_bytes(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(file.name.encode())
    key = key_of_files(files)
    assert key == key_of_files(files) != key_of_files(files[::-1])
    files[0].write_bytes(b"changed")
    assert key_of_files(files) != key
