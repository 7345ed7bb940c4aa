"""DRCN: one convolution, applied again and again to bicubically enlarged luma.

Every recursion's result is turned into a picture, and the pictures are averaged.

Kim et al., "Deeply-Recursive Convolutional Network for Image Super-Resolution", CVPR 2016.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.parts.pixel_range import unit_range_biases
from swise_deploy.networks.registry import Recognised, Upsampler, check_option, refuse_sum

# Our names, and those of the published TensorFlow checkpoints ("model_F96_D9" and the like).
_FOREIGN_NAMES = {
    "embed1.weight": "W-1_conv/conv_W_1",
    "embed1.bias": "W-1_conv/conv_B",
    "embed2.weight": "W0_conv/conv_W_1",
    "embed2.bias": "W0_conv/conv_B",
    "recur.weight": "W_conv",
    "recur.bias": "B",
    "restore1.weight": "WD1_conv_1",
    "restore1.bias": "BD1",
    "restore2.weight": "WD2_conv_1",
    "restore2.bias": "BD2",
    "votes": "LayerWeights",
}


class DRCN(nn.Module):
    """Embedding, recursive inference, and a reconstruction shared by all recursions.

    Args:
        channels: Feature maps; the paper uses 256.
        recursions: Times that the recursive convolution is applied; the paper uses 16.
    """

    def __init__(self, *, channels: int = 256, recursions: int = 16) -> None:
        super().__init__()
        self.embed1 = nn.Conv2d(1, channels, 3, padding=1)
        self.embed2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.recur = nn.Conv2d(channels, channels, 3, padding=1)
        self.restore1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.restore2 = nn.Conv2d(channels + 1, 1, 3, padding=1)
        self.votes = nn.Parameter(torch.full((recursions,), 1 / recursions))

    def forward(self, y: Tensor) -> Tensor:
        """Sharpen enlarged luma: (N, 1, H, W) to (N, 1, H, W)."""
        features = F.relu(self.embed2(F.relu(self.embed1(y))))
        shares = self.votes / self.votes.sum()
        sharpened = torch.zeros_like(y)
        for recursion in range(len(self.votes)):
            features = F.relu(self.recur(features))
            restored = torch.cat([F.relu(self.restore1(features)), y], dim=1)
            sharpened = sharpened + F.relu(self.restore2(restored)) * shares[recursion]
        return sharpened


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """DRCN with fresh weights."""
    check_option("drcn", option)
    refuse_sum("drcn", upsampler)
    return LumaNetwork(DRCN(), scale, interpolated=True)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise DRCN weights of any width and number of recursions; the scale is not in them."""
    if set(_FOREIGN_NAMES.values()) <= set(state):
        own = {name: state[foreign] for name, foreign in _FOREIGN_NAMES.items()}
    elif set(_FOREIGN_NAMES) <= set(state):
        own = {name: state[name] for name in _FOREIGN_NAMES}
    else:
        return None

    def load(scale: int) -> nn.Module:
        network = DRCN(channels=own["recur.weight"].shape[0], recursions=len(own["votes"]))
        network.load_state_dict(unit_range_biases(own))
        return LumaNetwork(network, scale, interpolated=True)

    return Recognised("drcn", (2, 3, 4), load)
