import numpy as np
import pytest
import torch

from swise_deploy.networks.bicubic import build
from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.parts.matlab_bicubic import phase_kernels
from swise_deploy.pictures.imresize import imresize


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (2, 3), (7, 9)])
def test_the_convolution_equals_imresize(scale, height, width):
    image = np.random.default_rng(0).random((height, width, 3))
    with torch.inference_mode():
        sr = build(scale)(torch.from_numpy(image).permute(2, 0, 1)[None].float())
    expected = imresize(image, scale)
    # float32 against float64.
    np.testing.assert_allclose(sr[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_phase_keeps_a_flat_picture_flat(scale):
    sums = phase_kernels(scale).sum(dim=(1, 2, 3))
    torch.testing.assert_close(sums, torch.ones(scale**2))


def test_phases_of_x2_are_keys_kernel_by_hand():
    # At a quarter of a pixel to the left: taps at 1.75, 0.75, 0.25 and 1.25 pixels, a = -0.5.
    taps = torch.tensor([-0.0234375, 0.2265625, 0.8671875, -0.0703125, 0.0])
    torch.testing.assert_close(phase_kernels(2)[0, 0], torch.outer(taps, taps))


@pytest.mark.parametrize("interpolated", [True, False])
def test_a_luma_network_that_changes_nothing_is_bicubic(interpolated):
    network = torch.nn.Identity() if interpolated else _FirstChannelCubic()
    lr = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        sr = LumaNetwork(network, 2, interpolated=interpolated)(lr)
    torch.testing.assert_close(sr, build(2)(lr), atol=1e-6, rtol=0)


def test_a_luma_network_changes_luma_and_leaves_chroma():
    lr = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    brighter = LumaNetwork(_AddTenth(), 2, interpolated=True)
    with torch.inference_mode():
        change = (brighter(lr) - build(2)(lr))[0].double()
    # MATLAB rgb2ycbcr.
    matrix = torch.tensor(
        [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
    ).double()
    y, cb, cr = torch.einsum("ij,jhw->ihw", matrix / 255, change)
    torch.testing.assert_close(y, torch.full_like(y, 0.1), atol=1e-6, rtol=0)
    assert cb.abs().max() < 1e-6
    assert cr.abs().max() < 1e-6


class _FirstChannelCubic(torch.nn.Module):
    def forward(self, y):
        return build(2)(y.repeat(1, 3, 1, 1))[:, :1]


class _AddTenth(torch.nn.Module):
    def forward(self, y):
        return y + 0.1
