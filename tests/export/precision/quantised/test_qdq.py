"""Q/DQ as TensorRT reads it, and the graph that switches layers."""

from functools import partial
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.evaluation.metrics import LUMA_WEIGHTS
from swise_deploy.evaluation.pairs import Pair, pair_from_hr
from swise_deploy.precision import ActivationType, HalfPrecision, QuantisedPrecision
from swise_export.graph.half_emulation import with_half_rounding
from swise_export.graph.number_formats import STORED_TYPES
from swise_export.precision.calibration import Calibration, calibrate
from swise_export.precision.half import half_from_fp32
from swise_export.precision.quantised.qdq import (
    Layer,
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
    scale_from_range,
)
from swise_export.precision.search.switchable_graph import (
    SwitchableNetwork,
    switchable_half,
    switchable_quantised,
)
from swise_export.tracing.trace import traced_form
from tests.export.conftest import loaded_swisenet

STEP = 2.0**-6


def picture(seed: int, size: int = 32, scale: int = 2) -> Pair:
    """Smooth blocks, so that a network has edges and flat parts."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, 256, (size // 8, size // 8, 3)), np.ones((8, 8, 1)))
    return pair_from_hr(f"p{seed}", blocks.astype(np.uint8), scale)


def two_layers(weights: np.ndarray) -> onnx.ModelProto:
    """Two 1x1 convolutions of one input, added."""
    shape: list[int | str] = ["n", 3, "h", "w"]
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["lr", "w1", "b"], ["x"], name="first"),
                helper.make_node("Conv", ["lr", "w2"], ["y"], name="second"),
                helper.make_node("Add", ["x", "y"], ["sr"], name="sum"),
            ],
            "two",
            [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("sr", TensorProto.FLOAT, shape)],
            [
                numpy_helper.from_array(weights.astype(np.float32).reshape(3, 3, 1, 1), "w1"),
                numpy_helper.from_array(np.zeros((3, 3, 1, 1), np.float32), "w2"),
                numpy_helper.from_array(np.full(3, 0.123, np.float32), "b"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def run(model: onnx.ModelProto, lr: np.ndarray, **feeds: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"lr": lr, **feeds})[0])


def quantised(
    model: onnx.ModelProto, largest: float, precision: QuantisedPrecision = "int8"
) -> onnx.ModelProto:
    layers, _ = find_layers(model)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return quantised_from_fp32(
        model,
        layers,
        ranges={layer.name: largest for layer in layers},
        weights={
            layer.name: rounded_to_nearest(stored[layer.weight], layer.channel_axis, precision)
            for layer in layers
        },
        precision=precision,
    )


def test_values_of_symmetric_int8_match_hand_arithmetic() -> None:
    model = quantised(two_layers(np.eye(3)), largest=127 * STEP)
    lr = np.array([0.3, -0.3, 5.0], np.float32).reshape(1, 3, 1, 1)
    # 0.3 / 2^-6 = 19.2 -> 19; 5.0 is beyond 127 steps of 2^-6. The weight 1.0 is 127 steps of its
    # scale, which is the half nearest to 1/127.
    weight = 127 * float(np.float16(1 / 127))
    expected = np.array([19 * STEP, -19 * STEP, 127 * STEP]) * weight + 0.123
    np.testing.assert_allclose(run(model, lr).ravel(), expected, rtol=1e-6)


def opset_19(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in the first opset with FP8, in which convolutions did not change."""
    model.opset_import[0].version, model.ir_version = 19, 9
    return model


