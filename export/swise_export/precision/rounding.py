"""Weights rounded so that a layer's output changes least, not its weights.

Rounding one weight down is made good by the weights behind it: they are moved by what, given how
the layer's inputs go together, best cancels the error, before they are rounded themselves
(Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993;
Frantar et al., "GPTQ", 2023). docs/precision.md has what it buys.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from swise_export.precision.qdq import LEVELS, Int8Weights, Layer, scales_of_weights

# Added to the diagonal, as a share of its mean: few pictures leave some directions unseen.
_DAMPING = 0.01


def input_rows(
    node: onnx.NodeProto, values: NDArray[np.float32], *, most: int
) -> list[NDArray[np.float32]]:
    """What a layer multiplies its weights with, for each group of a convolution.

    Args:
        node: A Conv or MatMul.
        values: Its input, (N, C, H, W) for a convolution, (..., K) for a product.
        most: Positions to take; where there are more, some are drawn, always the same ones.

    Returns:
        For each group (positions, weights per output), in the order of the weights.
    """
    draw = np.random.default_rng(0)
    if node.op_type == "MatMul":
        rows = values.reshape(-1, values.shape[-1])
        return [rows[_drawn(draw, len(rows), most)]]
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    down, across = settings.get("strides", [1, 1])
    spread = settings.get("dilations", [1, 1])
    reach = tuple((k - 1) * d + 1 for k, d in zip(settings["kernel_shape"], spread, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, ::down, ::across, :: spread[0], :: spread[1]]
    batch, _, height, width = windows.shape[:4]
    chosen = _drawn(draw, batch * height * width, most)
    n, y, x = np.unravel_index(chosen, (batch, height, width))
    taken = windows[n, :, y, x].reshape(len(chosen), settings.get("group", 1), -1)
    return list(taken.transpose(1, 0, 2))


def _drawn(draw: np.random.Generator, count: int, most: int) -> NDArray[np.int64]:
    return np.arange(count) if count <= most else np.sort(draw.choice(count, most, replace=False))


def second_moment(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean product of every two columns of (positions, K): (K, K)."""
    return np.asarray(rows.T @ rows, np.float64) / len(rows)


def rounded_by_moments(
    layer: Layer,
    weights: NDArray[np.float32],
    moments: Sequence[NDArray[np.float64]],
    *,
    step: float,
) -> Int8Weights:
    """Round a layer's weights against the second moments of its input.

    Args:
        layer: A Conv, one moment for each group, or a MatMul.
        weights: In the operator's layout.
        moments: From `second_moment`, of the input before it is quantised.
        step: Of the input's quantisation; its error is noise of variance step^2 / 12 on every
            input.
    """
    scales = scales_of_weights(weights, layer.channel_axis)
    by_output = weights if layer.op_type == "Conv" else weights.T
    rows = by_output.reshape(len(by_output), -1).astype(np.float64)
    levels = np.concatenate(
        [
            _round_rows(group, scale, moment + np.eye(len(moment)) * step**2 / 12)
            for group, scale, moment in zip(
                np.split(rows, len(moments)), np.split(scales, len(moments)), moments, strict=True
            )
        ]
    ).reshape(by_output.shape)
    return Int8Weights(levels if layer.op_type == "Conv" else levels.T, scales)


def _round_rows(
    rows: NDArray[np.float64], scales: NDArray[np.float32], moment: NDArray[np.float64]
) -> NDArray[np.int8]:
    num_inputs = rows.shape[1]
    damping = _DAMPING * float(np.mean(np.diag(moment))) + np.finfo(np.float32).tiny
    inverse = np.linalg.inv(moment + damping * np.eye(num_inputs))
    factor = np.linalg.cholesky(inverse).T
    left = rows.copy()
    levels = np.zeros(rows.shape, np.int8)
    steps = scales.astype(np.float64)
    for i in range(num_inputs):
        levels[:, i] = np.clip(np.rint(left[:, i] / steps), -LEVELS, LEVELS)
        error = (left[:, i] - levels[:, i] * steps) / factor[i, i]
        left[:, i:] -= np.outer(error, factor[i, i:])
    return levels
