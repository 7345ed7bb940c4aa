import dataclasses
import json
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import ExportError, InputError
from swise_deploy.runner import image_from_float
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.files import sha256_of
from swise_export.manifest import Drift, manifest_path, read_manifest, write_manifest
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import export_onnx, traced_form

SIZES = [(1, 1), (1, 7), (33, 35), (9, 16)]


def random_lr(size: tuple[int, int], batch: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random((batch, 3, *size), np.float32)


@pytest.mark.parametrize("form", ["deploy", "plain"])
def test_file_equals_torch_at_every_size(network: LoadedNetwork, tmp_path: Path, form: str) -> None:
    export_onnx(network, tmp_path / "a.onnx", form=form)  # type: ignore[arg-type]  # a literal
    with OnnxRunner(tmp_path / "a.onnx", threads=1) as onnx_file, TorchRunner(network) as reference:
        assert onnx_file.scale == network.scale
        # The plain graph's cubic Resize of a single column is ONNX Runtime's business.
        for size in SIZES if form == "deploy" else SIZES[2:]:
            lr = random_lr(size, batch=2)
            np.testing.assert_allclose(onnx_file.infer(lr), reference.infer(lr), atol=1e-5)


def test_half_precision_stays_close(network: LoadedNetwork, tmp_path: Path) -> None:
    export_onnx(network, tmp_path / "a.onnx", precision="fp16")
    with (
        OnnxRunner(tmp_path / "a.onnx", threads=1, as_device=True) as half,
        TorchRunner(network) as reference,
    ):
        for size in SIZES:
            lr = random_lr(size)
            # Half precision has 11 bits: some units in the last place of values of the order of 1.
            np.testing.assert_allclose(half.infer(lr), reference.infer(lr), atol=1e-2)


def test_eight_bit_pictures_are_rounded_inside(network_x2: LoadedNetwork, tmp_path: Path) -> None:
    export_onnx(network_x2, tmp_path / "a.onnx", io="uint8")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 7, 12, 3), np.uint8)
    with OnnxRunner(tmp_path / "a.onnx") as picture, TorchRunner(network_x2) as reference:
        assert picture.io == "uint8"
        sr = picture.infer(image)
        expected = reference.infer(image.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    assert sr.shape == (1, 14, 24, 3)
    assert sr.dtype == np.uint8
    # A value at .5 may fall to either side.
    assert np.abs(sr[0].astype(int) - image_from_float(expected)).max() <= 1


def test_static_size_is_the_only_one(network_x2: LoadedNetwork, tmp_path: Path) -> None:
    manifest = export_onnx(network_x2, tmp_path / "a.onnx", size=(16, 8))
    assert manifest.input.shape == (1, 3, 8, 16)
    with OnnxRunner(tmp_path / "a.onnx") as static:
        assert static.infer(random_lr((8, 16))).shape == (1, 3, 16, 32)
        with pytest.raises(InputError, match=r"a batch of shape \(1, 3, 9, 16\)"):
            static.infer(random_lr((9, 16)))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_static_file_names_no_size_that_is_open(
    network_x2: LoadedNetwork, tmp_path: Path, precision: Literal["fp32", "fp16"]
) -> None:
    path = tmp_path / "static.onnx"
    crop = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    export_onnx(
        network_x2, path, precision=precision, io="uint8", size=(14, 9), range_images=[crop]
    )
    graph = onnx.load(path).graph
    shapes = [
        [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (graph.input[0], graph.output[0])
    ]
    assert shapes == [[1, 9, 14, 3], [1, 18, 28, 3]]


def test_the_file_says_what_it_is(network_x2: LoadedNetwork, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    manifest = export_onnx(network_x2, path, precision="fp16")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["swise.model"] == "swisenet"
    assert facts["swise.scale"] == "2"
    assert facts["swise.precision"] == "fp16"
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 17}
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["lr", "sr"]
    assert read_manifest(path) == manifest
    assert manifest.sha256 == sha256_of(path)
    assert manifest.num_params == sum(p.numel() for p in network_x2.module.parameters())


def test_deploy_form_has_none_of_the_slow_operations(
    network_x2: LoadedNetwork, tmp_path: Path
) -> None:
    export_onnx(network_x2, tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "a.onnx").graph
    slow = {"Resize", "PRelu", "LayerNormalization", "Split", "SpaceToDepth"}
    assert not {node.op_type for node in graph.node} & slow


def test_export_is_reproducible(network_x2: LoadedNetwork, tmp_path: Path) -> None:
    first = export_onnx(network_x2, tmp_path / "a.onnx", precision="fp16")
    second = export_onnx(network_x2, tmp_path / "b.onnx", precision="fp16")
    assert first.sha256 == second.sha256


def test_manifest_of_another_version_is_refused(network_x2: LoadedNetwork, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    manifest = export_onnx(network_x2, path)
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest
    document = json.loads(manifest_path(path).read_text())
    for change, named in (
        ({"schema_version": 99}, "schema_version is 99"),
        ({"surprise": 1}, "surprise"),
        ({"scale": 0}, "scale"),
        ({"num_params": "many"}, "num_params"),
        ({"precision": "fp17"}, "precision"),
        ({"input": "lr"}, "input"),
    ):
        manifest_path(path).write_text(json.dumps({**document, **change}))
        with pytest.raises(InputError, match=named):
            read_manifest(path)


def test_untraceable_network_is_named(tmp_path: Path) -> None:
    class Stubborn(torch.nn.Module):
        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(lr)[0]

    from swise_deploy.errors import ExportError

    with pytest.raises(ExportError, match="stubborn x2 cannot be traced"):
        export_onnx(LoadedNetwork(Stubborn(), "stubborn", 2, "", ""), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_of_pictures_too_small_for_ssim_is_json_and_reads_back(
    network_x2: LoadedNetwork, tmp_path: Path
) -> None:
    manifest = export_onnx(network_x2, tmp_path / "a.onnx")
    tiny = Drift(1, "0" * 64, -0.1, None, "tiny.png", -0.1, 0.01, 50.0)
    path = write_manifest(tmp_path / "a.onnx", dataclasses.replace(manifest, drift=tiny))
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["drift"]["ssim_y"] is None
    assert read_manifest(tmp_path / "a.onnx").drift == tiny


class Fourier(torch.nn.Module):
    """Transforms rows, which ONNX's exporter does not know in this form."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.fft.irfft(torch.fft.rfft(x), n=32)
        return torch.nn.functional.interpolate(rows, scale_factor=2)


def test_a_failed_trace_is_one_error_and_prints_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = LoadedNetwork(Fourier().eval(), "fourier", 2, "test", "0" * 64)
    with pytest.raises(ExportError, match="fourier x2"):
        traced_form(network)
    assert capsys.readouterr().out == ""
