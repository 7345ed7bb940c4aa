from pathlib import Path

import torch
from torch import Tensor, nn

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_export.counting import count_onnx
from swise_export.tracing.trace import export_onnx


class Recurrent(nn.Module):
    """An x2 network that uses one Linear three times; its biases start equal."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3)
        self.head = nn.Conv2d(3, 12, 1)
        self.shuffle = nn.PixelShuffle(2)
        for name in ("mix.bias", "head.bias"):
            nn.init.zeros_(self.get_parameter(name))

    def forward(self, lr: Tensor) -> Tensor:
        rows = lr.permute(0, 2, 3, 1)
        for _ in range(3):
            rows = torch.relu(self.mix(rows))
        return self.shuffle(self.head(rows.permute(0, 3, 1, 2)))


def test_a_shared_layer_is_stored_and_counted_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = LoadedNetwork(
        name="recurrent", scale=2, module=Recurrent().eval(), source="none", weights_sha256="0" * 64
    )
    path = tmp_path / "recurrent.onnx"
    export_onnx(network, path, form="plain")
    counts = count_onnx(path, lr_size=(10, 6))
    assert counts.params == (9 + 3) + (36 + 12)
    assert counts.mult_adds == 60 * (3 * 9 + 36)
