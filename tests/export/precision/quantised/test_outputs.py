"""INT8 between layers: which nodes, and that ONNX Runtime has kernels for the result."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.evaluation.pairs import Pair
from swise_export.precision.quantised.outputs import (
    measure_spans,
    nodes_between,
    with_int8_kernels,
)
from swise_export.precision.quantised.qdq import (
    Layer,
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)
from swise_export.precision.search.switchable_graph import SwitchableNetwork, switchable_quantised

WIDTH = 16


def gated_block() -> onnx.ModelProto:
    """Two convolutions multiplied, joined with the features in front of them, and added to them."""
    generator = np.random.default_rng(0)
    arrays = {
        "w_head": generator.standard_normal((WIDTH, 3, 3, 3)) / 5,
        "w_a": generator.standard_normal((WIDTH, WIDTH, 1, 1)) / 4,
        "w_b": generator.standard_normal((WIDTH, WIDTH, 1, 1)) / 4,
        "w_fuse": generator.standard_normal((WIDTH, 2 * WIDTH, 1, 1)) / 6,
        "w_last": generator.standard_normal((3, WIDTH, 3, 3)) / 12,
    }
    nodes = [
        helper.make_node("Conv", ["lr", "w_head"], ["head"], name="head", pads=[1] * 4),
        helper.make_node("Conv", ["head", "w_a"], ["a"], name="a"),
        helper.make_node("Conv", ["head", "w_b"], ["b"], name="b"),
        helper.make_node("Mul", ["a", "b"], ["gated"], name="gate"),
        helper.make_node("LeakyRelu", ["gated"], ["active"], name="active", alpha=0.1),
        helper.make_node("Concat", ["head", "active"], ["both"], name="both", axis=1),
        helper.make_node("Conv", ["both", "w_fuse"], ["fused"], name="fuse"),
        helper.make_node("Add", ["fused", "head"], ["sum"], name="skip"),
        helper.make_node("Conv", ["sum", "w_last"], ["residual"], name="last", pads=[1] * 4),
        helper.make_node("Add", ["residual", "lr"], ["sr"], name="picture"),
    ]
    shape = ("n", 3, "h", "w")
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layers_of(model: onnx.ModelProto) -> tuple[Layer, ...]:
    return with_int8_kernels(model, find_layers(model)[0])


def picture(seed: int = 0) -> Pair:
    lr = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)
    return Pair("noise", lr, lr)


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    layers = layers_of(model)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    spans = measure_spans(model, layers, [picture()])
    return quantised_from_fp32(
        model,
        layers,
        ranges={x.name: max(map(abs, spans[x.input])) for x in layers},
        weights={x.name: rounded_to_nearest(stored[x.weight], x.channel_axis) for x in layers},
        activation_type="uint8",
        between=nodes_between(model, layers),
        spans=spans,
    )


def test_sums_and_the_layer_behind_which_the_picture_is_made_stay_in_fp32() -> None:
    model = gated_block()
    layers = layers_of(model)
    assert [layer.name for layer in layers] == ["head", "a", "b", "fuse"]
    assert nodes_between(model, layers) == ("gate", "active", "both")


def test_a_node_that_reads_an_fp32_layer_is_not_between_layers() -> None:
    model = gated_block()
    layers = [layer for layer in layers_of(model) if layer.name != "b"]
    assert nodes_between(model, layers) == ("both",)  # its parts are quantised for "fuse"
    assert nodes_between(model, [x for x in layers if x.name != "fuse"]) == ()


def test_a_transposed_convolution_has_no_int8_kernel() -> None:
    layers = [Layer(name, kind, "x", "w", 1) for name, kind in
              [("up", "ConvTranspose"), ("product", "MatMul"), ("last", "Conv")]]  # fmt: skip
    found = with_int8_kernels(gated_block(), layers)
    assert [layer.name for layer in found] == ["product"]


def test_spans_are_those_of_the_tensors() -> None:
    model = gated_block()
    spans = measure_spans(model, layers_of(model), [picture(0), picture(1)])
    pixels = np.stack([picture(0).lr, picture(1).lr]).astype(np.float32) / np.float32(255)
    assert spans["lr"] == (0.0, float(pixels.max()))  # 0 is always representable
    assert spans["gated"][0] < 0 < spans["gated"][1]
    assert "sum" not in spans  # only the last layer reads it
    # LeakyRelu with 0.1.
    assert spans["active"][0] == pytest.approx(0.1 * spans["gated"][0])
    assert spans["active"][1] == spans["gated"][1]


def test_onnx_runtime_computes_layers_and_what_is_between_them_in_int8(tmp_path: Path) -> None:
    model = quantised(gated_block())
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    # Above this level layouts depend on the processor.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == 4
    assert kinds.count("Conv") + kinds.count("FusedConv") == 1  # the last one
    assert {"QLinearMul", "QLinearLeakyRelu", "QLinearConcat"} <= set(kinds)
    lr = picture().lr.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    full = ort.InferenceSession(
        gated_block().SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"lr": lr})[0]
    error = session.run(None, {"lr": lr})[0] - full
    # 8 bits leave about 1 of 100 of the residual.
    assert 0 < np.abs(error).max() < 0.05 * np.abs(full - lr).max()


def test_a_layer_s_switch_rounds_its_output_too() -> None:
    model = gated_block()
    layers = layers_of(model)
    switchable = switchable_quantised(model, quantised(model), layers)
    onnx.checker.check_model(switchable)
    num_rounded = sum(
        node.op_type == "QuantizeLinear"
        for outer in switchable.graph.node
        for attribute in outer.attribute
        for node in attribute.g.node
    )
    assert num_rounded == 2 * len(layers)
    names = [layer.name for layer in layers]
    network = SwitchableNetwork(switchable, names, [picture()], scale=1, threads=1)
    assert network.effect(["a"]).noise_db < 0
