import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import ExportError
from swise_deploy.precision import HalfPrecision
from swise_deploy.runner import float_from_image, image_from_float
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_export.counting import count_onnx
from swise_export.graph.activations import measure_ranges
from swise_export.graph.half_emulation import with_half_rounding
from swise_export.graph.number_formats import (
    ONNX_TYPES,
    rounded,
    tensor_from_values,
    values_of_tensor,
)
from swise_export.precision.half import half_from_fp32
from swise_export.rewriting.deploy_form import deploy_form
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import export_onnx, opset_of, traced
from tests.export.conftest import loaded_swisenet

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def identity_model(weight: float, bias: float) -> onnx.ModelProto:
    """lr * weight + bias by a 1x1 convolution, then a second one that changes nothing."""
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    shape: list[int | str] = ["n", 3, "h", "w"]
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["lr", "w", "b"], ["x"], name="first"),
                helper.make_node("Conv", ["x", "eye"], ["sr"], name="second"),
            ],
            "identity",
            [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("sr", TensorProto.FLOAT, shape)],
            [
                numpy_helper.from_array(eye * np.float32(weight), "w"),
                numpy_helper.from_array(np.full(3, bias, np.float32), "b"),
                numpy_helper.from_array(eye, "eye"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def run(model: onnx.ModelProto, lr: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"lr": lr})[0])


def test_half_rounding_rounds_every_layer() -> None:
    # 1 + 2^-12 lies between two halves, 1 and 1 + 2^-10. ONNX Runtime's CPU computes fp16 layers in
    # fp32 and keeps such values; a GPU does not.
    lr = np.full((1, 3, 2, 2), 1 + 2.0**-12, np.float32)
    half = with_half_rounding(half_from_fp32(identity_model(1, 0)).model)
    np.testing.assert_array_equal(run(half, lr), np.ones_like(lr))


def test_bf16_rounding_equals_layer_by_layer_arithmetic() -> None:
    # Products of two bf16 numbers, and sums of three of them, are exact in fp32 here.
    rng = np.random.default_rng(0)
    lr = (rng.integers(0, 256, (1, 3, 8, 8)) / 256).astype(np.float32)
    model = identity_model(1, 0)
    weights = rng.integers(-127, 128, (3, 3, 1, 1)).astype(np.float32) / 64
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights, "eye"))
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.array([0.3, 1, -2], np.float32), "b")
    )
    half = half_from_fp32(model, precision="bf16").model
    onnx.checker.check_model(half, full_check=True)

    def layer(x: torch.Tensor, weight: np.ndarray, bias: list[float]) -> torch.Tensor:
        shift = torch.tensor(bias).bfloat16().float()
        kernel = torch.from_numpy(weight).bfloat16().float()
        return torch.conv2d(x, kernel, shift).bfloat16().float()

    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    first = layer(torch.from_numpy(lr).bfloat16().float(), eye, [0.3, 1, -2])
    expected = layer(first, weights, [0, 0, 0]).numpy()
    np.testing.assert_array_equal(run(with_half_rounding(half), lr), expected)


def test_bf16_has_the_range_of_fp32() -> None:
    # 300 * 300 is 90000, 2^16 * 1.3733; bf16 has 1.375 beside it.
    lr = np.full((1, 3, 2, 2), 300, np.float32)
    half = half_from_fp32(identity_model(300, 0), [IMAGE], precision="bf16")
    assert not half.fp32_nodes
    assert (run(with_half_rounding(half.model), lr) == 1.375 * 2**16).all()


@pytest.mark.parametrize(
    ("precision", "width", "kept"),
    [("bf16", 48, {"centre", "first"}), ("bf16", 12, set()), ("fp16", 48, set())],
)
def test_small_layers_that_read_the_picture_are_not_bf16(
    precision: HalfPrecision, width: int, kept: set[str]
) -> None:
    # 9 MACs a pixel in the first layer, 27 * width in the second: 0.7% of them, or 2.7%. 1/255 and
    # its multiples need more than the 8 bits of bf16's precision.
    shape: list[int | str] = ["n", 3, "h", "w"]
    stored = {
        "mean": np.full((1, 3, 1, 1), 0.4),
        "w1": np.eye(3).reshape(3, 3, 1, 1),
        "w2": np.zeros((width, 3, 3, 3)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["lr", "mean"], ["x"], name="centre"),
            helper.make_node("Conv", ["x", "w1"], ["y"], name="first"),
            helper.make_node("Conv", ["y", "w2"], ["z"], name="second", pads=[1] * 4),
            helper.make_node("Relu", ["z"], ["a"], name="act"),
            helper.make_node(
                "DepthToSpace", ["a"], ["sr"], name="up", blocksize=2 if width == 12 else 4
            ),
        ],
        "small",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h2", "w2"])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert set(half_from_fp32(model, precision=precision).fp32_nodes) == kept


