from pathlib import Path

import numpy as np
import pytest

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import ExportError, InputError
from swise_export.runtimes.ncnn import NcnnRunner, unusable_reason
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import export_onnx

pytest.importorskip("ncnn", reason="the ncnn extra is not installed")
if unusable_reason():
    pytest.skip(unusable_reason(), allow_module_level=True)


def test_swisenet_gives_the_same_pictures_at_even_and_odd_sizes(
    network_x2: LoadedNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "a.onnx"
    export_onnx(network_x2, path)
    with NcnnRunner(path, threads=1) as runner, OnnxRunner(path, threads=1) as reference:
        assert (runner.scale, runner.io) == (2, "float")
        for shape in [(2, 3, 12, 10), (1, 3, 9, 7)]:
            lr = np.random.default_rng(0).random(shape, np.float32)
            # fp32 sums in another order.
            np.testing.assert_allclose(runner.infer(lr), reference.infer(lr), atol=2e-5)


def test_a_network_that_pnnx_cannot_convert_is_refused_with_its_reason(
    network_x2: LoadedNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "plain.onnx"
    export_onnx(network_x2, path, form="plain")
    with (
        NcnnRunner(path, threads=1) as runner,
        pytest.raises(ExportError, match="no ncnn layer for "),
    ):
        runner.infer(np.zeros((1, 3, 8, 8), np.float32))


def test_uint8_pictures_are_refused(network_x2: LoadedNetwork, tmp_path: Path) -> None:
    export_onnx(network_x2, tmp_path / "a.onnx", io="uint8")
    with pytest.raises(InputError, match="--io float"):
        NcnnRunner(tmp_path / "a.onnx")
