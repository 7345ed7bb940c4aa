"""Small networks with weights that look trained."""

import pytest
import torch
from torch import nn

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.networks.swisenet import SwiseNet


def loaded_swisenet(scale: int, *, gain: float = 1.0) -> LoadedNetwork:
    """A SwiseNet with 16 channels.

    `gain` multiplies the activations inside the first gated block and divides them again behind it,
    so that the function stays the same whatever it is.
    """
    torch.manual_seed(scale)
    network = SwiseNet(scale, channels=16).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    block = network.get_submodule("body.units.0.units.0")
    first = block.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    half = first.out_channels // 2
    for name in ("conv1.weight", "conv1.bias", "dwconv.bias"):
        grown = block.get_parameter(name)
        grown.data[:half] *= gain
    block.get_parameter("attention.weight").data /= gain
    block.get_parameter("conv3.weight").data /= gain
    return LoadedNetwork(network, "swisenet", scale, "seeded", "0" * 64)


@pytest.fixture(params=[2, 3, 4])
def network(request: pytest.FixtureRequest) -> LoadedNetwork:
    return loaded_swisenet(request.param)


@pytest.fixture
def network_x2() -> LoadedNetwork:
    return loaded_swisenet(2)
