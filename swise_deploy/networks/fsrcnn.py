"""FSRCNN: thin convolutions on low-resolution luma and one transposed convolution.

Dong et al., "Accelerating the Super-Resolution Convolutional Neural Network", ECCV 2016:
FSRCNN(56, 12, 4).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.registry import Recognised, Upsampler, check_option, refuse_sum

SCALES = (2, 3, 4)


class FSRCNN(nn.Module):
    """Feature extraction, shrinking, mapping, expanding and deconvolution.

    Args:
        scale: 2, 3 or 4.
        channels: Feature maps d.
        shrunk: Feature maps s while mapping.
        depth: Mapping convolutions m.
    """

    def __init__(self, scale: int, *, channels: int = 56, shrunk: int = 12, depth: int = 4) -> None:
        super().__init__()
        self.first_part = nn.Sequential(nn.Conv2d(1, channels, 5, padding=2), nn.PReLU(channels))
        mapping: list[nn.Module] = [nn.Conv2d(channels, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(depth):
            mapping += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk)]
        mapping += [nn.Conv2d(shrunk, channels, 1), nn.PReLU(channels)]
        self.mid_part = nn.Sequential(*mapping)
        self.last_part = nn.ConvTranspose2d(
            channels, 1, 9, stride=scale, padding=4, output_padding=scale - 1
        )

    def forward(self, y: Tensor) -> Tensor:
        """Upscale luma: (N, 1, H, W) to (N, 1, H*scale, W*scale)."""
        sr: Tensor = self.last_part(self.mid_part(self.first_part(y)))
        return sr


def build(scale: int, *, option: str = "", upsampler: Upsampler = "default") -> nn.Module:
    """FSRCNN(56, 12, 4) with fresh weights."""
    check_option("fsrcnn", option)
    refuse_sum("fsrcnn", upsampler)
    return LumaNetwork(FSRCNN(scale), scale, interpolated=False)


def recognise(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise FSRCNN weights of any d, s and m, and the scale that they were trained for."""
    if not {"first_part.0.weight", "mid_part.0.weight", "last_part.weight"} <= set(state):
        return None

    def load_luma(scale: int) -> FSRCNN:
        convolutions = [k for k, v in state.items() if k.startswith("mid_part") and v.ndim == 4]
        network = FSRCNN(
            scale,
            channels=state["first_part.0.weight"].shape[0],
            shrunk=state["mid_part.0.weight"].shape[0],
            depth=len(convolutions) - 2,
        )
        network.load_state_dict(dict(state))
        return network

    def load(scale: int) -> nn.Module:
        return LumaNetwork(load_luma(scale), scale, interpolated=False)

    return Recognised("fsrcnn", _scales_that_keep_brightness(load_luma), load)


def _scales_that_keep_brightness(load: Callable[[int], FSRCNN]) -> tuple[int, ...]:
    """The scale at which a grey picture stays as grey as it is.

    The shapes are the same for every scale, but a transposed convolution run with another stride
    than it was trained for changes the mean brightness by the square of the ratio. All scales
    where none fits (weights that were not trained).
    """
    grey = torch.full((1, 1, 16, 16), 0.5)
    with torch.inference_mode():
        means = {s: load(s)(grey)[..., 6 * s : -6 * s, 6 * s : -6 * s].mean() for s in SCALES}
    errors = {s: float((mean - 0.5).abs()) for s, mean in means.items()}
    best = min(errors, key=lambda s: errors[s])
    return (best,) if errors[best] < 0.05 else SCALES
