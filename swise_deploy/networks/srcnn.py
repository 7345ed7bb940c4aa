"""SRCNN: three convolutions on bicubically enlarged luma.

Dong et al., "Learning a Deep Convolutional Network for Image Super-Resolution", ECCV 2014 (9-1-5),
and "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016 (9-3-5 and 9-5-5).
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.parts.pixel_range import unit_range_biases
from swise_deploy.networks.registry import Recognised, Upsampler, check_option, refuse_sum


class SRCNN(nn.Module):
    """Patch extraction, non-linear mapping and reconstruction; picture edges are repeated.

    Args:
        kernels: Kernel sizes of the three convolutions, odd.
        channels: Feature maps after the first and the second.
    """

    def __init__(
        self, kernels: tuple[int, int, int] = (9, 5, 5), channels: tuple[int, int] = (64, 32)
    ) -> None:
        super().__init__()
        first, second, third = kernels
        self.conv1 = nn.Conv2d(1, channels[0], first)
        self.conv2 = nn.Conv2d(channels[0], channels[1], second)
        self.conv3 = nn.Conv2d(channels[1], 1, third)

    def forward(self, y: Tensor) -> Tensor:
        """Sharpen enlarged luma: (N, 1, H, W) to (N, 1, H, W)."""
        y = F.relu(_convolve(self.conv1, y))
        y = F.relu(_convolve(self.conv2, y))
        return _convolve(self.conv3, y)


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve with the edge repeated, as the authors' test code does (imfilter, "replicate")."""
    margin = conv.kernel_size[0] // 2
    y: Tensor = conv(F.pad(x, (margin,) * 4, mode="replicate") if margin else x)
    return y


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """SRCNN 9-5-5 with fresh weights."""
    check_option("srcnn", option)
    refuse_sum("srcnn", upsampler)
    return LumaNetwork(SRCNN(), scale, interpolated=True)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise SRCNN weights of any kernel sizes; the scale is not in them."""
    weights = [state.get(f"conv{i}.weight") for i in (1, 2, 3)]
    first, second, third = weights
    if first is None or second is None or third is None or "conv4.weight" in state:
        return None
    if any(w.ndim != 4 for w in (first, second, third)) or first.shape[1] != 1:
        return None

    def load(scale: int) -> nn.Module:
        network = SRCNN(
            (first.shape[2], second.shape[2], third.shape[2]), (first.shape[0], second.shape[0])
        )
        network.load_state_dict(unit_range_biases(state))
        return LumaNetwork(network, scale, interpolated=True)

    return Recognised("srcnn", (2, 3, 4), load)
