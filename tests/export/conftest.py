"""Small networks with weights that look trained."""

import pytest
import torch

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
    block = network.body.units[0].units[0]
    half = block.conv1.out_channels // 2
    for grown in (block.conv1.weight, block.conv1.bias, block.dwconv.bias):
        grown.data[:half] *= gain
    block.attention.weight.data /= gain
    block.conv3.weight.data /= gain
    return LoadedNetwork(network, "swisenet", scale, "seeded", "0" * 64)


@pytest.fixture(params=[2, 3, 4])
def network(request: pytest.FixtureRequest) -> LoadedNetwork:
    return loaded_swisenet(request.param)


@pytest.fixture
def network_x2() -> LoadedNetwork:
    return loaded_swisenet(2)
