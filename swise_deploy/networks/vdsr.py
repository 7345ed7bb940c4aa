"""VDSR: twenty 3x3 convolutions that add detail to bicubically enlarged luma.

Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.registry import Recognised, Upsampler, check_option, refuse_sum


class VDSR(nn.Module):
    """A chain of 3x3 convolutions, ReLU between them, and one residual connection around all.

    Args:
        depth: Convolutions; the paper uses 20.
        channels: Feature maps between them.
    """

    def __init__(self, depth: int = 20, channels: int = 64) -> None:
        super().__init__()
        widths = [1, *[channels] * (depth - 1), 1]
        for i in range(depth):
            self.add_module(f"conv{i + 1}", nn.Conv2d(widths[i], widths[i + 1], 3, padding=1))

    def forward(self, y: Tensor) -> Tensor:
        """Sharpen enlarged luma: (N, 1, H, W) to (N, 1, H, W)."""
        *hidden, last = self.children()
        x = y
        for conv in hidden:
            x = F.relu(conv(x))
        sharpened: Tensor = y + last(x)
        return sharpened


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """VDSR with fresh weights."""
    check_option("vdsr", option)
    refuse_sum("vdsr", upsampler)
    return LumaNetwork(VDSR(), scale, interpolated=True)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise VDSR weights of any depth and width; one set serves every scale."""
    depth = sum(key.startswith("conv") and key.endswith(".weight") for key in state)
    first = state.get("conv1.weight")
    if depth < 4 or first is None or first.shape[1:] != (1, 3, 3):
        return None

    def load(scale: int) -> nn.Module:
        network = VDSR(depth, first.shape[0])
        biases = {
            key: torch.zeros_like(value)
            for key, value in network.state_dict().items()
            if key.endswith("bias")
        }
        network.load_state_dict({**biases, **state})  # some trainings left the biases out
        return LumaNetwork(network, scale, interpolated=True)

    return Recognised("vdsr", (2, 3, 4), load)
