from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from swise_deploy.errors import BackendMissingError
from swise_export.onnx_runner import OnnxRunner


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A file that repeats every pixel twice both ways."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    resize = helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")
    shape, large = [1, 3, "h", "w"], [1, 3, "h2", "w2"]
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


def test_a_provider_that_does_not_start_is_no_silent_cpu(
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
