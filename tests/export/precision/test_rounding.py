"""Weights against the second moments of their inputs."""

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx import helper

from swise_export.graph.number_formats import rounded
from swise_export.precision.quantised.qdq import QuantisedWeights, rounded_to_nearest
from swise_export.precision.rounding import input_rows, rounded_by_moments, second_moment

STEP = 2.0**-7
POINTWISE = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])


def test_the_next_weight_compensates_the_error_of_one() -> None:
    # The first two inputs are equal, so that only the sum of their weights counts: 100.4 twice is
    # 200.8 steps, nearest to 201. To the nearest, they would be 100 each. The third sets the scale.
    weights = np.array([[100.4, 100.4, 127.0]], np.float32).reshape(1, 3, 1, 1) * STEP
    rows = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)[:, [0, 0, 1]]
    found = rounded_by_moments(POINTWISE, weights, [second_moment(rows)], step=1e-3)
    np.testing.assert_allclose(found.scales, STEP)
    assert int(found.values[0, :2].sum()) == 201
    assert found.values[0, 2, 0, 0] == 127
    assert rounded_to_nearest(weights, 0).values[0, :2].ravel().tolist() == [100, 100]


def test_independent_inputs_round_to_nearest() -> None:
    weights = np.random.default_rng(1).standard_normal((5, 7, 1, 1)).astype(np.float32)
    found = rounded_by_moments(POINTWISE, weights, [np.eye(7)], step=0.1)
    nearest = rounded_to_nearest(weights, 0)
    np.testing.assert_array_equal(found.values, nearest.values)
    np.testing.assert_array_equal(found.scales, nearest.scales)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_outputs_change_less_than_with_nearest(groups: int) -> None:
    rng = np.random.default_rng(groups)
    mixing = rng.standard_normal((8, 3)) @ rng.standard_normal((3, 8))
    smooth = np.cumsum(rng.standard_normal((2, 8, 9, 10)), axis=3)
    x = np.einsum("nchw,cd->ndhw", smooth, mixing).astype(np.float32)
    weights = rng.standard_normal((8, 8 // groups, 3, 3)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=groups
    )
    rows = input_rows(node, x, max_positions=10_000)
    assert [r.shape for r in rows] == [(2 * 9 * 10, 72 // groups)] * groups
    found = rounded_by_moments(node, weights, [second_moment(r) for r in rows], step=1e-6)

    def error(rounded: np.ndarray) -> float:
        change = (rounded - weights).reshape(groups, 8 // groups, -1)
        return float(np.mean([np.mean((r @ c.T) ** 2) for r, c in zip(rows, change, strict=True)]))

    better = error(found.dequantised(0))
    assert better < 0.9 * error(rounded_to_nearest(weights, 0).dequantised(0))


@pytest.mark.parametrize("dilations", [(1, 1), (2, 3)])
def test_rows_are_the_inputs_that_a_convolution_multiplies(dilations: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 7, 6)).astype(np.float32)
    weights = rng.standard_normal((6, 2, 3, 2)).astype(np.float32)
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        kernel_shape=[3, 2],
        pads=[1, 0, 2, 1],
        strides=[2, 1],
        dilations=dilations,
        group=2,
    )
    padded = torch.nn.functional.pad(torch.from_numpy(x), (0, 1, 1, 2))
    expected = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weights), stride=(2, 1), dilation=dilations, groups=2
    )
    by_group = weights.reshape(2, 3, -1)
    rows = input_rows(node, x, max_positions=10_000)
    got = np.concatenate([r @ w.T for r, w in zip(rows, by_group, strict=True)], axis=1)
    flat = expected.numpy().transpose(0, 2, 3, 1).reshape(-1, 6)
    np.testing.assert_allclose(got, flat, rtol=1e-4, atol=1e-5)


