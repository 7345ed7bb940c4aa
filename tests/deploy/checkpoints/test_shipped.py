"""The ONNX files that ship are the weights that ship, in fp32 and fp16."""

from pathlib import Path

import numpy as np
import pytest

from swise_deploy.checkpoints.load import open_network
from swise_deploy.checkpoints.shipped import (
    is_shipped,
    parse_named,
    resolve_onnx,
    resolve_weights,
    shipped_names,
    shipped_onnx,
    shipped_weights,
)
from swise_deploy.errors import InputError
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.precision import RestPrecision
from swise_deploy.runner import upscale
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.files import sha256_of
from swise_export.graph.loading import load_onnx
from swise_export.manifest import METADATA_PREFIX, read_manifest
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import export_onnx

PRECISIONS: tuple[RestPrecision, ...] = ("fp32", "fp16")


def test_every_shipped_network_has_its_onnx_file() -> None:
    for shipped in shipped_names():
        name, _, scale = shipped.partition(" x")
        for precision in PRECISIONS:
            found = shipped_onnx(name, int(scale), precision=precision)
            assert found, f"{shipped}: run bench/scripts/ship_onnx.py"


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_shipped_onnx_file_was_made_from_the_shipped_weights(
    precision: RestPrecision, scale: int
) -> None:
    path = shipped_onnx("swisenet", scale, precision=precision)
    weights = shipped_weights("swisenet", scale)
    assert path
    assert weights
    manifest = read_manifest(path)
    assert manifest.sha256 == sha256_of(path)
    assert manifest.weights_sha256 == sha256_of(weights)
    assert (manifest.precision, manifest.scale) == (precision, scale)
    metadata = {entry.key: entry.value for entry in load_onnx(path).metadata_props}
    assert metadata[f"{METADATA_PREFIX}weights_sha256"] == sha256_of(weights)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_shipped_onnx_file_upscales_as_the_weights_do(scale: int) -> None:
    path = shipped_onnx("swisenet", scale)
    assert path
    lr = read_rgb(sample_paths()[0])[:64, :80]
    with (
        OnnxRunner(path, as_device=True) as fp16,
        TorchRunner(open_network("swisenet", scale=scale)) as fp32,
    ):
        difference = np.abs(upscale(fp16, lr).astype(int) - upscale(fp32, lr))
    assert difference.max() <= 1  # fp16's rounding moves a value over a border of 8 bits


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_shipped_fp32_file_is_what_an_export_gives(scale: int, tmp_path: Path) -> None:
    path = shipped_onnx("swisenet", scale, precision="fp32")
    assert path
    again = tmp_path / path.name
    export_onnx(open_network("swisenet", scale=scale), again)
    lr = read_rgb(sample_paths()[0])[:64, :80].transpose(2, 0, 1)[None].astype(np.float32) / 255
    with OnnxRunner(path) as shipped, OnnxRunner(again) as exported:
        difference = np.abs(shipped.infer(lr) - exported.infer(lr))
    # The order of sums may change with the version of torch.
    assert difference.max() < 1e-5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("swisenet:2", ("swisenet", 2)),
        ("swisenet:x4", ("swisenet", 4)),
        ("swisenet", None),
        ("swisenet:2@torch", None),
        ("net.onnx", None),
        ("swisenet:22", None),
    ],
)
def test_a_name_with_a_scale_is_read(text: str, named: tuple[str, int] | None) -> None:
    assert parse_named(text) == named


def test_names_stand_for_files_and_files_for_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_weights("swisenet:3") == shipped_weights("swisenet", 3)
    assert resolve_onnx("swisenet:3") == shipped_onnx("swisenet", 3)
    assert resolve_onnx("my.onnx") == Path("my.onnx")
    with pytest.raises(InputError, match=r"no weights for carn:2 ship.*swisenet:2"):
        resolve_weights("carn:2")
    assert is_shipped(resolve_onnx("swisenet:3"))
    Path("swisenet:3").touch()
    assert resolve_onnx("swisenet:3") == Path("swisenet:3")
