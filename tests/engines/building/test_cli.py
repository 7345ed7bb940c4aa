import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from swise_engines.building import cli as cli_build
from swise_engines.building import command as build_run
from swise_engines.cuda.boundary import Device, GpuAtHand
from swise_engines.targets.catalogue import load_targets
from swise_export.manifest import manifest_path

ROOT = Path(__file__).parents[3]


@pytest.fixture
def options(rtx, tmp_path, monkeypatch):
    """Options of a build; it sees no GPU, so that all machines answer alike."""
    del rtx
    monkeypatch.setattr(build_run, "find_gpu", lambda: GpuAtHand(None, "none for this test"))
    return ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out.engine")]


def start(*arguments: object, code: str = "") -> subprocess.Popen[str]:
    """swise-build in a process of its own, after running `code`."""
    program = f"{code}\nimport sys; from swise_engines.building.cli import main; sys.exit(main())"
    rooms = [str(ROOT), *(str(ROOT / room) for room in ("export", "engines", "bench"))]
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(rooms)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_report_names_the_engine_and_its_target(make_onnx, options, capsys, tmp_path):
    assert cli_build.main([str(make_onnx("fp16")), "--target", "sm89", *options]) == 0
    printed = capsys.readouterr()
    assert "for SM 8.9, tensorrt_rtx" in printed.out
    assert "takes 16x16 to 960x540 (best at 640x360)" in printed.out
    assert "fp16" in printed.out
    assert "100.0%" in printed.out
    assert "building out.engine" in printed.err
    assert (tmp_path / "out.engine").exists()
    assert manifest_path(tmp_path / "out.engine").exists()


def test_json_is_the_manifest_and_nothing_else_on_stdout(make_onnx, options, capsys):
    arguments = [str(make_onnx("mixed")), "--target", "rtx-3060", "--json", *options]
    assert cli_build.main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sms"] == ["8.6"]
    assert document["precision_asked"] == "mixed"
    assert document["was_cached"] is False


def test_without_a_name_the_engine_lies_beside_the_onnx_file(make_onnx, options, capsys):
    path = make_onnx("fp32", name="net.onnx")
    assert cli_build.main([str(path), "--target", "sm120", "--no-cache"]) == 0
    assert str(path.with_name("net.sm120.engine")) in capsys.readouterr().out
    assert path.with_name("net.sm120.json").exists()
    del options


def test_fp16_requested_and_fp32_found_fails_and_writes_nothing(
    make_onnx, options, capsys, tmp_path
):
    arguments = [str(make_onnx("fp32")), "--target", "sm86", "--precision", "fp16", *options]
    assert cli_build.main(arguments) == 1
    assert "fp16 was requested" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.engine"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--target", "sm866"], (2, "Did you mean 'sm86'")),
        (["--target", "jetson-orin-nano"], (3, "run swise-build on Jetson Orin Nano")),
        (["--target", "sm86", "--size", "64x64:8x8:9x9"], (2, "profile")),
        (["--target", "sm86", "--version-compatible"], (2, "--version-compatible")),
        (["--target", "sm86", "--dla-core", "0"], (2, "has 0 of them")),
        (["--target", "sm86", "--backend", "tensorrt"], (3, "tensorrt")),
        (["--target", "sm86", "--output", "engine.json"], (2, "ending in .engine, .plan, .trt")),
        (["--target", "sm86", "--output", "engine"], (2, "ending in .engine, .plan, .trt")),
        (["--target", "sm86", "--images", "/nowhere"], (2, "no folder at /nowhere")),
    ],
)
def test_what_cannot_be_is_refused_with_its_exit_code(
    make_onnx, options, capsys, arguments, expected
):
    code, says = expected
    assert cli_build.main([str(make_onnx("fp32")), *options, *arguments]) == code
    assert says in capsys.readouterr().err


def test_the_targets_are_listed(capsys):
    assert cli_build.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in (*load_targets(), "current"):
        assert any(line.split()[:1] == [name] for line in listed.splitlines())


