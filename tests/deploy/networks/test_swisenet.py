import pytest
import torch

from swise_deploy.checkpoints.load import open_network
from swise_deploy.networks.parts.scale_wise import BRANCHES, ScaleWiseUpsample
from swise_deploy.networks.swisenet import SwiseNet, build


@pytest.mark.parametrize(("scale", "params"), [(2, 924_836), (3, 1_036_196), (4, 1_184_676)])
def test_parameters_equal_those_counted_from_the_reference_code(scale: int, params: int) -> None:
    assert sum(p.numel() for p in SwiseNet(scale).parameters()) == params


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_plain_head_has_one_convolution_instead_of_the_sum(scale: int) -> None:
    body = sum(
        p.numel() for name, p in SwiseNet(scale).named_parameters() if "upsampler" not in name
    )
    plain = build(scale, option="no_sum")
    # 3x3 convolution from 64 to 3 s^2 channels, with bias.
    assert sum(p.numel() for p in plain.parameters()) == body + (9 * 64 + 1) * 3 * scale**2


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 4)])
@pytest.mark.parametrize("branches", [BRANCHES, (), ("reduce",), ("magnify",)])
def test_any_size_comes_out_scaled(scale: int, size: tuple[int, int], branches: tuple) -> None:
    network = SwiseNet(scale, channels=8, branches=branches)
    sr = network(torch.rand(2, 3, *size))
    assert sr.shape == (2, 3, size[0] * scale, size[1] * scale)


def test_fresh_blocks_are_the_identity_plus_nothing() -> None:
    # beta and gamma are zero at the start, so that a block passes its input on.
    network = SwiseNet(2, channels=8)
    x = torch.rand(1, 8, 6, 5)
    assert torch.equal(network.get_submodule("body.units.0.units.0")(x), x)


def test_constant_picture_keeps_its_colour_without_detail() -> None:
    network = SwiseNet(3, channels=8, branches=())
    for parameter in network.upsampler.parameters():
        torch.nn.init.zeros_(parameter)
    sr = network(torch.full((1, 3, 4, 6), 0.25))
    assert torch.allclose(sr, torch.full_like(sr, 0.25), atol=1e-6)


def test_sum_serves_another_network() -> None:
    upsampler = ScaleWiseUpsample(12, 1, 4)
    assert upsampler(torch.rand(1, 12, 5, 3)).shape == (1, 1, 20, 12)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (6, 7)])
def test_sum_trains_the_function_that_it_computes(scale: int, size: tuple[int, int]) -> None:
    upsampler = ScaleWiseUpsample(8, 3, scale).double()
    x = torch.rand(2, 8, *size, dtype=torch.float64, requires_grad=True)
    wanted = torch.rand(2, 3, size[0] * scale, size[1] * scale, dtype=torch.float64)
    inputs = [x, *upsampler.parameters()]

    def picture_and_gradients(*, training: bool) -> list[torch.Tensor]:
        picture = upsampler.train(training)(x)
        return [picture, *torch.autograd.grad((picture * wanted).sum(), inputs)]

    expected = picture_and_gradients(training=False)
    for found, as_deployed in zip(picture_and_gradients(training=True), expected, strict=True):
        torch.testing.assert_close(found, as_deployed, rtol=1e-10, atol=1e-10)


def test_sum_refuses_unknown_branches() -> None:
    with pytest.raises(ValueError, match="widen"):
        ScaleWiseUpsample(8, 3, 2, branches=("widen",))  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("scale", [2, 4])
def test_shipped_weights_load(scale: int) -> None:
    loaded = open_network("swisenet", scale=scale)
    assert loaded.scale == scale
    assert len(loaded.weights_sha256) == 64
