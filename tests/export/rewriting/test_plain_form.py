import pytest
import torch

from swise_deploy.networks.registry import network_module
from swise_deploy.networks.swisenet import SwiseNet
from swise_export.rewriting.deploy_form import deploy_form
from swise_export.rewriting.plain_form import network_from_deploy_form


@pytest.mark.parametrize("branches", [("magnify", "equal", "reduce"), ("reduce",), ()])
def test_the_restored_network_has_the_same_deploy_form_bit_by_bit(network, branches):
    torch.manual_seed(1)
    plain = network.module
    if len(branches) < 3:
        plain = SwiseNet(network.scale, channels=16, branches=branches).eval()
    deployed = deploy_form(plain)
    for parameter in deployed.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    if branches:  # a fixed convolution that nobody trains
        name = "upsampler.shift_add.weight"
        deployed.state_dict()[name].copy_(deploy_form(plain).state_dict()[name])

    again = deploy_form(network_from_deploy_form(plain, deployed))

    expected, found = deployed.state_dict(), again.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_restoring_changes_neither_the_function_nor_the_given_network(network_x2):
    lr = torch.rand(1, 3, 9, 11)
    before = {name: t.clone() for name, t in network_x2.module.state_dict().items()}
    with torch.no_grad():
        restored = network_from_deploy_form(network_x2.module, deploy_form(network_x2.module))
        # fp32: as far apart as the deploy form is from the network (tests/export/test_deploy_form)
        assert torch.allclose(restored(lr), network_x2.module(lr), atol=1e-5)
    assert all(torch.equal(t, before[n]) for n, t in network_x2.module.state_dict().items())


@pytest.mark.parametrize(("name", "scale"), [("carn_m", 3), ("vdsr", 2), ("fmen_s", 4)])
def test_networks_that_the_deploy_form_keeps_are_restored_unchanged(name, scale):
    torch.manual_seed(0)
    plain = network_module(name).build(scale)
    deployed = deploy_form(plain)
    for parameter in deployed.parameters():
        parameter.data += 0.1
    restored = network_from_deploy_form(plain, deployed)
    expected = deployed.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in restored.state_dict().items())


def test_the_sum_of_another_network_is_restored():
    torch.manual_seed(0)
    plain = network_module("fmen_s").build(2, upsampler="sum")
    lr = torch.rand(1, 3, 8, 6)
    with torch.no_grad():
        restored = network_from_deploy_form(plain, deploy_form(plain))
        assert torch.allclose(restored(lr), plain(lr), atol=1e-5)
