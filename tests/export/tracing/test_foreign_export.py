"""Networks of others, by the same way into ONNX."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from swise_deploy.checkpoints.adapting import find_size_rules, wrap
from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import ExportError
from swise_export.tracing.trace import export_onnx


class Halves(nn.Module):
    """Upscales x2 over a half-size detour, so that it wants even sizes."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(12, 48, 3, padding=1)

    def forward(self, lr):
        half = self.down(nn.functional.pixel_unshuffle(lr, 2))
        return nn.functional.pixel_shuffle(half, 4)


def test_a_network_that_wants_even_sizes_is_exported_for_any(tmp_path):
    torch.manual_seed(0)
    theirs = Halves().eval()
    rules = find_size_rules(theirs, name="halves")
    module = wrap(theirs, rules)
    network = LoadedNetwork(module, "halves", rules.scale, "fresh weights", "0" * 64)
    export_onnx(network, tmp_path / "halves.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "halves.onnx", providers=["CPUExecutionProvider"]
    )
    for height, width in [(1, 1), (5, 8), (6, 4)]:
        lr = np.random.default_rng(0).random((1, 3, height, width), np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(lr)).numpy()
        np.testing.assert_allclose(session.run(None, {"lr": lr})[0], expected, atol=1e-5)


def test_a_network_that_cannot_be_exported_says_why(tmp_path):
    class Exotic(nn.Module):
        def forward(self, lr):
            up = lr.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return up + torch.special.bessel_j0(up)

    network = LoadedNetwork(Exotic().eval(), "exotic", 2, "fresh weights", "0" * 64)
    with pytest.raises(ExportError, match=r"exotic x2 cannot be traced.*bessel_j0"):
        export_onnx(network, tmp_path / "exotic.onnx")
    assert not (tmp_path / "exotic.onnx").exists()
