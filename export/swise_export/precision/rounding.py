"""Rounding of weights that changes the layer's output least, not its weights.

Weights are rounded one after the other. The later weights compensate the error of each rounding:
they move by the amount that cancels it best, given the correlations of the layer's inputs (Hassibi
and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993; Frantar et
al., "GPTQ", 2023). docs/precision.md has the measured effect.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from swise_deploy.precision import QuantisedPrecision
from swise_export.graph.number_formats import STORED_TYPES, rounded
from swise_export.graph.operators import attribute
from swise_export.precision.quantised.qdq import CHANNEL_AXIS, QuantisedWeights, scales_of_weights

# Added to the diagonal, as a share of its mean: a few pictures do not cover every direction.
_DAMPING = 0.01
# Variance of the error of E4M3, as a share of the value's square: steps of 2^-3 of the power of two
# below it give 2^-6 / 12, times the mean of 1 / m^2 of a mantissa m that is log-uniform in [1, 2),
# 3 / (8 ln 2).
_FP8_NOISE = 2**-6 / 12 * 3 / (8 * math.log(2))


def is_rounded_by_moments(node: onnx.NodeProto) -> bool:
    """True for a Conv or MatMul, and for a ConvTranspose without groups and dilations."""
    is_plain = attribute(node, "group", 1) == 1 and set(attribute(node, "dilations", [1])) == {1}
    return node.op_type != "ConvTranspose" or is_plain


def input_rows(
    node: onnx.NodeProto, values: NDArray[np.float32], *, max_positions: int
) -> list[NDArray[np.float32]]:
    """The input values that a layer multiplies by its weights, for each part of the weights.

    Args:
        node: A layer of which `is_rounded_by_moments` is true.
        values: Its input, (N, C, H, W) for a convolution, (..., K) for a matrix product.
        max_positions: Largest number of positions; a fixed random sample of more.

    Returns:
        For each group of a Conv, or each position of a ConvTranspose's output within its stride
        (`_phases`), (positions, weights per output), in the order of the weights.
    """
    draw = np.random.default_rng(0)
    if node.op_type == "MatMul":
        rows = values.reshape(-1, values.shape[-1])
        return [rows[_sample(draw, len(rows), max_positions)]]
    if node.op_type == "ConvTranspose":
        return [
            _transposed_rows(values, phase, max_positions, np.random.default_rng(0))
            for phase in _phases(node)
        ]
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    down, across = attribute(node, "strides", [1, 1])
    spread = attribute(node, "dilations", [1, 1])
    kernel = attribute(node, "kernel_shape", ())
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, ::down, ::across, :: spread[0], :: spread[1]]
    batch, _, height, width = windows.shape[:4]
    chosen = _sample(draw, batch * height * width, max_positions)
    n, y, x = np.unravel_index(chosen, (batch, height, width))
    taken = windows[n, :, y, x].reshape(len(chosen), attribute(node, "group", 1), -1)
    return list(taken.transpose(1, 0, 2))


@dataclass(frozen=True, slots=True)
class _Phase:
    """Weights of a ConvTranspose that make the outputs at one position within the stride.

    Attributes:
        taken: Which rows and columns of the kernel.
        size: How many.
    """

    taken: tuple[slice, slice]
    size: tuple[int, int]


def _phases(node: onnx.NodeProto) -> list[_Phase]:
    """The parts of a ConvTranspose's kernel, each a convolution of the input with stride 1."""
    strides, kernel = attribute(node, "strides", [1, 1]), attribute(node, "kernel_shape", ())
    return [
        _Phase(
            (slice(row, None, strides[0]), slice(column, None, strides[1])),
            (-(-(kernel[0] - row) // strides[0]), -(-(kernel[1] - column) // strides[1])),
        )
        for row in range(min(strides[0], kernel[0]))
        for column in range(min(strides[1], kernel[1]))
    ]


def _transposed_rows(
    values: NDArray[np.float32], phase: _Phase, max_positions: int, draw: np.random.Generator
) -> NDArray[np.float32]:
    """Inputs that a phase multiplies, (positions, C * rows * columns)."""
    height, width = phase.size
    padded = np.pad(values, ((0, 0), (0, 0), (height - 1,) * 2, (width - 1,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, phase.size, axis=(2, 3))
    windows = windows[..., ::-1, ::-1]  # the first weight is for the last input
    batch, _, rows, columns = windows.shape[:4]
    chosen = _sample(draw, batch * rows * columns, max_positions)
    n, y, x = np.unravel_index(chosen, (batch, rows, columns))
    return np.asarray(windows[n, :, y, x].reshape(len(chosen), -1))


def _sample(draw: np.random.Generator, count: int, largest: int) -> NDArray[np.int64]:
    if count <= largest:
        return np.arange(count)
    return np.sort(draw.choice(count, largest, replace=False))


def second_moment(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean product of every two columns of (positions, K): (K, K)."""
    return np.asarray(rows.T @ rows, np.float64) / len(rows)


def rounded_by_moments(
    node: onnx.NodeProto,
    weights: NDArray[np.float32],
    moments: Sequence[NDArray[np.float64]],
    *,
    step: float,
    precision: QuantisedPrecision = "int8",
) -> QuantisedWeights:
    """Round a layer's weights by the second moments of its input.

    Args:
        node: A layer of which `is_rounded_by_moments` is true.
        weights: Its weights, in the operator's layout.
        moments: Results of `second_moment` for the input before quantisation, one for each part
            that `input_rows` returns.
        step: Quantisation scale of the input.
        precision: The format of weights and input.
    """
    scales = scales_of_weights(weights, CHANNEL_AXIS[node.op_type], precision)

    def rounded_part(
        part: NDArray[np.float32], steps: NDArray[np.float32], moment: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Round (outputs, ...)."""
        rows = part.reshape(len(part), -1).astype(np.float64)
        noisy = moment + _noise_of_input(moment, step, precision)
        return _round_rows(rows, steps, noisy, precision).reshape(part.shape)

    by_output = weights if node.op_type == "Conv" else weights.swapaxes(0, 1)
    values = np.zeros(by_output.shape, np.float32)
    if node.op_type == "ConvTranspose":
        for phase, moment in zip(_phases(node), moments, strict=True):
            taken = (slice(None), slice(None), *phase.taken)
            values[taken] = rounded_part(by_output[taken], scales, moment)
    else:
        count = len(by_output) // len(moments)
        for i, moment in enumerate(moments):
            group = slice(i * count, (i + 1) * count)
            values[group] = rounded_part(by_output[group], scales[group], moment)
    in_layout = values if node.op_type == "Conv" else values.swapaxes(0, 1)
    return QuantisedWeights(np.ascontiguousarray(in_layout).astype(STORED_TYPES[precision]), scales)


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
