"""What networks make that a run learns from."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from swise_deploy.checkpoints.shipped import shipped_weights
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import network_module
from swise_deploy.pictures.imresize import imresize
from swise_deploy.runner import float_from_image, image_from_float
from swise_deploy.training.data.picture_cache import PicturePairs, with_teacher_sr
from swise_deploy.training.data.picture_store import Entry, PictureStore
from swise_deploy.training.start.teachers import (
    WINDOW,
    InAllOrientations,
    MeanOfNetworks,
    Shrunk,
    key_of_teachers,
    open_teacher,
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


def test_a_picture_turned_or_mirrored_is_upscaled_to_the_same_turned_or_mirrored():
    torch.manual_seed(0)
    network = network_module("fsrcnn").build(2).eval()
    ensemble = InAllOrientations(network)
    lr = torch.rand(1, 3, 6, 7)
    with torch.inference_mode():
        sr = ensemble(lr)
        for turns in range(4):
            turned = torch.rot90(lr, turns, (2, 3))
            torch.testing.assert_close(ensemble(turned), torch.rot90(sr, turns, (2, 3)))
        torch.testing.assert_close(ensemble(lr.flip(3)), sr.flip(3))
        assert (network(lr.flip(3)) - network(lr).flip(3)).abs().max() > 1e-3


def test_all_orientations_of_a_network_that_has_none_are_the_network():
    def nearest(lr):
        return F.interpolate(lr, scale_factor=2)

    network = torch.nn.Module()
    network.forward = nearest
    lr = torch.rand(1, 3, 5, 8)
    torch.testing.assert_close(InAllOrientations(network)(lr), nearest(lr))


@pytest.mark.parametrize(("own", "scale"), [(4, 3), (4, 2), (3, 2)])
def test_pictures_of_a_larger_scale_are_shrunk_as_matlab_shrinks_them(own, scale):
    # 16 LR pixels: what MATLAB mirrors at the borders is left out by torch.
    torch.manual_seed(0)
    network = network_module("fsrcnn").build(own).eval()
    lr = torch.rand(1, 3, 16, 20)
    with torch.inference_mode():
        large, shrunk = network(lr)[0], Shrunk(network, scale)(lr)[0]
    expected = imresize(large.permute(1, 2, 0).double().numpy(), Fraction(scale, own))
    assert shrunk.shape == (3, 16 * scale, 20 * scale)
    inside = slice(4 * scale, -4 * scale)
    np.testing.assert_allclose(
        shrunk.permute(1, 2, 0).numpy()[inside, inside], expected[inside, inside], atol=1e-5
    )


def test_a_teacher_serves_its_scale_and_smaller_ones():
    file = shipped_weights("swisenet", 3)
    assert file is not None
    lr = torch.rand(1, 3, 8, 9)
    for scale, title in ((3, "SwiseNet"), (2, "SwiseNet (x3, shrunk)")):
        teacher = open_teacher(file, scale)
        assert teacher.title == title
        with torch.inference_mode():
            assert teacher.module(lr).shape == (1, 3, 8 * scale, 9 * scale)
    with pytest.raises(InputError, match=r"swisenet_x3\.safetensors.* x3; .* x4 or more"):
        open_teacher(file, 4)


def test_x4_weights_of_swisenet_teach_x3():
    """The x3 picture that the shipped x4 weights make is close to that of the x3 weights."""
    lr = F.interpolate(torch.rand(1, 3, 6, 6), scale_factor=4, mode="bicubic")
    made = {}
    for scale in (3, 4):
        file = shipped_weights("swisenet", scale)
        assert file is not None
        with torch.inference_mode():
            made[scale] = open_teacher(file, 3).module(lr)
    inside = slice(12, -12)
    difference = (made[3] - made[4])[..., inside, inside]
    assert difference.square().mean().sqrt() < 0.02


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

    def output_of(name):
        return with_teacher_sr(
            pairs, invert, name=name, root=tmp_path, report=lambda *_: None
        ).teacher_sr

    for name in ("one", "one", "two"):
        np.testing.assert_array_equal(output_of(name).picture(1), 255 - lr)
    assert output_of("one").picture(0).shape == (0, 0, 3)
    assert made == [(2, 3, 3)] * 2


def test_the_key_of_teachers_follows_their_bytes_and_the_way(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(file.name.encode())
    key = key_of_teachers(files)
    assert key == key_of_teachers(files) != key_of_teachers(files[::-1])
    assert key != key_of_teachers(files, ensemble=True)
    files[0].write_bytes(b"changed")
    assert key_of_teachers(files) != key
