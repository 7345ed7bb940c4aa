"""Networks against pictures that their authors' own code made; see golden/README.md."""

from pathlib import Path

import numpy as np
import pytest

from swise_deploy.checkpoints.load import open_network
from swise_deploy.runner import upscale
from swise_deploy.runners.torch_cpu import TorchRunner

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize(
    ("name", "scale"), [("carn_m", 2), ("carn_m", 3), ("carn_m", 4), ("fmen_s", 4)]
)
def test_the_picture_is_that_of_the_authors_code(name: str, scale: int) -> None:
    with np.load(GOLDEN / f"{name}.npz") as golden:
        lr, expected = golden["lr"], golden[f"x{scale}"]
    network = open_network(None, scale=scale, weights=GOLDEN / f"{name}.safetensors")
    assert network.name == name
    with TorchRunner(network) as runner:
        difference = np.abs(upscale(runner, lr).astype(int) - expected)
    # The order of sums differs between CPUs, and a value on the border of two 8-bit values falls
    # either way.
    assert difference.max() <= 1
    assert np.mean(difference != 0) < 1e-3
