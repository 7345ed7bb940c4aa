from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, load, numpy_helper, save

from swise_deploy.errors import BackendMissingError, InputError, SwiseError
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.precision.half import half_from_fp32
from swise_export.precision.quantised.qdq import (
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)
from swise_export.runtimes.onnxruntime import OnnxRunner


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A file that repeats every pixel twice both ways."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    resize = helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")
    shape: list[int | str] = [1, 3, "h", "w"]
    large: list[int | str] = [1, 3, "h2", "w2"]
    graph = helper.make_graph(
        [resize],
        "doubling",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, large)],
        [scales],
    )
    path = tmp_path / "doubling.onnx"
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_provider_that_this_onnx_runtime_lacks_is_named(doubling: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BackendMissingError, match="has no CUDAExecutionProvider"):
        OnnxRunner(doubling, provider="cuda")


def test_a_provider_that_does_not_start_is_refused_without_a_fallback(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    # ONNX Runtime then does what it does where CUDA's libraries are missing: it takes the CPU.
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendMissingError, match=r"could not start .* would run on CPU"),
    ):
        OnnxRunner(doubling, provider="cuda")


def test_a_file_that_states_no_sensible_scale(doubling: Path) -> None:
    model = load(doubling)
    helper.set_model_props(model, {"swise.scale": "two"})
    save(model, doubling)
    for read in (OnnxRunner, read_onnx_file):
        with pytest.raises(InputError, match=r"'two'.*swise\.scale"):
            read(doubling)


def _saved(path: Path, nodes: list[NodeProto], outputs: dict[str, list[int | str]]) -> Path:
    """A file of these nodes; input x is a picture of any size."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n, dims in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    pool = helper.make_node("GlobalAveragePool", ["x"], ["pooled"])
    flatten = helper.make_node("Flatten", ["pooled"], ["y"])
    path = _saved(tmp_path / "classifier.onnx", [pool, flatten], {"y": ["n", "classes"]})
    message = r"turns pictures of 64x64 into y float32 \(1, 3\); expected one picture"
    with pytest.raises(InputError, match=message):
        OnnxRunner(path)


def test_a_network_that_changes_the_aspect_ratio_is_refused(tmp_path: Path) -> None:
    """Four times as wide, twice as high: no scale."""
    shuffle = helper.make_node("Concat", ["x", "x"], ["tall"], axis=2)
    wide = helper.make_node("Concat", ["tall", "tall", "tall", "tall"], ["y"], axis=3)
    path = _saved(tmp_path / "uneven.onnx", [shuffle, wide], {"y": ["n", 3, "h2", "w4"]})
    with pytest.raises(SwiseError, match=r"into y float32 \(1, 3, 128, 256\); expected"):
        OnnxRunner(path)


def test_a_file_with_two_outputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in ("y", "mask")]
    outputs: dict[str, list[int | str]] = {"y": [], "mask": []}
    path = _saved(tmp_path / "two.onnx", nodes, outputs)
    with pytest.raises(InputError, match=r"y float32 \(1, 3, 64, 64\), mask .*; expected one"):
        OnnxRunner(path)


def test_a_bf16_file_is_refused_with_the_way_out(doubling: Path, tmp_path: Path) -> None:
    model = half_from_fp32(load(doubling), precision="bf16").model
    model.graph.node[0].name = "resize"
    save(model, tmp_path / "bf16.onnx")
    with pytest.raises(InputError, match=r"computes in bf16.*swise-export --fp32"):
        OnnxRunner(tmp_path / "bf16.onnx")
    lr = np.full((1, 3, 2, 2), 1 + 2.0**-7 + 2.0**-9, np.float32)
    with OnnxRunner(tmp_path / "bf16.onnx", as_device=True) as runner:
        np.testing.assert_array_equal(runner.infer(lr), np.full((1, 3, 4, 4), 1 + 2.0**-7))


def test_biases_beside_fp8_are_not_taken_for_those_of_int8(tmp_path: Path) -> None:
    # A pass of ONNX Runtime 1.32.0 quantises them; every pixel becomes 0 then.
    repeat = np.repeat(np.eye(3, dtype=np.float32)[None], 4, axis=1).reshape(12, 3, 1, 1)
    shape: list[int | str] = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "eye", "bias"], ["x"], name="first"),
            helper.make_node("Relu", ["x"], ["y"], name="relu"),
            helper.make_node("Conv", ["y", "repeat"], ["z"], name="second"),
            helper.make_node("DepthToSpace", ["z"], ["sr"], name="up", blocksize=2, mode="CRD"),
        ],
        "biased",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h2", "w2"])],
        [
            numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "eye"),
            numpy_helper.from_array(repeat, "repeat"),
            numpy_helper.from_array(np.full(3, 3, np.float32), "bias"),
        ],
    )
    full = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    layers, _ = find_layers(full)
    stored = {t.name: numpy_helper.to_array(t) for t in full.graph.initializer}
    quantised = quantised_from_fp32(
        full,
        layers,
        ranges={"first": 1.0, "second": 4.0},
        weights={y.name: rounded_to_nearest(stored[y.weight], 0, "fp8") for y in layers},
        precision="fp8",
    )
    save(half_from_fp32(quantised).model, tmp_path / "fp8.onnx")
    lr = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    with OnnxRunner(tmp_path / "fp8.onnx") as runner:
        sr = runner.infer(lr)
    # Two roundings to 4 bits, of at most 2^-4 each.
    np.testing.assert_allclose(sr[:, :, ::2, ::2], lr + 3, rtol=2 * 2.0**-4)
