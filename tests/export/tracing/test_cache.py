import dataclasses
from pathlib import Path

import onnx
import pytest

from swise_deploy.checkpoints.load import open_network
from swise_export.tracing import cache as kept_exports
from swise_export.tracing.cache import export_once, find_export


def test_a_network_is_exported_once_for_each_form(tmp_path: Path) -> None:
    network = open_network("bicubic", scale=2)
    said: list[str] = []
    deploy = export_once(network, tmp_path, say=said.append)
    plain = export_once(network, tmp_path, form="plain", say=said.append)
    assert len({deploy, plain}) == len(said) == 2
    written = deploy.stat().st_mtime_ns
    assert export_once(network, tmp_path, say=said.append) == deploy
    assert (deploy.stat().st_mtime_ns, len(said)) == (written, 2)
    onnx.checker.check_model(onnx.load(deploy))


@pytest.mark.parametrize("changed", ["weights", "code", "torch"])
def test_other_weights_code_or_torch_are_exported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    network = open_network("bicubic", scale=2)
    first = export_once(network, tmp_path, say=print)
    if changed == "weights":
        network = dataclasses.replace(network, weights_sha256="f" * 64)
    else:
        name = {"code": "_code_hash", "torch": "_torch_version"}[changed]
        monkeypatch.setattr(kept_exports, name, lambda: "another-one")
    assert find_export(tmp_path, "bicubic", 2, weights_sha256=network.weights_sha256) is None
    assert export_once(network, tmp_path, say=print) != first


def test_an_export_is_found_where_there_is_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = open_network("bicubic", scale=2)
    kept = export_once(network, tmp_path, say=print)
    monkeypatch.setattr(kept_exports, "_torch_version", lambda: None)
    assert find_export(tmp_path, "bicubic", 2, weights_sha256=network.weights_sha256) == kept
    assert find_export(tmp_path, "bicubic", 3, weights_sha256=network.weights_sha256) is None


def test_the_code_that_decides_about_a_graph_is_in_the_name() -> None:
    names = {source.name for source in kept_exports._sources()}
    networks = {"swisenet.py", "scale_wise.py", "matlab_bicubic.py", "imresize.py"}
    assert {"trace.py", "deploy_form.py", "periodic_resize.py", "half.py", *networks} <= names


@pytest.mark.parametrize("damage", ["cut", "exchanged", "no manifest", "manifest of another"])
def test_a_kept_export_that_was_changed_is_exported_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = open_network("bicubic", scale=2)
    kept = export_once(network, tmp_path / "cache", say=print)
    whole = kept.read_bytes()
    if damage == "cut":
        kept.write_bytes(whole[:-100])
    elif damage == "exchanged":
        kept.write_bytes(
            export_once(open_network("bicubic", scale=3), tmp_path, say=print).read_bytes()
        )
    elif damage == "no manifest":
        kept.with_suffix(".json").unlink()
    else:
        other = export_once(open_network("bicubic", scale=3), tmp_path, say=print)
        kept.with_suffix(".json").write_bytes(other.with_suffix(".json").read_bytes())
    again = export_once(network, tmp_path / "cache", say=print)
    assert again.read_bytes() == whole
    assert "exported again" in caplog.text


@pytest.mark.parametrize("open_to", ["the file", "the folder"])
def test_a_kept_export_that_others_can_write_is_exported_again(
    open_to: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = open_network("bicubic", scale=2)
    kept = export_once(network, tmp_path / "cache", say=print)
    (kept if open_to == "the file" else kept.parent).chmod(0o777)
    assert find_export(kept.parent, "bicubic", 2, weights_sha256=network.weights_sha256) is None
    assert "can be written by other users" in caplog.text