@pytest.mark.parametrize("name", ["my.pth", "my weights.safetensors"])
def test_a_checkpoint_is_answered_with_the_export(name, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(b"not a protobuf message")
    assert cli_build.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "is a checkpoint: swise-export first" in error
    assert f"swise-export {shlex.quote(str(path))}" in error


def test_a_jetson_without_our_python_is_answered_with_trtexec(make_onnx, options, capsys):
    arguments = [str(make_onnx("fp16")), "--target", "jetson-nano", *options]
    assert cli_build.main(arguments) == 3
    assert "--trtexec --target jetson-nano" in capsys.readouterr().err


def test_a_missing_file_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        cli_build.main(["--target", "sm86"])
    assert "FILE.onnx is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--size", "64"], ["--size", "8x8:9x9"], ["--batch", "0"], ["--workspace", "x"]]
)
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli_build.main(["a.onnx", *arguments])
    assert stopped.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_verify_insists_on_a_gpu_before_anything_is_built(make_onnx, options, capsys, tmp_path):
    assert cli_build.main([str(make_onnx("fp32")), "--target", "sm86", "--verify", *options]) == 3
    assert "--verify has to run the engine" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_rtx_runs_nothing_current_exits_with_3_and_leaves_nothing(
    make_onnx, options, monkeypatch, capsys, tmp_path
):
    device = Device("NVIDIA H100", "9.0", is_integrated=False, driver_cuda="13.0")
    hopper = GpuAtHand(SimpleNamespace(device=device))
    monkeypatch.setattr(build_run, "find_gpu", lambda: hopper)
    here = [str(make_onnx("fp16")), "--backend", "tensorrt_rtx", *options]
    assert cli_build.main([*here, "--target", "current"]) == 3
    assert "runs no engine on SM 9.0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    elsewhere = ["--target", "sm86", "--compatibility", "ampere_plus"]
    assert cli_build.main([*here, *elsewhere]) == 0
    assert "drift not measured" in capsys.readouterr().out
    assert cli_build.main([*here, *elsewhere, "--verify"]) == 3


def test_two_at_once_build_once(rtx, make_onnx, tmp_path):
    del rtx
    path, cache = make_onnx("fp16"), tmp_path / "cache"
    both = [
        start(path, "--target", "sm86", "--cache", cache, "-o", tmp_path / f"{name}.engine")
        for name in "ab"
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    stderr = "".join(err for _, err in outputs)
    assert stderr.count(".engine with tensorrt_rtx") == 1
    assert stderr.count("the cache has this engine") == 1
    first, second = (tmp_path / f"{name}.engine" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert manifest_path(first).read_bytes() == manifest_path(second).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_build_ends_the_command_cleanly(rtx, make_onnx, tmp_path, number):
    del rtx
    # The build sends the signal itself, at its fifth report, as if the user pressed Ctrl-C.
    code = f"""
import os, signal
import swise_engines.building.progress as progress
tell, seen = progress.BuildProgress._report, []
def interrupt(self, phase):
    seen.append(phase)
    if len(seen) == 5:
        os.kill(os.getpid(), {number.value})
    tell(self, phase)
progress.BuildProgress._report = interrupt
"""
    out, cache = tmp_path / "out.engine", tmp_path / "cache"
    process = start(make_onnx("fp16"), "--target", "sm86", "-o", out, "--cache", cache, code=code)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + number, stderr
    assert stdout == ""
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.rglob("*.engine"))


def test_it_runs_without_torch(rtx, make_onnx, tmp_path):
    del rtx
    code = "import sys; sys.modules['torch'] = None"
    process = start(
        make_onnx("fp16"), "--target", "sm86", "--no-cache", "-o", tmp_path / "o.engine", code=code
    )
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr


def test_help_does_not_wait_for_libraries():
    code = "import sys, atexit; atexit.register(lambda: print(sorted(sys.modules)))"
    process = start("--help", code=code)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "swise-build" in stdout
    loaded = stdout.splitlines()[-1]
    for slow in ("numpy", "onnx", "rich", "polygraphy", "tensorrt_rtx", "torch"):
        assert f"'{slow}'" not in loaded, slow
