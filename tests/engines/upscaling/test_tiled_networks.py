"""The networks of the comparison table: tiled as the full frame, where they see a bounded part."""

import numpy as np
import pytest

from swise_deploy.networks.registry import NETWORKS, network_module
from swise_engines.upscaling.tiles.receptive_field import measure_overlap
from swise_engines.upscaling.tiles.tiling import TileLimits
from swise_engines.upscaling.upscaler import Upscaler

torch = pytest.importorskip("torch", reason="networks are built in torch")

QUICK = ("bicubic", "fsrcnn")
# SwiseNet averages over the picture, LBNet and SwinIR attend over it or over shifted windows.
UNBOUNDED = ("swisenet", "swisenet_no_sum", "lbnet", "lbnet_t", "swinir_light")
BOUNDED = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in NETWORKS
    if name not in UNBOUNDED
]


def runner_of(name):
    from swise_deploy.checkpoints.load import LoadedNetwork
    from swise_deploy.runners.torch_cpu import TorchRunner

    torch.manual_seed(0)
    network = NETWORKS[name]
    scale = 2 if 2 in network.scales else network.scales[0]
    module = network_module(name).build(scale, option=network.option).eval()
    return TorchRunner(LoadedNetwork(module, name, scale, "seed 0", ""))


@pytest.mark.parametrize("name", BOUNDED)
def test_tiles_of_a_network_with_a_bounded_view_equal_the_full_frame(name):
    runner = runner_of(name)
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    image = (coarse // 2 + rng.integers(0, 128, coarse.shape, np.uint8)).astype(np.uint8)

    def find(infer):
        return measure_overlap(infer, runner.scale, rounds=False, sizes=((112, 112),))

    whole = Upscaler(runner, TileLimits(most=(512, 512)), find_overlap=find)(image)
    upscaler = Upscaler(runner, TileLimits(most=(112, 112)), find_overlap=find)
    tiled = upscaler(image)
    assert upscaler.is_exact, "no bounded receptive field was found"
    assert len(upscaler._plan(192, 144)[1]) > 1
    assert np.abs(tiled.astype(int) - whole).max() <= 1
