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
from swise_deploy.runner import float_from_image
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_export.graph.activations import measure_ranges
from swise_export.graph.fp16_emulation import with_half_rounding
from swise_export.precision.fp16 import fp16_from_fp32
from swise_export.rewriting.deploy_form import deploy_form
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import export_onnx, traced
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
    half = with_half_rounding(fp16_from_fp32(identity_model(1, 0)).model)
    np.testing.assert_array_equal(run(half, lr), np.ones_like(lr))


def test_half_rounding_overflows_as_half_precision_does() -> None:
    # 300 * 300 is 90000, more than 65504.
    lr = np.full((1, 3, 2, 2), 300, np.float32)
    half = fp16_from_fp32(identity_model(300, 0)).model
    assert np.isfinite(run(half, lr)).all()
    assert np.isinf(run(with_half_rounding(half), lr)).all()


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
        half = fp16_from_fp32(model, [np.full((4, 4, 3), 255, np.uint8)])
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


def test_norms_averages_and_the_final_sum_stay_in_fp32(network_x2: LoadedNetwork) -> None:
    half = fp16_from_fp32(traced(deploy_form(network_x2.module), network_x2))
    kept = set(half.fp32_nodes)
    assert {"/average/GlobalAveragePool", "/picture/Add"} <= kept
    assert not {"/head/Conv", "/fuse/Conv"} & kept
    assert any(name.endswith("norm1/Sqrt") for name in kept)
    stored = {t.name: t.data_type for t in half.model.graph.initializer}
    assert stored["head.weight"] == TensorProto.FLOAT16


def test_no_value_is_rounded_between_two_fp32_nodes(network_x2: LoadedNetwork) -> None:
    half = fp16_from_fp32(traced(deploy_form(network_x2.module), network_x2)).model
    casts = {n.output[0]: n for n in half.graph.node if n.op_type == "Cast"}
    for node in casts.values():
        source = casts.get(node.input[0])
        assert source is None or not (
            node.attribute[0].i == TensorProto.FLOAT
            and source.attribute[0].i == TensorProto.FLOAT16
        )
    keys = [(n.input[0], n.attribute[0].i) for n in casts.values()]
    assert len(keys) == len(set(keys))
