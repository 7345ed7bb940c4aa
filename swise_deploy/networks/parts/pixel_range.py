"""Weights of networks that were trained on pictures in 0..255, brought to pictures in 0..1.

EDSR's training code, which many networks use, subtracts the mean of DIV2K in the first layer and
adds it in the last one ("sub_mean", "add_mean"), in the range of the pictures. Here networks take
and give [0, 1], so the range is folded into the first and last layers.
"""

from collections.abc import Mapping

from torch import Tensor

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of the DIV2K training images, RGB in [0, 1] (EDSR, Lim et al., CVPRW 2017)."""

MEAN_LAYERS = ("sub_mean.", "add_mean.")


def trained_range(state: Mapping[str, Tensor]) -> float:
    """The white level of the training pictures, 1 or 255, read from the mean-shift layer."""
    return 255.0 if float(state["sub_mean.bias"].abs().max()) > 1 else 1.0


def unit_range_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring a network of convolutions and ReLU from luma in 0..255 to luma in 0..1, if it is not.

    They commute with a positive factor, so only the biases change. Those of a network for 0..1 are
    well below 1.
    """
    biases = [float(v.abs().max()) for k, v in state.items() if k.endswith("bias")]
    largest = max(biases, default=0.0)
    divisor = 255 if largest > 1 else 1
    return {k: v / divisor if k.endswith("bias") else v for k, v in state.items()}


def unit_range_state(
    state: Mapping[str, Tensor], *, first: str, last: str, white: float
) -> dict[str, Tensor]:
    """Fold a white level into the outermost layers.

    Args:
        state: Weights by name.
        first: Prefix of the layer that sees the picture; its weight is multiplied.
        last: Prefix of the layer that makes the picture; its weight and bias are divided.
        white: The white level that the weights were trained for.
    """
    folded = dict(state)
    for key, value in state.items():
        if key == f"{first}weight":
            folded[key] = value * white
        elif key.startswith(last):
            folded[key] = value / white
    return folded
