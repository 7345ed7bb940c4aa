"""Run everything that needs a GPU, and keep what came out with the device and the versions.

    python bench/gpu_check.py bench/results/gpu

One folder per device comes out: environment.json, what each step printed, and summary.md. A failing
step fails the script, after the others ran.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench")
sys.path[:0] = [str(room) for room in ROOMS]  # runs from a checkout that is not installed

from swise_deploy.console import progress, run_command  # noqa: E402  # after the path
from swise_deploy.errors import BackendMissingError  # noqa: E402
from swise_deploy.models.shipped import shipped_weights  # noqa: E402

PACKAGES = ("numpy", "onnx", "onnxruntime", "polygraphy", "cuda-bindings", "pycuda", "torch")
SIZES = {2: "640x360", 3: "426x240", 4: "320x180"}


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One command."""

    name: str
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    name: str
    exit_code: int
    seconds: float
    last_line: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the device's folder is made")
    parser.add_argument(
        "--onnx", type=Path, metavar="DIR", help="exported files, where torch is missing"
    )
    parser.add_argument("--timeout", type=float, default=3600, metavar="S", help="per step (3600)")
    return run_command(lambda: _check(parser.parse_args(argv)))


def _check(arguments: argparse.Namespace) -> int:
    from swise_engines.cuda import find_gpu

    gpu = find_gpu()
    if gpu.device is None or gpu.cuda is None:
        raise BackendMissingError(f"gpu_check needs an NVIDIA GPU: {gpu.reason}")
    folder = arguments.folder / re.sub(r"[^a-z0-9]+", "-", gpu.device.name.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    build_flags, backend = _build_flags(gpu.device.sm)
    environment = {
        "gpu": dataclasses.asdict(gpu.device),
        "binding": gpu.cuda.name,
        "backend": backend,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "HEAD"]),
        "nvidia_smi": _output(["nvidia-smi"]),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) if arguments.onnx is None else arguments.onnx
        exports = arguments.onnx is None and util.find_spec("torch") is not None
        steps = _steps(folder, files, build_flags, exports=exports)
        outcomes = [_run(step, folder, arguments.timeout) for step in steps]
    (folder / "summary.md").write_text(_summary(environment, outcomes))
    return int(any(outcome.exit_code for outcome in outcomes))


def _build_flags(sm: str) -> tuple[list[str], str]:
    """TensorRT for RTX does not list every GPU; a portable engine is tried on the others."""
    from swise_engines.builder_config import rtx_capabilities
    from swise_engines.tensorrt_api import is_installed, load_tensorrt, version_of

    if is_installed("tensorrt"):
        return [], f"tensorrt {version_of(load_tensorrt('tensorrt'))}"
    trt = load_tensorrt("tensorrt_rtx")
    flags = [] if sm in rtx_capabilities(trt) else ["--compatibility", "ampere_plus"]
    return flags, f"tensorrt_rtx {version_of(trt)}"


def _command(module: str, *arguments: str) -> tuple[str, ...]:
    """A console script, also where the package is not installed."""
    code = f"import sys; from {module} import main; sys.exit(main())"
    return (sys.executable, "-c", code, *arguments)


def _steps(folder: Path, files: Path, build_flags: list[str], *, exports: bool) -> list[Step]:
    report = str(folder / "pytest.xml")
    tests = ("-m", "pytest", "-m", "gpu", "-rs", "--junitxml", report, str(ROOT / "tests"))
    steps = [
        Step("doctor", _command("swise_engines.cli_doctor", "--target", "current")),
        Step("tests", (sys.executable, *tests)),
    ]
    for scale in sorted(SIZES):
        engines = []
        for precision in ("fp32", "fp16"):
            name = f"swisenet_x{scale}_{precision}"
            onnx, engine = f"{files / name}.onnx", f"{files / name}.gpu.engine"
            if exports and shipped_weights("swisenet", scale) is not None:
                export = ("--scale", str(scale), f"--{precision}", "-o", onnx)
                steps.append(Step(f"export {name}", _command("swise_export.cli", *export)))
            elif not Path(onnx).is_file():
                continue
            build = (onnx, "-o", engine, "--no-cache", "--verify", *build_flags)
            steps.append(Step(f"build {name}", _command("swise_engines.cli_build", *build)))
            engines.append(engine)
        if engines:
            output = ("--output", str(folder / f"bench_x{scale}.json"))
            bench = (*engines, "--lr", SIZES[scale], *output)
            steps.append(Step(f"bench x{scale}", _command("swise_bench.cli", *bench)))
    return steps


def _run(step: Step, folder: Path, timeout_s: float) -> Outcome:
    progress(step.name)
    started = time.perf_counter()
    path = os.pathsep.join([*map(str, ROOMS), os.environ.get("PYTHONPATH", "")])
    try:
        done = subprocess.run(  # noqa: S603  # the commands are built here
            step.command,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        text, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired:
        text, code = f"stopped after {timeout_s:.0f} s", 124
    (folder / f"{step.name.replace(' ', '_')}.txt").write_text(text)
    lines = text.strip().splitlines() or [""]
    seconds = time.perf_counter() - started
    return Outcome(step.name, code, seconds, lines[-1][:200])


def _summary(environment: Mapping[str, object], outcomes: list[Outcome]) -> str:
    rows = [f"| {o.name} | {o.exit_code} | {o.seconds:.0f} | `{o.last_line}` |" for o in outcomes]
    facts = json.dumps({k: v for k, v in environment.items() if k != "nvidia_smi"}, indent=2)
    table = ["| step | exit | seconds | last line |", "| --- | --- | --- | --- |", *rows]
    return "\n".join(["# GPU check", "", *table, "", "```json", facts, "```", ""])


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"
    return done.stdout.strip()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