def test_values_of_fp8_match_hand_arithmetic() -> None:
    model = quantised(opset_19(two_layers(np.eye(3))), 448 * STEP, "fp8")
    onnx.checker.check_model(model, full_check=True)
    # In steps of 2^-6: 17 is a tie of 16 and 18, 19.2 is nearest to 20, 900 is beyond 448.
    lr = (np.array([17, -19.2, 900], np.float32) * STEP).reshape(1, 3, 1, 1)
    weight = 448 * float(np.float16(1 / 448))
    expected = np.array([16, -20, 448]) * STEP * weight + 0.123
    np.testing.assert_allclose(run(model, lr).ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_the_graph_has_the_form_of_tensorrt_s_explicit_quantisation(
    precision: QuantisedPrecision,
) -> None:
    model = quantised(opset_19(two_layers(np.eye(3))), 1.0, precision)
    onnx.checker.check_model(model)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = {kind: [n for n in model.graph.node if n.op_type == kind] for kind in
             ("QuantizeLinear", "DequantizeLinear", "Conv", "Add")}  # fmt: skip
    assert len(nodes["QuantizeLinear"]) == 1  # both layers read one tensor
    producers = {name: n for n in model.graph.node for name in n.output}
    for conv in nodes["Conv"]:
        assert [producers[name].op_type for name in conv.input[:2]] == ["DequantizeLinear"] * 2
        weight = producers[conv.input[1]]
        assert stored[weight.input[0]].dtype == STORED_TYPES[precision]
        assert helper.get_node_attr_value(weight, "axis") == 0
        assert stored[weight.input[1]].shape == (3,)
    assert nodes["Conv"][0].input[2] == "b"
    assert stored["b"].dtype == np.float32
    for node in nodes["QuantizeLinear"] + nodes["DequantizeLinear"]:
        scale, zero = stored[node.input[1]], stored[node.input[2]]
        assert zero.dtype == STORED_TYPES[precision]
        assert zero.shape == scale.shape
        assert not zero.astype(np.float32).any()
        assert (scale > 0).all()  # the weights of "second" are all zero
    assert list(nodes["Add"][0].input) == ["x", "y"]  # outputs are not quantised


def test_weights_in_fp32_quantise_to_the_same_values() -> None:
    model = two_layers(np.random.default_rng(0).standard_normal((3, 3)))
    layers, _ = find_layers(model)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = {y.name: rounded_to_nearest(stored[y.weight], 0) for y in layers}
    ranges = dict.fromkeys(weights, 1.0)
    wide = quantised_from_fp32(model, layers, ranges=ranges, weights=weights, fp32_weights=True)
    onnx.checker.check_model(wide)
    producers = {name: n for n in wide.graph.node for name in n.output}
    conv = next(n for n in wide.graph.node if n.name == "first")
    chain = producers[producers[conv.input[1]].input[0]]
    assert (chain.op_type, chain.input[0]) == ("QuantizeLinear", "w1")
    lr = np.random.default_rng(1).random((1, 3, 4, 5), np.float32)
    narrow = quantised_from_fp32(model, layers, ranges=ranges, weights=weights)
    np.testing.assert_allclose(run(wide, lr), run(narrow, lr), rtol=1e-6)


def test_for_cpus_convolutions_read_uint8_and_matrix_products_int8() -> None:
    shape: list[int | str] = ["n", 3, "h", 3]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "w"], ["x"], name="conv"),
            helper.make_node("MatMul", ["x", "m"], ["sr"], name="product"),
        ],
        "both",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "w"),
            numpy_helper.from_array(np.eye(3, dtype=np.float32), "m"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    layers, _ = find_layers(model)
    assert [layer.name for layer in layers] == ["conv", "product"]
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = {y.name: rounded_to_nearest(stored[y.weight], y.channel_axis) for y in layers}
    ranges = dict.fromkeys(weights, 1.0)
    signed, unsigned = (
        quantised_from_fp32(
            model, layers, ranges=ranges, weights=weights, activation_type=activation_type
        )
        for activation_type in get_args(ActivationType)
    )
    arrays = {t.name: numpy_helper.to_array(t) for t in unsigned.graph.initializer}
    zeros = {
        node.input[0]: arrays[node.input[2]]
        for node in unsigned.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert (zeros["lr"].dtype.name, int(zeros["lr"])) == ("uint8", 128)
    assert (zeros["x"].dtype.name, int(zeros["x"])) == ("int8", 0)
    lr = np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(unsigned, lr), run(signed, lr))


@pytest.mark.parametrize("largest", [0.0, 1e-9, 3e-4, 1.0, 777.7, 60000.0])
def test_a_scale_is_positive_and_exact_in_fp16(largest: float) -> None:
    scale = scale_from_range(largest)
    assert scale > 0
    assert float(np.float16(scale)) == scale
    if largest > 0.01:
        assert scale * 127 == pytest.approx(largest, rel=2**-11)


def test_fp16_beside_int8_dequantises_to_fp16(network_x2: LoadedNetwork) -> None:
    model = traced_form(network_x2, opset=19)
    layers, _ = find_layers(model)
    half = half_from_fp32(quantised(model, 1.0)).model
    onnx.checker.check_model(half, full_check=True)
    types = {t.name: t.data_type for t in half.graph.initializer}
    producers = {name: n for n in half.graph.node for name in n.output}
    convs = [n for n in half.graph.node if n.name in {layer.name for layer in layers}]
    assert len(convs) == len(layers)
    kept: set[int] = set()
    for conv in convs:
        sources = [producers[name] for name in conv.input[:2]]
        kept.update(types[source.input[1]] for source in sources)
        assert [source.op_type for source in sources] == ["DequantizeLinear"] * 2, conv.name
        assert len({types[source.input[1]] for source in sources}) == 1
    # The final picture's layers stay in fp32.
    assert TensorProto.FLOAT16 in kept


def test_layers_too_small_to_matter_are_left_out(network_x2: LoadedNetwork) -> None:
    model = traced_form(network_x2)
    names = {layer.name for layer in find_layers(model)[0]}
    everything = {layer.name for layer in find_layers(model, min_share=0)[0]}
    assert "/global_skip/Conv" in everything - names  # a matrix product on one pixel
    assert "/head/Conv" in names


def test_equal_weights_of_two_layers_are_found_in_both() -> None:
    # The tracer stores equal tensors once; a fresh SwiseNet's conv3 and conv5 are all zero.
    network = loaded_swisenet(2)
    for i in range(3):
        network.module.get_parameter(f"body.units.0.units.{i}.conv3.weight").data.zero_()
    names = {layer.name for layer in find_layers(traced_form(network))[0]}
    assert {f"/body/units.0/units.{i}/conv3/Conv" for i in range(3)} <= names


@pytest.fixture
def calibrated(network_x2: LoadedNetwork) -> tuple[onnx.ModelProto, tuple[Layer, ...], Calibration]:
    model = traced_form(network_x2)
    layers = find_layers(model)[0][:8]
    return model, layers, calibrate(model, layers, [picture(0), picture(1)])


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_switched_graph_is_the_fp32_one_or_the_quantised_one(
    network_x2: LoadedNetwork, precision: QuantisedPrecision
) -> None:
    model = traced_form(network_x2, opset=19)
    layers = find_layers(model)[0][:8]
    found = calibrate(model, layers, [picture(0), picture(1)], precision=precision)
    quantise = partial(
        quantised_from_fp32,
        ranges=found.ranges["minmax"],
        weights=found.weights,
        precision=precision,
    )
    full = quantise(model, layers)
    switchable = switchable_quantised(model, full, layers)
    lr = np.random.default_rng(3).random((1, 3, 9, 11), np.float32)
    for lowered in (set(), {layers[0].name, layers[5].name}, {layer.name for layer in layers}):
        switches = np.array([layer.name in lowered for layer in layers])
        chosen = [layer for layer in layers if layer.name in lowered]
        expected = model
        if chosen:
            expected = quantise(model, chosen)
        got = run(switchable, lr, **{"swise.switches": switches})
        # The same arithmetic in another order of fused operations.
        np.testing.assert_allclose(got, run(expected, lr), atol=2e-5)


def test_effects_are_scored_by_the_protocol(
    calibrated: tuple[onnx.ModelProto, tuple[Layer, ...], Calibration],
) -> None:
    model, layers, found = calibrated
    full = quantised_from_fp32(model, layers, ranges=found.ranges["mse"], weights=found.weights)
    names = [layer.name for layer in layers]
    pair = picture(2)
    network = SwitchableNetwork(
        switchable_quantised(model, full, layers), names, [pair], scale=2, threads=1
    )
    assert network.effect([]).drift_db == pytest.approx(0)
    effect = network.effect(names)
    lr = pair.lr.transpose(2, 0, 1)[None].astype(np.float32) / 255

    def psnr(sr: np.ndarray) -> float:
        y = np.tensordot(LUMA_WEIGHTS, np.clip(sr[0].astype(float), 0, 1) * 255, 1)
        hr = pair.hr.astype(float) @ LUMA_WEIGHTS
        return float(10 * np.log10(255**2 / np.mean((y - hr)[2:-2, 2:-2] ** 2)))

    assert effect.drift_db == pytest.approx(psnr(run(full, lr)) - psnr(run(model, lr)), abs=1e-3)
    assert effect.noise_db < 0


def test_fp16_switch_rounds_one_operation() -> None:
    # 1 + 2^-12 lies between two halves; the weight 1 keeps it.
    model = two_layers(np.eye(3))
    lr = np.full((1, 3, 2, 2), 1 + 2.0**-12, np.float32)
    switchable = switchable_half(model, ["first", "sum"])
    kept = run(switchable, lr, **{"swise.switches": np.array([False, False])})
    np.testing.assert_array_equal(kept, run(model, lr))
    rounded = run(switchable, lr, **{"swise.switches": np.array([True, False])})
    expected = np.float32(np.float16(np.float32(1 + 2.0**-12) + np.float32(0.123)))
    np.testing.assert_array_equal(rounded, np.full_like(lr, expected))


def test_bf16_switch_rounds_what_one_operation_reads_and_gives() -> None:
    model = two_layers(np.eye(3))
    lr = np.full((1, 3, 2, 2), 1 + 2.0**-12, np.float32)
    switchable = switchable_half(model, ["first", "sum"], "bf16")
    rounded = run(switchable, lr, **{"swise.switches": np.array([True, False])})
    # The input becomes 1, the bias the nearest bf16 number to 0.123, and the sum is rounded again.
    bias = torch.tensor(0.123).bfloat16().float()
    expected = (1 + bias).bfloat16().float()
    np.testing.assert_array_equal(rounded, np.full_like(lr, expected.item()))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_all_switches_on_compute_what_the_converted_file_computes(
    network_x2: LoadedNetwork, precision: HalfPrecision
) -> None:
    model = traced_form(network_x2, opset=19)
    half = half_from_fp32(model, precision=precision)
    names = [n.name for n in model.graph.node if n.name not in half.fp32_nodes]
    lr = np.random.default_rng(0).random((1, 3, 12, 16), np.float32)
    switches = {"swise.switches": np.ones(len(names), np.bool_)}
    got = run(switchable_half(model, names, precision), lr, **switches)
    expected = run(with_half_rounding(half.model), lr)
    # Sums in another order may fall on the other side of a tie.
    full = run(model, lr)
    assert np.mean((got - expected) ** 2) < 0.1 * np.mean((full - expected) ** 2)


def test_scales_are_exact_in_fp16() -> None:
    assert scale_from_range(127.0) == 1.0
    assert scale_from_range(1e9) == 65504.0  # fp16's largest, not infinity
    assert scale_from_range(0.0) == 2.0**-24
