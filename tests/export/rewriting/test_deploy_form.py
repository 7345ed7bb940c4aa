import pytest
import torch
from torch.nn import functional as F

from swise_deploy.networks.parts.scale_wise import BRANCHES, Branch
from swise_deploy.networks.swisenet import SwiseNet
from swise_export.rewriting.deploy_form import deploy_form
from swise_export.rewriting.periodic_resize import PeriodicResize, phase_weights

SIZES = [(1, 1), (1, 7), (33, 35), (12, 20)]


def trained_looking(scale: int, branches: tuple[Branch, ...] = BRANCHES) -> SwiseNet:
    """A small network in which no parameter is at its neutral start."""
    torch.manual_seed(scale)
    network = SwiseNet(scale, channels=16, branches=branches).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_deploy_form_is_the_same_function(scale: int, size: tuple[int, int]) -> None:
    network = trained_looking(scale)
    lr = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected, got = network(lr), deploy_form(network)(lr)
    # fp32 rounding; the outputs are of the order of 1.
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_deploy_form_is_the_exact_function_at_a_large_size(scale: int) -> None:
    # The truth is the network in double precision: torch computes where a bicubic sample lies in
    # fp32, which at x3 and 160 columns is itself wrong by more than 1e-5; our phases are exact.
    network = trained_looking(scale)
    lr = torch.rand(1, 3, 90, 160)
    with torch.no_grad():
        got = deploy_form(network)(lr)
        expected = network.double()(lr.double())
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "branches", [(), ("magnify",), ("equal",), ("reduce",), ("magnify", "reduce")]
)
def test_every_choice_of_branches_has_a_deploy_form(branches: tuple[Branch, ...]) -> None:
    network = trained_looking(3, branches)
    lr = torch.rand(1, 3, 9, 5)
    with torch.no_grad():
        torch.testing.assert_close(deploy_form(network)(lr), network(lr), atol=1e-5, rtol=0)


def test_the_given_network_does_not_change() -> None:
    network = trained_looking(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    deploy_form(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(("num", "den"), [(2, 3), (3, 4), (4, 5), (2, 1), (6, 1), (8, 1)])
def test_periodic_resize_equals_torch_bicubic(num: int, den: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3 * den, 4 * den)
    got = F.pixel_shuffle(PeriodicResize(5, num, den)(x), num)
    expected = F.interpolate(x, size=(3 * num, 4 * num), mode="bicubic", align_corners=False)
    # torch computes the phases in fp32: a few units in the last place of values up to 4.
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_phases_of_doubling_by_hand() -> None:
    # Output 0 lies at input -0.25, output 1 at 0.25; Keys' kernel with a = -0.75 at distances 0.25,
    # 0.75, 1.25 and 1.75.
    weights, first = phase_weights(2, 1)
    near, middle = 1.25 / 64 - 2.25 / 16 + 1, 1.25 * 27 / 64 - 2.25 * 9 / 16 + 1
    far, last = (-0.75 * d**3 + 3.75 * d**2 - 6 * d + 3 for d in (1.25, 1.75))
    assert first == -2
    assert weights[0].tolist() == pytest.approx([last, middle, near, far, 0])
    assert weights[1].tolist() == pytest.approx([0, far, near, middle, last])
