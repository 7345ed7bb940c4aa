"""first_engine.py, rehearsed with a stand-in for both Pythons of a GPU machine."""

import importlib
import importlib.util
import json
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "bench" / "scripts"

# Logs its arguments, makes what they name after -o or --output, and behaves as its rules say.
STAND_IN = """#!/bin/sh
echo "$@" >> {log}
for word in "$@"; do
  [ "$before" = -o ] && made=$word
  [ "$before" = --output ] && made=$word
  before=$word
done
case "$*" in {rules}
esac
[ -n "$made" ] && echo made > "$made"
exit 0
"""


@pytest.fixture
def first_engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS.parent), *sys.path])
    return importlib.import_module("scripts.gpu.first_engine")


@pytest.fixture
def onnx(tmp_path: Path, first_engine: ModuleType) -> Path:
    folder = tmp_path / "onnx"
    folder.mkdir()
    for scale in first_engine.SCALES:
        for precision in first_engine.PRECISIONS:
            (folder / f"swisenet_x{scale}_{precision}.onnx").touch()
    (folder / f"{first_engine.PROBE}.onnx").touch()
    return folder


def rehearse(
    first_engine: ModuleType, onnx: Path, *, rules: str = "", budget: str = "60"
) -> tuple[int, list[str], dict[str, int], Path]:
    """Run the script; gives its exit code, the commands that ran, and the outcomes by name."""
    log = onnx.parent / "log"
    stand_in = onnx.parent / "python"
    stand_in.write_text(STAND_IN.format(log=shlex.quote(str(log)), rules=rules))
    stand_in.chmod(0o755)
    results = onnx.parent / "results"
    pythons = ["--engine-python", str(stand_in), "--torch-python", str(stand_in)]
    options = ["--onnx", str(onnx), *pythons, "--budget", budget, "--rehearse"]
    code = first_engine.main(["run", str(results), *options])
    (folder,) = results.iterdir()
    steps = json.loads((folder / "steps.json").read_text())["steps"]
    outcomes = {step["name"]: step["exit_code"] for step in steps}
    return code, log.read_text().splitlines(), outcomes, folder


def test_everything_runs_in_the_order_of_importance(first_engine: ModuleType, onnx: Path) -> None:
    code, commands, outcomes, folder = rehearse(first_engine, onnx)
    assert code == 0
    order = list(outcomes)
    assert order[:5] == [
        "doctor",
        "build fsrcnn_x2_fp32",
        "build fsrcnn_x2_fp32 quickly",
        "upscale fsrcnn_x2_fp32",
        "build swisenet_x2_fp16",
    ]
    assert order.index("bench x2 round 0") < order.index("build swisenet_x2_fp32")
    assert order.index("tests") < order.index("build swisenet_x4_fp16")
    assert order.index("build swisenet_x4_fp16") < order.index("build swisenet_x3_fp16")
    assert order[-1] == "train x2"
    # Engines and torch take turns.
    rounds = [name for name in order if "x2 round" in name]
    assert rounds == [
        "bench x2 round 0",
        "bench x2 round 1",
        "torch x2 round 1",
        "bench x2 round 2",
        "torch x2 round 2",
    ]
    quick = {name: code for name, code in outcomes.items() if name.endswith("quickly")}
    assert set(quick.values()) == {125}
    assert {code for name, code in outcomes.items() if name not in quick} == {0}
    assert len(commands) == len(outcomes) - len(quick)
    assert (folder / "bench_x2_0.json").is_file()
    assert json.loads((folder / "environment.json").read_text())["gpu"] is None


def test_a_build_that_hangs_or_fails_is_replaced_by_a_quicker_one(
    first_engine: ModuleType, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time runs 40 times faster for the limits of the steps.
    real = first_engine.Step

    def step(*arguments: object, limit_s: float, **options: object) -> object:
        return real(*arguments, limit_s=limit_s / 40, **options)

    monkeypatch.setattr(first_engine, "Step", step)
    rules = (
        "*optimization-level*) ;;\n"
        "*swisenet_x2_fp16.onnx*) echo begun; sleep 600 ;;\n"
        "*swisenet_x2_int8.onnx*) echo 'error: no kernel'; exit 1 ;;\n"
    )
    code, commands, outcomes, folder = rehearse(first_engine, onnx, rules=rules)
    assert code == 1
    assert outcomes["build swisenet_x2_fp16"] == 124
    assert outcomes["build swisenet_x2_fp16 quickly"] == 0
    assert outcomes["build swisenet_x2_int8"] == 1
    assert outcomes["build swisenet_x2_int8 quickly"] == 0
    printed = (folder / "build_swisenet_x2_fp16.txt").read_text().split("\n")
    assert printed[0] == "begun"
    (bench,) = (line for line in commands if "bench_x2_1.json" in line)
    for precision in ("fp16", "fp32", "int8"):
        assert f"swisenet_x2_{precision}.engine" in bench
    summary = (folder / "summary.md").read_text()
    assert "2 failed: build swisenet_x2_fp16, build swisenet_x2_int8." in summary


def test_the_budget_ends_the_run_and_keeps_what_was_done(
    first_engine: ModuleType, onnx: Path
) -> None:
    rules = "*swisenet_x2_fp32.onnx*) sleep 600 ;;\n"
    _, commands, outcomes, _ = rehearse(first_engine, onnx, rules=rules, budget="8")
    assert outcomes["build swisenet_x2_fp16"] == 0
    assert outcomes["bench x2 round 0"] == 0
    assert outcomes["build swisenet_x2_fp32"] == 124
    assert outcomes["train x2"] == 125
    assert not any("x4" in line for line in commands)


def test_a_probe_that_builds_nothing_stops_nothing(first_engine: ModuleType, onnx: Path) -> None:
    _, _, outcomes, _ = rehearse(first_engine, onnx, rules="*fsrcnn*) exit 3 ;;\n")
    assert outcomes["build fsrcnn_x2_fp32 quickly"] == 3
    assert outcomes["upscale fsrcnn_x2_fp32"] == 125
    assert outcomes["build swisenet_x2_fp16"] == 0


def test_every_command_is_one_that_the_programs_take(
    first_engine: ModuleType, onnx: Path, tmp_path: Path
) -> None:
    python = sys.executable
    config = first_engine.RunConfig(tmp_path, onnx, python, python, 360.0, is_rehearsal=True)
    steps = [
        *first_engine.plan(config, tmp_path, tmp_path),
        *first_engine.export_steps(tmp_path, tmp_path / "fsrcnn.safetensors"),
    ]
    names = [step.name for step in steps]
    assert len(names) == len(set(names))
    for step in steps:
        program, dash, module, *arguments = step.command
        assert (program, dash) == (python, "-m")
        if module != "pytest":
            importlib.import_module(module)._parser().parse_args([*arguments, *step.subjects])


def test_without_a_gpu_only_a_rehearsal_runs(
    first_engine: ModuleType, onnx: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from swise_engines.cuda.boundary import find_gpu

    if find_gpu().cuda is not None:
        pytest.skip("this machine has a GPU")
    assert first_engine.main(["run", str(onnx.parent / "results"), "--onnx", str(onnx)]) == 3
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
    assert not (onnx.parent / "results").exists()