def test_constants_are_rounded_to_bf16_once() -> None:
    # 1 + 2^-8 + 2^-12 lies above the tie of two bf16 numbers; by way of fp16 it would be the tie.
    half = half_from_fp32(identity_model(1 + 2.0**-8 + 2.0**-12, 0), precision="bf16").model
    stored = {tensor.name: tensor for tensor in half.graph.initializer}
    assert stored["w"].data_type == TensorProto.BFLOAT16
    assert values_of_tensor(stored["w"]).max() == 1 + 2.0**-7


def test_half_rounding_overflows_as_half_precision_does() -> None:
    # 300 * 300 is 90000, more than 65504.
    lr = np.full((1, 3, 2, 2), 300, np.float32)
    half = half_from_fp32(identity_model(300, 0)).model
    assert np.isfinite(run(half, lr)).all()
    # The next layer multiplies infinity by 0 as well.
    assert np.isnan(run(with_half_rounding(half), lr)).all()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_pictures_and_branches_in_half_precision_are_rounded_too(precision: HalfPrecision) -> None:
    """A file whose input, output and conditional branches are in the format themselves."""
    half = ONNX_TYPES[precision]

    def branch(name: str, factor: float) -> onnx.GraphProto:
        node = helper.make_node("Mul", ["x", f"{name}/f"], [name], name=name)
        stored = tensor_from_values(np.array([factor], np.float32), precision, f"{name}/f")
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, half, None)], [stored]
        )

    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["lr", "third"], ["x"]),
            helper.make_node(
                "If", ["yes"], ["y"], then_branch=branch("a", 3), else_branch=branch("b", 5)
            ),
            helper.make_node("Add", ["y", "lr"], ["sr"]),
        ],
        "branches",
        [helper.make_tensor_value_info("lr", half, ["n"])],
        [helper.make_tensor_value_info("sr", half, ["n"])],
        [
            tensor_from_values(np.array([1 / 3], np.float32), precision, "third"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = with_half_rounding(model)
    assert [v.type.tensor_type.elem_type for v in found.graph.output] == [half]
    # bf16 has no NumPy type that ONNX Runtime takes: it is fed and read through casts.
    found.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    found.graph.node.append(helper.make_node("Cast", ["sr"], ["wide"], to=TensorProto.FLOAT))
    found.graph.output.append(helper.make_tensor_value_info("wide", TensorProto.FLOAT, None))
    del found.graph.output[0]
    lr = rounded(np.random.default_rng(0).random(50), precision)
    x = rounded(lr * rounded(np.array(1 / 3), precision), precision)
    expected = rounded(rounded(x * 3, precision) + lr, precision)
    np.testing.assert_array_equal(run(found, lr), expected)


def test_half_rounding_leaves_fp32_alone() -> None:
    lr = np.full((1, 3, 2, 2), 1 + 2.0**-20, np.float32)
    model = identity_model(1, 0)
    np.testing.assert_array_equal(run(with_half_rounding(model), lr), run(model, lr))


def test_ranges_are_the_largest_magnitudes() -> None:
    (found,) = measure_ranges(identity_model(2, -8), [np.full((4, 4, 3), 255, np.uint8)])
    assert (found.node, found.op_type, found.max_abs) == ("first", "Conv", 6.0)


def test_layers_that_overflow_stay_in_fp32(caplog: pytest.LogCaptureFixture) -> None:
    model = identity_model(1e5, 0)
    with caplog.at_level(logging.WARNING):
        half = half_from_fp32(model, [np.full((4, 4, 3), 255, np.uint8)])
    assert set(half.fp32_nodes) == {"first", "second"}
    assert "first" in caplog.text
    lr = np.full((1, 3, 2, 2), 0.9, np.float32)
    np.testing.assert_allclose(run(half.model, lr), run(model, lr))


def test_network_that_overflows_in_half_precision_exports_correctly(tmp_path: Path) -> None:
    network = loaded_swisenet(2, gain=1e7)
    lr = float_from_image(IMAGE)
    export_onnx(network, tmp_path / "blind.onnx", precision="fp16")
    manifest = export_onnx(network, tmp_path / "a.onnx", precision="fp16", range_images=[IMAGE])
    with TorchRunner(network) as reference:
        expected = reference.infer(lr)
    with OnnxRunner(tmp_path / "blind.onnx", as_device=True) as blind:
        assert not np.isfinite(blind.infer(lr)).all()  # the black picture of production
    with OnnxRunner(tmp_path / "a.onnx", as_device=True) as measured:
        got = measured.infer(lr)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, expected, atol=1e-2)
    assert "/body/units.0/units.0/conv1a/Conv" in manifest.fp32_nodes
    assert "/body/units.1/units.0/conv1a/Conv" not in manifest.fp32_nodes
    assert max(manifest.activations.values()) > 65504


def test_network_that_has_diverged_is_refused_with_the_layer(network_x2: LoadedNetwork) -> None:
    network_x2.module.get_parameter("head.weight").data[0, 0, 0, 0] = torch.inf
    model = traced(deploy_form(network_x2.module), network_x2)
    with pytest.raises(ExportError, match=r"layer /head/Conv \(Conv\)"):
        measure_ranges(model, [IMAGE])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_norms_averages_and_the_final_sum_stay_in_fp32(
    network_x2: LoadedNetwork, precision: HalfPrecision
) -> None:
    model = traced(deploy_form(network_x2.module), network_x2, opset=opset_of(precision))
    half = half_from_fp32(model, precision=precision)
    kept = set(half.fp32_nodes)
    assert {"/average/GlobalAveragePool", "/picture/Add"} <= kept
    assert not {"/head/Conv", "/fuse/Conv"} & kept
    assert any(name.endswith("norm1/Sqrt") for name in kept)
    stored = {t.name: t.data_type for t in half.model.graph.initializer}
    assert stored["fuse.weight"] == ONNX_TYPES[precision]
    assert stored["fuse.weight"] != TensorProto.FLOAT


def test_a_bf16_file_is_valid_onnx_and_close_to_the_network(
    network_x2: LoadedNetwork, tmp_path: Path
) -> None:
    manifest = export_onnx(network_x2, tmp_path / "a.onnx", precision="bf16", io="uint8")
    assert (manifest.precision, manifest.opset) == ("bf16", 22)
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    counts = count_onnx(tmp_path / "a.onnx")
    full = count_onnx(traced(deploy_form(network_x2.module), network_x2))
    assert (counts.params, counts.mult_adds) == (full.params, full.mult_adds)
    in_bf16 = sum(layer.mult_adds for layer in counts.layers if layer.precision == "bf16")
    assert in_bf16 > 0.99 * counts.mult_adds
    with OnnxRunner(tmp_path / "a.onnx", as_device=True) as half:
        got = half.infer(IMAGE[None])
    with TorchRunner(network_x2) as reference:
        expected = image_from_float(reference.infer(float_from_image(IMAGE)))
    assert np.abs(got[0].astype(int) - expected).max() <= 3


def test_no_value_is_rounded_between_two_fp32_nodes(network_x2: LoadedNetwork) -> None:
    half = half_from_fp32(traced(deploy_form(network_x2.module), network_x2)).model
    casts = {n.output[0]: n for n in half.graph.node if n.op_type == "Cast"}
    for node in casts.values():
        source = casts.get(node.input[0])
        assert source is None or not (
            node.attribute[0].i == TensorProto.FLOAT
            and source.attribute[0].i == TensorProto.FLOAT16
        )
    keys = [(n.input[0], n.attribute[0].i) for n in casts.values()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_mask_that_fp32_reads_is_cast_to_fp32(precision: HalfPrecision) -> None:
    # SMSR: the network casts a bool itself, and a sum in fp32 reads the result.
    graph = helper.make_graph(
        [
            helper.make_node("Greater", ["lr", "half"], ["mask"], name="mask"),
            helper.make_node("Cast", ["mask"], ["number"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("Conv", ["number", "w"], ["x"], name="conv"),
            helper.make_node("ReduceMean", ["number"], ["mean"], name="mean", axes=[2, 3]),
            helper.make_node("Add", ["x", "mean"], ["sum"], name="sum"),
            helper.make_node("Conv", ["sum", "w"], ["sr"], name="last"),
        ],
        "mask",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, [1, 1, 2, 2])],
        [
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
            numpy_helper.from_array(np.full((1, 1, 1, 1), 2, np.float32), "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    half = half_from_fp32(model, precision=precision).model
    onnx.checker.check_model(half, full_check=True)
    session = ort.InferenceSession(
        with_half_rounding(half).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (sr,) = session.run(None, {"lr": np.array([[[[0.1, 0.2], [0.3, 0.9]]]], np.float32)})
    # One of four is 1: 2 * (2 * number + 1/4), exact in half precision.
    np.testing.assert_array_equal(sr, [[[[0.5, 0.5], [0.5, 4.5]]]])
