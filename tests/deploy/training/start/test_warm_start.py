import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from swise_deploy.checkpoints.shipped import shipped_weights
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import quality
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.networks.parts.upsamplers import PixelShuffleUpsample
from swise_deploy.networks.swisenet import SwiseNet
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.imresize import imresize
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.run.validation import score_network
from swise_deploy.training.start.warm_start import (
    resample_subpixels,
    warm_start,
    warm_start_from_file,
)
from swise_deploy.training.step.network import build_network


def test_two_subpixels_become_four_by_hand():
    # Centres of 2 sub-pixels: 1/4, 3/4. Of 4: 1/8, 3/8, 5/8, 7/8; beyond them nothing changes.
    rows = torch.tensor([10.0, 10.0, 20.0, 20.0])  # (i, j) -> 10 for i = 0, 20 for i = 1
    finer = resample_subpixels(rows, 2, 4).reshape(4, 4)
    expected = torch.tensor([10.0, 12.5, 17.5, 20.0])
    torch.testing.assert_close(finer, expected[:, None].expand(4, 4))
    columns = resample_subpixels(torch.tensor([10.0, 20.0, 10.0, 20.0]), 2, 4).reshape(4, 4)
    torch.testing.assert_close(columns, expected[None].expand(4, 4))


def test_channels_and_kernel_taps_are_not_mixed():
    kernels = torch.zeros(3 * 4, 5, 3, 3)
    kernels[4:8, 2, 1, 0] = 7.0  # channel 1, one tap, alike in all sub-pixels
    finer = resample_subpixels(kernels, 2, 3)
    expected = torch.zeros(3 * 9, 5, 3, 3)
    expected[9:18, 2, 1, 0] = 7.0
    torch.testing.assert_close(finer, expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_head_that_repeats_pixels_still_does_at_every_scale(scale):
    head = PixelShuffleUpsample(3, 3, 2)
    with torch.no_grad():
        head.conv.weight.zero_()
        head.get_parameter("conv.bias").zero_()
        for channel in range(3):
            head.conv.weight[4 * channel : 4 * channel + 4, channel, 1, 1] = 1.0
    other = PixelShuffleUpsample(3, 3, scale)
    start = warm_start(head.state_dict(), other.state_dict(), from_scale=2, to_scale=scale)
    other.load_state_dict(start.state)
    lr = torch.rand(1, 3, 4, 5)
    expected = lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    torch.testing.assert_close(other(lr), expected)
    assert bool(start.resampled) is (scale != 2)


def test_swisenet_carries_all_but_the_subpixel_convolutions_over_as_they_are():
    x2, x3 = SwiseNet(2, channels=8), SwiseNet(3, channels=8)
    start = warm_start(x2.state_dict(), x3.state_dict(), from_scale=2, to_scale=3)
    assert set(start.resampled) == {
        f"upsampler.{branch}.conv.{part}"
        for branch in ("magnify", "equal")
        for part in ("weight", "bias")
    }
    assert start.fresh == start.unused == ()
    assert len(start.copied) == len(x3.state_dict()) - 4
    x3.load_state_dict(start.state)


@pytest.mark.parametrize(("scale", "gain_db"), [(3, 3.0), (4, 1.5)])
def test_shipped_x2_weights_beat_bicubic_at_other_scales_before_any_step(
    shared, tmp_path, scale, gain_db
):
    hr = read_rgb(shared / "data" / "benchmark" / "Set5" / "HR" / "butterfly.png")
    pair = pair_from_hr("", hr[60:156, 60:156], scale)
    bicubic = quality(np.asarray(imresize(pair.lr, scale), np.uint8), pair.hr, border=scale)
    config = TrainConfig(
        data=tmp_path, out=tmp_path, scale=scale, init=shipped_weights("swisenet", 2)
    )
    network = build_network(config).module
    cpu = torch.device("cpu")
    ours = score_network(network.eval(), [pair], scale, device=cpu)[""]
    assert ours.psnr_y_db > bicubic.psnr_y_db + gain_db


def test_excluded_tensors_stay_fresh(tmp_path):
    path = tmp_path / "x2.safetensors"
    network = SwiseNet(2)
    save_file(network.state_dict(), path)
    start = warm_start_from_file(path, SwiseNet(2), 2, exclude=["upsampler.*", "fuse.bias"])
    assert {name.split(".")[0] for name in start.fresh} == {"upsampler", "fuse"}
    assert "fuse.bias" in start.fresh
    assert "fuse.weight" in start.copied


def test_weights_that_give_nothing_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"gives this network nothing.*layer\.weight"):
        warm_start_from_file(path, SwiseNet(2, channels=8), 2)


@pytest.mark.parametrize("missing", ["upsampler.", "head.", "fuse_scale"])
def test_a_part_of_a_network_gives_what_it_has(tmp_path, missing):
    network = SwiseNet(2, channels=8)
    state = SwiseNet(2, channels=8).state_dict()
    part = {k: v for k, v in state.items() if not k.startswith(missing)}
    save_file(part, tmp_path / "part.safetensors")
    start = warm_start_from_file(tmp_path / "part.safetensors", network, 2)
    assert set(start.copied) == set(part)
    assert set(start.fresh) == set(state) - set(part)
    assert all(torch.equal(start.state[name], tensor) for name, tensor in part.items())