TRANSPOSED = helper.make_node(
    "ConvTranspose",
    ["x", "w"],
    ["y"],
    kernel_shape=[5, 4],
    strides=[2, 3],
    pads=[2, 1, 2, 1],
    output_padding=[1, 0],
)


def transposed(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The whole output of TRANSPOSED, without its crop."""
    tensors = torch.from_numpy(x), torch.from_numpy(weights)
    return torch.nn.functional.conv_transpose2d(*tensors, stride=(2, 3)).numpy()


def test_rows_of_a_transposed_convolution_make_its_output_phase_by_phase() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    weights = rng.standard_normal((3, 7, 5, 4)).astype(np.float32)
    rows = input_rows(TRANSPOSED, x, max_positions=10_000)
    expected = transposed(x, weights)
    phases = [(row, column) for row in range(2) for column in range(3)]
    for (row, column), taken in zip(phases, rows, strict=True):
        part = weights[:, :, row::2, column::3].swapaxes(0, 1).reshape(7, -1)
        got = (taken @ part.T).reshape(2, -1, 7).transpose(0, 2, 1)
        of_phase = expected[:, :, row::2, column::3].reshape(2, 7, -1)
        np.testing.assert_allclose(got, of_phase, rtol=1e-4, atol=1e-5)


def test_transposed_convolutions_change_less_than_with_nearest() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((3, 8))
    x = np.einsum("nchw,cd->ndhw", rng.standard_normal((1, 3, 12, 13)), mixing).astype(np.float32)
    weights = rng.standard_normal((8, 4, 5, 4)).astype(np.float32)
    moments = [second_moment(r) for r in input_rows(TRANSPOSED, x, max_positions=10_000)]
    found = rounded_by_moments(TRANSPOSED, weights, moments, step=1e-6)
    nearest = rounded_to_nearest(weights, 1)
    assert found.values.shape == weights.shape
    np.testing.assert_array_equal(found.scales, nearest.scales)

    def error(rounded: np.ndarray) -> float:
        return float(np.mean((transposed(x, rounded) - transposed(x, weights)) ** 2))

    assert error(found.dequantised(1)) < 0.7 * error(nearest.dequantised(1))


def test_matrix_products_round_along_their_inputs() -> None:
    weights = np.array([[100.4], [100.4], [127.0]], np.float32) * STEP
    rows = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)[:, [0, 0, 1]]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    (taken,) = input_rows(node, rows.reshape(10, 100, 3), max_positions=5000)
    found = rounded_by_moments(node, weights, [second_moment(taken)], step=1e-3)
    assert found.values.shape == (3, 1)
    assert int(found.values[:2].sum()) == 201


def test_fp8_weights_are_fp8_numbers_and_change_outputs_less_than_nearest_ones() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((4000, 3)) @ rng.standard_normal((3, 24))).astype(np.float32)
    weights = rng.standard_normal((8, 24, 1, 1)).astype(np.float32)
    moments = [second_moment(rows)]
    found = rounded_by_moments(POINTWISE, weights, moments, step=1e-6, precision="fp8")
    nearest = rounded_to_nearest(weights, 0, "fp8")
    assert found.values.dtype == nearest.values.dtype == ml_dtypes.float8_e4m3fn
    np.testing.assert_array_equal(found.scales, nearest.scales)

    def error(chosen: QuantisedWeights) -> float:
        change = (chosen.dequantised(0) - weights).reshape(8, 24)
        return float(np.mean((rows @ change.T) ** 2))

    assert error(found) < 0.7 * error(nearest)


def test_the_error_of_fp8_is_noise_of_the_stated_variance() -> None:
    # Log-uniform values over many powers of two, as the formula assumes.
    values = np.exp(np.random.default_rng(0).uniform(np.log(2**-4), np.log(2**8), 200_000))
    error = rounded(values, "fp8") - values
    assert np.mean((error / values) ** 2) == pytest.approx(
        2**-6 / 12 * 3 / (8 * np.log(2)), rel=0.02
    )
