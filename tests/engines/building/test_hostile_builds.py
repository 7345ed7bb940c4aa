"""Builds whose cache, source or user interferes: changed weights, Ctrl-C anywhere, no cache."""

import os
import shutil
import subprocess
import sys
from functools import partial

import onnx
import pytest
from onnx import numpy_helper

from swise_deploy.pictures.folders import sample_paths
from swise_engines.building import cli as cli_build
from swise_engines.tensorrt.manifest import read_manifest
from swise_engines.upscaling.cli import main

SMALL = ("--target", "sm86", "--size", "16x12", "--no-verify")


def swise_build(*arguments: object, code: str = "", **environment: str) -> tuple[int, str]:
    """swise-build in a process of its own, after running `code`; gives exit code and stderr."""
    program = f"{code}\nimport sys; from swise_engines.building.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.usefixtures("rtx")
def test_other_weights_in_external_data_are_another_engine(make_onnx, tmp_path, capsys):
    path = tmp_path / "net.onnx"
    source = make_onnx("fp32")
    save = partial(onnx.save, save_as_external_data=True, location="net.data", size_threshold=0)
    save(onnx.load(source), path)
    before = path.read_bytes()
    options = [str(path), *SMALL, "--cache", str(tmp_path / "cache")]
    assert cli_build.main([*options, "-o", str(tmp_path / "a.engine")]) == 0
    model = onnx.load(source)
    weights = next(t for t in model.graph.initializer if t.name == "second_weights")
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    path.with_name("net.data").unlink()  # onnx would append
    save(model, path)
    assert path.read_bytes() == before
    capsys.readouterr()
    assert cli_build.main([*options, "-o", str(tmp_path / "b.engine")]) == 0
    assert "the cache has this engine" not in capsys.readouterr().err
    first, second = (read_manifest(tmp_path / f"{name}.engine") for name in "ab")
    assert first is not None
    assert second is not None
    assert first.onnx_sha256 != second.onnx_sha256


@pytest.mark.usefixtures("rtx")
def test_a_cache_that_cannot_be_used_is_one_warning_and_an_engine(make_onnx, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "out.engine"
    arguments = (make_onnx("fp32"), *SMALL, "-o", out)
    code, stderr = swise_build(*arguments, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert code == 0, stderr
    assert out.is_file()
    assert stderr.count("WARNING") == 1
    assert "cannot be used" in stderr


@pytest.mark.usefixtures("rtx")
def test_a_cache_without_room_is_one_warning_and_an_engine(make_onnx, tmp_path):
    out, full = tmp_path / "out.engine", tmp_path / "full"
    full.mkdir()
    # The cache alone is limited: its folder is a small file system of its own.
    mount = "mount -t tmpfs -o size=16k tmpfs {} && exec {} -m swise_engines.building.cli {}"
    arguments = " ".join(map(str, (make_onnx("fp32"), *SMALL, "-o", out, "--cache", full)))
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare of util-linux")
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", mount.format(full, sys.executable, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert out.is_file()
    assert done.stderr.count("WARNING") == 1


# Presses Ctrl-C inside the callback in which TensorRT logs, where exceptions are lost.
PRESS = """
import logging, signal
class Press(logging.Handler):
    def emit(self, record):
        log.removeHandler(self)
        signal.raise_signal(signal.SIGINT)
log = logging.getLogger("swise_engines.tensorrt.api")
log.setLevel(logging.DEBUG)
log.addHandler(Press())
log.propagate = False
"""


@pytest.mark.usefixtures("rtx")
def test_ctrl_c_inside_the_log_of_tensorrt_ends_the_build(make_onnx, tmp_path):
    out = tmp_path / "out.engine"
    arguments = (make_onnx("fp32"), *SMALL, "--no-cache", "-o", out)
    code, stderr = swise_build(*arguments, code=PRESS)
    assert code == 130, stderr
    assert "interrupted" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("rtx")
def test_a_manifest_names_no_module_to_import(engine, tmp_path, capsys):
    manifest = engine.with_suffix(".json")
    manifest.write_text(manifest.read_text().replace('"tensorrt_rtx"', '"this"'))
    picture = str(sample_paths()[0])
    assert main([picture, "-o", str(tmp_path / "o.png"), "--model", str(engine)]) == 2
    captured = capsys.readouterr()
    assert "'this'" in captured.err
    assert "Tim Peters" not in captured.out
    assert "this" not in sys.modules


@pytest.mark.usefixtures("rtx")
def test_leftovers_beside_the_engine_are_removed_by_the_next_build(make_onnx, tmp_path):
    dead = tmp_path / ".out.swise-0123abcd.engine"
    dead.write_bytes(b"half an engine")
    os.utime(dead, (1, 1))
    other = tmp_path / ".out.backup.engine"
    other.write_bytes(b"the user's own")
    out = tmp_path / "out.engine"
    code, stderr = swise_build(make_onnx("fp32"), *SMALL, "--no-cache", "-o", out)
    assert code == 0, stderr
    assert not dead.exists()
    assert other.exists()
