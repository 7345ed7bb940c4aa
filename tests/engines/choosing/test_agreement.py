"""A named runtime has to compute what a quantised file states."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from swise_deploy.errors import QualityGateError
from swise_deploy.precision import ActivationType
from swise_engines.upscaling.cli import main
from swise_engines.upscaling.upscaler import Upscaler
from swise_export.precision.quantised.qdq import (
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)
from swise_export.runtimes.openvino import OpenVinoRunner

pytest.importorskip("openvino", reason="the openvino extra is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "swise-deploy" / "runtime_checks"


@pytest.fixture
def repeating_int8(tmp_path: Path) -> Callable[[ActivationType], Path]:
    """An x2 upscaler that repeats pixels, by an INT8 convolution that reads a Concat."""

    def save(activation_type: ActivationType) -> Path:
        weights = np.zeros((12, 6, 1, 1), np.float32)
        for channel in range(12):
            weights[channel, channel // 4] = 1
        graph = helper.make_graph(
            [
                helper.make_node("Neg", ["lr"], ["negative"], name="negative"),
                helper.make_node("Concat", ["lr", "negative"], ["both"], name="both", axis=1),
                helper.make_node("Conv", ["both", "weights"], ["deep"], name="repeat"),
                helper.make_node("DepthToSpace", ["deep"], ["sr"], blocksize=2, mode="CRD"),
            ],
            "repeating",
            [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h2", "w2"])],
            [onnx.numpy_helper.from_array(weights, "weights")],
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        layers, _ = find_layers(model)
        quantised = quantised_from_fp32(
            model,
            layers,
            ranges={"repeat": 1.0},
            weights={"repeat": rounded_to_nearest(weights, 0)},
            activation_type=activation_type,
        )
        path = tmp_path / f"{activation_type}.onnx"
        onnx.save(quantised, path)
        return path

    return save


def test_a_runtime_that_computes_the_file_is_checked_once(
    repeating_int8: Callable[[ActivationType], Path], cache: Path
) -> None:
    path = repeating_int8("uint8")
    ramp = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    with Upscaler.open(path, runner="openvino") as upscaler:
        sr = upscaler(ramp)
    # INT8 of range 1 has 127 steps: half a step is 1.004 of 255, and 8 bits round once more.
    assert np.abs(sr.astype(int) - ramp.repeat(2, 0).repeat(2, 1)).max() <= 2
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    with Upscaler.open(path, runner="openvino"):
        pass
    assert kept.stat().st_mtime_ns == before


def test_a_runtime_that_computes_something_else_is_refused(
    repeating_int8: Callable[[ActivationType], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = repeating_int8("int8")
    with OpenVinoRunner(path) as runner:
        grey = runner.infer(np.full((1, 3, 8, 8), 0.25, np.float32))
    if np.abs(grey - 0.25).max() < 0.01:
        pytest.skip("this OpenVINO computes the form for TensorRT as well")
    with pytest.raises(QualityGateError, match="--for openvino"):
        Upscaler.open(path, runner="openvino")
    with Upscaler.open(path, runner="onnxruntime") as upscaler:
        assert upscaler.runtime == "onnxruntime"
    picture = Path(__file__).parents[3] / "swise_deploy" / "samples"
    target = tmp_path / "up.png"
    assert main([str(next(picture.glob("*.png"))), "-o", str(target), "--model", str(path),
                 "--runner", "openvino"]) == 4  # fmt: skip
    assert "loses" in capsys.readouterr().err
    assert not target.exists()
