"""bench/scripts/gpu/gpu_check.py as far as it goes without a GPU."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from swise_bench.subjects.spec import parse_subject
from swise_engines.cuda.boundary import find_gpu

SCRIPT = Path(__file__).resolve().parents[3] / "bench" / "scripts" / "gpu" / "gpu_check.py"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_states_the_reason_and_writes_nothing(
    gpu_check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_gpu().cuda is not None:
        pytest.skip("this machine has a GPU")
    assert gpu_check.main([str(tmp_path / "results")]) == 3
    assert "gpu_check needs an NVIDIA GPU: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failing_step_stops_no_other_and_each_result_is_kept_at_once(
    gpu_check: ModuleType, tmp_path: Path
) -> None:
    def python(name: str, code: str) -> object:
        return gpu_check.Step(name, (sys.executable, "-c", code))

    read = f"import json; print(len(json.load(open({str(tmp_path / 'steps.json')!r}))['steps']))"
    steps = [
        python("good", "print('one'); print('a | b')"),
        python("bad one", "raise SystemExit(4)"),
        gpu_check.Step("absent", (str(tmp_path / "no-such-program"),)),
        python("slow", "import time; print('begun', flush=True); time.sleep(60)"),
        python("last", read),
    ]
    outcomes = gpu_check.run_steps(steps, tmp_path, {"gpu": "a GPU"}, timeout_s=3.0)
    assert [outcome.exit_code for outcome in outcomes] == [0, 4, 127, 124, 0]
    assert outcomes[-1].last_line == "4"
    assert (tmp_path / "slow.txt").read_text().splitlines() == ["begun", "", "stopped after 3 s"]
    assert "did not start" in (tmp_path / "absent.txt").read_text()
    summary = (tmp_path / "summary.md").read_text()
    assert "5 of 5 steps run, 3 failed: bad one, absent, slow." in summary
    assert "| good | 0 | 0 | `a   b` |" in summary
    assert '"gpu": "a GPU"' in summary
    kept = json.loads((tmp_path / "steps.json").read_text())["steps"]
    assert [step["name"] for step in kept] == ["good", "bad one", "absent", "slow", "last"]


def test_a_file_that_no_step_made_is_left_out(gpu_check: ModuleType, tmp_path: Path) -> None:
    there = tmp_path / "there.engine"
    there.touch()
    command = (sys.executable, "-c", "import sys; print(sys.argv[1:])", "--first")
    subjects = (str(there), f"{there}@trtexec", str(tmp_path / "absent.engine"))
    step = gpu_check.Step("bench", command, subjects)
    (outcome,) = gpu_check.run_steps([step], tmp_path, {}, timeout_s=30.0)
    assert outcome.last_line == str(["--first", str(there), f"{there}@trtexec"])


def test_what_a_failed_step_made_is_not_measured(gpu_check: ModuleType, tmp_path: Path) -> None:
    def make(name: str, code: int) -> object:
        made = tmp_path / name
        write = f"open({str(made)!r}, 'w').close(); raise SystemExit({code})"
        return gpu_check.Step(name, (sys.executable, "-c", write), makes=str(made))

    show = (sys.executable, "-c", "import sys; print(sys.argv[1:])")
    both = (str(tmp_path / "good.engine"), str(tmp_path / "bad.engine"))
    steps = [
        make("good.engine", 0),
        make("bad.engine", 1),
        gpu_check.Step("bench", show, both, gpu_check.TIMES),
    ]
    outcomes = gpu_check.run_steps(steps, tmp_path, {}, timeout_s=30.0)
    assert outcomes[-1].last_line == str([both[0]])


def test_every_command_of_the_check_is_one_that_the_programs_take(
    gpu_check: ModuleType, tmp_path: Path
) -> None:
    builders = [
        gpu_check.Builder("tensorrt", "10.3.0"),
        gpu_check.Builder("tensorrt_rtx", "1.7.1"),
    ]
    for scale in gpu_check.SIZES:
        for precision in ("fp16", "int8"):
            (tmp_path / f"swisenet_x{scale}_{precision}.onnx").touch()
    peers = gpu_check.Peers(("torch-cuda", "compile-cuda-fp16"), ("onnxruntime",), ("no-graphs",))
    steps = gpu_check.engine_steps(
        tmp_path, tmp_path, tmp_path, builders, ("fp16", "int8"), peers=peers
    )
    assert [step.name for step in steps[:12]] == [
        "build swisenet_x2_fp16 tensorrt",
        "upscale swisenet_x2_fp16 tensorrt",
        "build swisenet_x2_fp16 tensorrt_rtx",
        "upscale swisenet_x2_fp16 tensorrt_rtx",
        "build swisenet_x2_int8 tensorrt",
        "upscale swisenet_x2_int8 tensorrt",
        "build swisenet_x2_int8 tensorrt_rtx",
        "upscale swisenet_x2_int8 tensorrt_rtx",
        "compile x2 compile-cuda-fp16",
        "memory x2",
        "bench x2",
        "energy x2",
    ]
    assert [Path(subject).name for subject in steps[10].subjects] == [
        "swisenet_x2_fp16.tensorrt.engine",
        "swisenet_x2_fp16.tensorrt_rtx.engine",
        "swisenet_x2_int8.tensorrt.engine",
        "swisenet_x2_int8.tensorrt_rtx.engine",
        "swisenet:2@torch-cuda",
        "swisenet:2@compile-cuda-fp16",
        "swisenet_x2_fp16.tensorrt.engine@trtexec",
        "swisenet_x2_fp16.tensorrt.engine@no-graphs",
        "swisenet_x2_fp16.tensorrt_rtx.engine@no-graphs",
        "swisenet_x2_int8.tensorrt.engine@trtexec",
    ]
    every = [*steps, *gpu_check.training_steps(tmp_path, 2), *gpu_check.first_steps(tmp_path)]
    for step in every:
        program, dash, module, *arguments = step.command
        assert (program, dash) == (sys.executable, "-m")
        if module == "pytest":
            continue
        parser = importlib.import_module(module.replace("export.training", "deploy.training"))
        parser._parser().parse_args([*arguments, *step.subjects])
        for subject in step.subjects:
            if subject.startswith("/"):
                Path(subject.partition("@")[0]).touch()
            assert parse_subject(subject).runner


def test_where_no_engine_runs_torch_and_onnxruntime_are_measured(
    gpu_check: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "swisenet_x2_fp32.onnx").touch()
    kinds = ("torch-cuda", "compile-cuda", "torch-cuda-fp16", "compile-cuda-fp16")
    peers = gpu_check.Peers(kinds, ("onnxruntime",), ("no-graphs", "pycuda"))
    steps = gpu_check.engine_steps(tmp_path, tmp_path, tmp_path, [], ("fp32",), peers=peers)
    subjects = {step.name: [Path(s).name for s in step.subjects] for step in steps}
    in_torch = [f"swisenet:2@{kind}" for kind in kinds]
    assert subjects["bench x2"] == [*in_torch, "swisenet_x2_fp32.onnx@onnxruntime"]
    assert subjects["energy x2"] == in_torch
    assert subjects["memory x2"] == ["swisenet:2@torch-cuda", "swisenet:2@torch-cuda-fp16"]
    assert {"bench x3", "bench x4"} <= set(subjects)
    assert not any(name.startswith(("build", "upscale")) for name in subjects)


def test_without_torch_what_is_left_is_onnxruntime(gpu_check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "swisenet_x4_fp32.onnx").touch()
    peers = gpu_check.Peers((), ("onnxruntime",))
    steps = gpu_check.engine_steps(tmp_path, tmp_path, tmp_path, [], ("fp32",), peers=peers)
    assert [step.name for step in steps] == ["bench x4"]


@pytest.mark.parametrize(("sm", "serves"), [("8.9", True), ("9.0", False), ("99.0", True)])
def test_a_tensorrt_that_does_not_serve_the_gpu_builds_nothing_and_states_the_reason(
    gpu_check: ModuleType, sm: str, serves: bool
) -> None:
    pytest.importorskip("tensorrt_rtx")
    (builder,) = [b for b in gpu_check._builders(sm) if b.backend == "tensorrt_rtx"]
    assert (builder.unserved == "") is serves
    assert serves or "runs no engine on SM 9.0" in builder.unserved


def test_several_run_at_a_time_but_chains_in_order_and_timing_alone_at_the_end(
    gpu_check: ModuleType, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def step(name: str, turn: int, chain: str) -> object:
        code = (
            f"import time; log = open({str(log)!r}, 'a', buffering=1); print('+{name}', file=log); "
            f"time.sleep(0.3); print('-{name}', file=log)"
        )
        return gpu_check.Step(name, (sys.executable, "-c", code), (), turn, chain)

    steps = [
        step("t1", gpu_check.TIMES, "a"),
        step("t2", gpu_check.TIMES, "b"),
        step("a1", gpu_check.MAKES, "a"),
        step("a2", gpu_check.MAKES, "a"),
        step("b1", gpu_check.MAKES, "b"),
        step("u", gpu_check.USES, ""),
    ]
    outcomes = gpu_check.run_steps(steps, tmp_path, {}, timeout_s=30.0, jobs=3)
    assert {outcome.exit_code for outcome in outcomes} == {0}
    seen = log.read_text().split()
    assert seen.index("-a1") < seen.index("+a2")
    assert seen.index("+b1") < seen.index("+a2")
    assert seen[-6:] == ["+u", "-u", "+t1", "-t1", "+t2", "-t2"]


def test_later_pieces_add_up_in_the_folder(gpu_check: ModuleType, tmp_path: Path) -> None:
    def step(name: str, code: int) -> object:
        return gpu_check.Step(name, (sys.executable, "-c", f"raise SystemExit({code})"))

    gpu_check.run_steps([step("one", 1), step("two", 0)], tmp_path, {}, timeout_s=30.0)
    gpu_check.run_steps([step("three", 0), step("one", 0)], tmp_path, {}, timeout_s=30.0)
    kept = json.loads((tmp_path / "steps.json").read_text())["steps"]
    assert [(s["name"], s["exit_code"]) for s in kept] == [("two", 0), ("three", 0), ("one", 0)]
    assert "3 of 3 steps run, 0 failed." in (tmp_path / "summary.md").read_text()
