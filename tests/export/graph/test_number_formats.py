"""Rounding against torch, against hand arithmetic, and against what ONNX Runtime computes."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from swise_deploy.precision import HalfPrecision, Precision
from swise_export.graph.half_emulation import rounding
from swise_export.graph.number_formats import (
    ONNX_TYPES,
    rounded,
    tensor_from_values,
    values_of_tensor,
)

TORCH: dict[Precision, torch.dtype] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}


def awkward_values() -> np.ndarray:
    """Every finite pair of the upper 16 bits of fp32 with low bits at, below and above a tie."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper[:, None] | lower).reshape(-1).view(np.float32)
    return values[np.isfinite(values)]


def bits(values: np.ndarray) -> np.ndarray:
    """Bits of fp32 numbers: -0 is not 0."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@pytest.mark.parametrize(
    ("precision", "value", "expected"),
    [
        ("bf16", 1 + 2.0**-8, 1.0),  # a tie, to the even mantissa
        ("bf16", 1 + 3 * 2.0**-8, 1 + 2.0**-6),
        ("bf16", 1e5, 99840.0),  # 195 * 512; fp16 has no such number
        ("fp8", 17.0, 16.0),  # a tie: 16 and 18 are neighbours
        ("fp8", 19.0, 20.0),
        ("fp8", 1e9, 448.0),
        ("fp8", -465.0, -448.0),
        ("fp8", 2.0**-9, 2.0**-9),  # the smallest
        ("fp8", 2.0**-10, 0.0),
        ("fp8", 3 * 2.0**-10, 2.0**-8),
        ("int8", 2.5, 2.0),
        ("int8", -130.0, -127.0),
    ],
)
def test_values_by_hand(precision: Precision, value: float, expected: float) -> None:
    assert rounded(np.array([value], np.float32), precision) == [expected]


@pytest.mark.parametrize("precision", TORCH)
def test_rounding_is_that_of_torch_bit_for_bit(precision: Precision) -> None:
    values = awkward_values()
    wanted = torch.from_numpy(values)
    if precision == "fp8":
        wanted = wanted.clamp(-448, 448)  # torch gives NaN
    elif precision == "fp16":
        values, wanted = values[np.abs(values) < 65520], wanted[wanted.abs() < 65520]
    expected = wanted.to(TORCH[precision]).float().numpy()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(bits(rounded(values, precision)), bits(expected))


@pytest.mark.parametrize("precision", ONNX_TYPES)
def test_a_stored_tensor_holds_the_rounded_values(precision: Precision) -> None:
    values = np.random.default_rng(0).normal(scale=40, size=(3, 5)).astype(np.float32)
    tensor = tensor_from_values(values, precision, "w")
    assert (tensor.name, tensor.data_type, tuple(tensor.dims)) == (
        "w", ONNX_TYPES[precision], (3, 5),
    )  # fmt: skip
    np.testing.assert_array_equal(values_of_tensor(tensor), rounded(values, precision))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_onnx_runtime_rounds_between_two_layers_bit_for_bit(precision: HalfPrecision) -> None:
    # Between two multiplications by 1, where ONNX Runtime would remove casts that change nothing.
    nodes = [
        helper.make_node("Mul", ["lr", "one"], ["wide"]),
        *rounding("wide", "rounded", precision),
        helper.make_node("Mul", ["rounded", "one"], ["sr"]),
    ]
    graph = helper.make_graph(
        nodes,
        "round",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = awkward_values()
    if precision == "fp16":
        values = values[np.abs(values) < 65520]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(
        bits(session.run(None, {"lr": values})[0]), bits(rounded(values, precision))
    )


@pytest.mark.parametrize("scale", [1.0, 2.0**-7, float(np.float16(0.0123))])
def test_onnx_runtime_quantises_to_fp8_bit_for_bit(scale: float) -> None:
    stored = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        tensor_from_values(np.zeros((), np.float32), "fp8", "zero"),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["lr", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["sr"]),
        ],
        "fp8",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n"])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = awkward_values()
    values = values[np.abs(values) < 1e30]
    expected = rounded(values / np.float32(scale), "fp8") * np.float32(scale)
    np.testing.assert_array_equal(bits(session.run(None, {"lr": values})[0]), bits(expected))
