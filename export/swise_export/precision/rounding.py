"""Rounding of weights that changes the layer's output least, not its weights.

Weights are rounded one after the other. The later weights compensate the error of each rounding:
they move by the amount that cancels it best, given the correlations of the layer's inputs (Hassibi
and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993; Frantar et
al., "GPTQ", 2023). docs/precision.md has the measured effect.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from swise_deploy.precision import QuantisedPrecision
from swise_export.graph.number_formats import STORED_TYPES, rounded
from swise_export.precision.qdq import Int8Weights, Layer, scales_of_weights

# Added to the diagonal, as a share of its mean: a few pictures do not cover every direction.
_DAMPING = 0.01
# Variance of the error of E4M3, as a share of the value's square: steps of 2^-3 of the power of two
# below it give 2^-6 / 12, times the mean of 1 / m^2 of a mantissa m that is log-uniform in [1, 2),
# 3 / (8 ln 2).
_FP8_NOISE = 2**-6 / 12 * 3 / (8 * math.log(2))


def input_rows(
    node: onnx.NodeProto, values: NDArray[np.float32], *, max_positions: int
) -> list[NDArray[np.float32]]:
    """The input values that a layer multiplies by its weights, for each group of a convolution.

    Args:
        node: A Conv or MatMul.
        values: Its input, (N, C, H, W) for a convolution, (..., K) for a matrix product.
        max_positions: Largest number of positions; a fixed random sample of more.

    Returns:
        For each group (positions, weights per output), in the order of the weights.
    """
    draw = np.random.default_rng(0)
    if node.op_type == "MatMul":
        rows = values.reshape(-1, values.shape[-1])
        return [rows[_sample(draw, len(rows), max_positions)]]
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    down, across = settings.get("strides", [1, 1])
    spread = settings.get("dilations", [1, 1])
    extent = tuple((k - 1) * d + 1 for k, d in zip(settings["kernel_shape"], spread, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, ::down, ::across, :: spread[0], :: spread[1]]
    batch, _, height, width = windows.shape[:4]
    chosen = _sample(draw, batch * height * width, max_positions)
    n, y, x = np.unravel_index(chosen, (batch, height, width))
    taken = windows[n, :, y, x].reshape(len(chosen), settings.get("group", 1), -1)
    return list(taken.transpose(1, 0, 2))


def _sample(draw: np.random.Generator, count: int, largest: int) -> NDArray[np.int64]:
    if count <= largest:
        return np.arange(count)
    return np.sort(draw.choice(count, largest, replace=False))


def second_moment(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean product of every two columns of (positions, K): (K, K)."""
    return np.asarray(rows.T @ rows, np.float64) / len(rows)


def rounded_by_moments(
    layer: Layer,
    weights: NDArray[np.float32],
    moments: Sequence[NDArray[np.float64]],
    *,
    step: float,
    precision: QuantisedPrecision = "int8",
) -> Int8Weights:
    """Round a layer's weights by the second moments of its input.

    Args:
        layer: A Conv or MatMul.
        weights: Its weights, in the operator's layout.
        moments: Results of `second_moment` for the input before quantisation, one for each group.
        step: Quantisation scale of the input.
        precision: The format of weights and input.
    """
    scales = scales_of_weights(weights, layer.channel_axis, precision)
    by_output = weights if layer.op_type == "Conv" else weights.T
    rows = by_output.reshape(len(by_output), -1).astype(np.float64)
    values = np.concatenate(
        [
            _round_rows(group, scale, moment + _noise_of_input(moment, step, precision), precision)
            for group, scale, moment in zip(
                np.split(rows, len(moments)), np.split(scales, len(moments)), moments, strict=True
            )
        ]
    ).reshape(by_output.shape)
    return Int8Weights(
        (values if layer.op_type == "Conv" else values.T).astype(STORED_TYPES[precision]), scales
    )


def _noise_of_input(
    moment: NDArray[np.float64], step: float, precision: QuantisedPrecision
) -> NDArray[np.float64]:
    """Second moments of the rounding error of a layer's input, which is independent noise."""
    if precision == "int8":
        return np.eye(len(moment)) * step**2 / 12
    return np.diag(np.diag(moment)) * _FP8_NOISE


def _round_rows(
    rows: NDArray[np.float64],
    scales: NDArray[np.float32],
    moment: NDArray[np.float64],
    precision: QuantisedPrecision,
) -> NDArray[np.float32]:
    num_inputs = rows.shape[1]
    damping = _DAMPING * float(np.mean(np.diag(moment))) + np.finfo(np.float32).tiny
    inverse = np.linalg.inv(moment + damping * np.eye(num_inputs))
    factor = np.linalg.cholesky(inverse).T
    left = rows.copy()
    values = np.zeros(rows.shape, np.float32)
    steps = scales.astype(np.float64)
    for i in range(num_inputs):
        values[:, i] = rounded(left[:, i] / steps, precision)
        error = (left[:, i] - values[:, i] * steps) / factor[i, i]
        left[:, i:] -= np.outer(error, factor[i, i:])
    return values
