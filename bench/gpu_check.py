"""Run everything that needs a GPU, and keep what came out with the device and the versions.

    python bench/gpu_check.py bench/results/gpu

One folder per device comes out: environment.json, what each step printed, its exit code and time in
steps.json, and summary.md. All of them are written as the steps end. A failing step stops no other
and fails the script.
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
from swise_deploy.files import write_json, writing  # noqa: E402
from swise_deploy.images import sample_paths  # noqa: E402
from swise_deploy.models.shipped import shipped_weights  # noqa: E402

PACKAGES = (
    "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "polygraphy", "cuda-bindings", "pycuda",
    "torch", "lightning-fabric",
)  # fmt: skip
SIZES = {2: "640x360", 3: "426x240", 4: "320x180"}
NOT_STARTED, TIMED_OUT = 127, 124  # as a shell and timeout(1) have them


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        name: What the user sees, and how its files are called.
        command: Program and arguments.
        subjects: Further arguments, FILE or FILE@RUNNER; those that no step made are left out.
    """

    name: str
    command: tuple[str, ...]
    subjects: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    name: str
    exit_code: int
    seconds: float
    last_line: str


@dataclasses.dataclass(frozen=True, slots=True)
class Builder:
    """A TensorRT that is installed here, and how to build for this GPU with it."""

    backend: str
    version: str
    options: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the device's folder is made")
    parser.add_argument(
        "--onnx", type=Path, metavar="DIR", help="exported files, where torch is missing"
    )
    parser.add_argument("--int8", action="store_true", help="INT8 as well: a long export")
    parser.add_argument("--timeout", type=float, default=3600, metavar="S", help="per step (3600)")
    return run_command(lambda: _check(parser.parse_args(argv)))


def _check(arguments: argparse.Namespace) -> int:
    from swise_bench.host import describe_host
    from swise_engines.cuda import find_gpu

    gpu = find_gpu()
    if gpu.device is None or gpu.cuda is None:
        raise BackendMissingError(f"gpu_check needs an NVIDIA GPU: {gpu.reason}")
    folder = arguments.folder / re.sub(r"[^a-z0-9]+", "-", gpu.device.name.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    builders = _builders(gpu.device.sm)
    num_torch_gpus = _count_torch_gpus()
    environment = {
        "gpu": dataclasses.asdict(gpu.device),
        "binding": gpu.cuda.name,
        "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "tensorrt": {builder.backend: builder.version for builder in builders},
        "torch_gpus": num_torch_gpus,
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "HEAD"]),
        "changed_files": _output(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"]),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "host": dataclasses.asdict(describe_host()),
        "nvidia_smi": _output(["nvidia-smi"]),
    }
    write_json(folder / "environment.json", environment)
    progress(f"{gpu.device.name}, results in {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        precisions = ("fp32", "fp16", *(["int8"] if arguments.int8 else []))
        steps = [
            *first_steps(folder),
            *engine_steps(folder, Path(scratch), arguments.onnx, builders, precisions),
            *training_steps(Path(scratch), num_torch_gpus),
        ]
        outcomes = run_steps(steps, folder, environment, timeout_s=arguments.timeout)
    return int(any(outcome.exit_code for outcome in outcomes))


def _builders(sm: str) -> list[Builder]:
    """TensorRT for RTX does not list every GPU; a portable engine is tried on the others."""
    from swise_engines.builder_config import rtx_capabilities
    from swise_engines.tensorrt_api import is_installed, load_tensorrt, version_of

    found = []
    if is_installed("tensorrt"):
        found.append(Builder("tensorrt", version_of(load_tensorrt("tensorrt")), ()))
    if is_installed("tensorrt_rtx"):
        trt = load_tensorrt("tensorrt_rtx")
        options = () if sm in rtx_capabilities(trt) else ("--compatibility", "ampere_plus")
        found.append(Builder("tensorrt_rtx", version_of(trt), options))
    return found


def _count_torch_gpus() -> int:
    """GPUs that torch can use; 0 without torch. Asked elsewhere: it takes memory of the GPU."""
    found = _output([sys.executable, "-c", "import torch; print(torch.cuda.device_count())"])
    return int(found) if found.isdecimal() else 0


def _command(module: str, *arguments: str) -> tuple[str, ...]:
    """A console script, also where the package is not installed."""
    return (sys.executable, "-m", module, *arguments)


def first_steps(folder: Path) -> list[Step]:
    """Whether the machine is ready, and the tests that need its GPU."""
    report = str(folder / "pytest.xml")
    tests = ("-m", "gpu", "-rs", "--junitxml", report, str(ROOT / "tests"))
    return [
        Step("doctor", _command("swise_engines.cli_doctor", "--target", "current")),
        Step("tests", _command("pytest", *tests)),
    ]


def engine_steps(
    folder: Path,
    scratch: Path,
    exported: Path | None,
    builders: Sequence[Builder],
    precisions: Sequence[str],
) -> list[Step]:
    """SwiseNet at every scale, with every TensorRT: exported, built, verified, used and measured.

    Args:
        folder: Where results are kept.
        scratch: Where files are made.
        exported: Where ONNX files lie already; None exports them.
        builders: The TensorRTs.
        precisions: Of the exports.
    """
    steps = []
    picture = str(sample_paths()[0])
    exports = exported is None and util.find_spec("torch") is not None
    for scale in sorted(SIZES):
        subjects = []
        for precision in precisions:
            name = f"swisenet_x{scale}_{precision}"
            onnx = f"{(exported or scratch) / name}.onnx"
            if exports and shipped_weights("swisenet", scale) is not None:
                export = ("--scale", str(scale), f"--{precision}", "-o", onnx)
                steps.append(Step(f"export {name}", _command("swise_export.cli", *export)))
            elif not Path(onnx).is_file():
                continue
            for builder in builders:
                engine = f"{scratch / name}.{builder.backend}.engine"
                to = ("-o", engine, "--backend", builder.backend, *builder.options)
                build = _command("swise_engines.cli_build", onnx, *to, "--no-cache", "--verify")
                steps.append(Step(f"build {name} {builder.backend}", build))
                upscale = (picture, "-o", f"{engine}.png", "--model", engine)
                steps.append(
                    Step(
                        f"upscale {name} {builder.backend}",
                        _command("swise_engines.cli_upscale", *upscale),
                    )
                )
                subjects.append(engine)
                if builder.backend == "tensorrt":
                    subjects.append(f"{engine}@trtexec")
        if subjects:
            output = ("--output", str(folder / f"bench_x{scale}.json"))
            bench = ("--lr", SIZES[scale], "--memory", "--energy", *output)
            steps.append(
                Step(f"bench x{scale}", _command("swise_bench.cli", *bench), tuple(subjects))
            )
    return steps


def training_steps(scratch: Path, num_gpus: int) -> list[Step]:
    """A few steps of training in every number format, compiled, and on two GPUs if there are."""
    ways = {
        "fp32": ("--precision", "fp32"),
        "bf16": ("--precision", "bf16"),
        "fp16": ("--precision", "fp16"),
        "compiled": ("--precision", "bf16", "--compile"),
        **({"two GPUs": ("--devices", "2")} if num_gpus > 1 else {}),
    }
    data = ("--data", str(sample_paths()[0].parent), "--cache", str(scratch / "pictures"))
    short = ("--steps", "30", "--batch-size", "8", "--patch-size", "32", "--log-every", "10")
    common = (*data, *short, "--holdout", "1", "--accelerator", "cuda")
    return [
        Step(
            f"train {name}",
            _command("swise_export.cli_train", *common, *options, "--out", str(scratch / name)),
        )
        for name, options in (ways.items() if num_gpus else ())
    ]


def run_steps(
    steps: Sequence[Step], folder: Path, environment: Mapping[str, object], *, timeout_s: float
) -> list[Outcome]:
    """Run every step; what it prints and how all went until then is in the folder when it ends."""
    outcomes: list[Outcome] = []
    for number, step in enumerate(steps, start=1):
        progress(f"{number} of {len(steps)}: {step.name}")
        outcomes.append(_run(step, folder, timeout_s))
        write_json(
            folder / "steps.json", {"steps": [dataclasses.asdict(outcome) for outcome in outcomes]}
        )
        with writing(folder / "summary.md") as temporary:
            temporary.write_text(_summary(environment, outcomes, len(steps)), encoding="utf-8")
    return outcomes


def _run(step: Step, folder: Path, timeout_s: float) -> Outcome:
    started = time.perf_counter()
    path = os.pathsep.join([*map(str, ROOMS), os.environ.get("PYTHONPATH", "")])
    made = [subject for subject in step.subjects if Path(subject.partition("@")[0]).is_file()]
    printed = folder / f"{step.name.replace(' ', '_')}.txt"
    with printed.open("w", encoding="utf-8") as sink:
        try:
            code = subprocess.run(  # noqa: S603  # the commands are built here
                [*step.command, *made],
                env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
            print(f"\nstopped after {timeout_s:.0f} s", file=sink)
        except OSError as error:
            code = NOT_STARTED
            print(f"did not start: {error}", file=sink)
    lines = printed.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    return Outcome(step.name, code, round(time.perf_counter() - started, 1), lines[-1][:200])


def _summary(environment: Mapping[str, object], outcomes: Sequence[Outcome], total: int) -> str:
    rows = [
        f"| {o.name} | {o.exit_code} | {o.seconds:.0f} | `{re.sub('[|`]', ' ', o.last_line)}` |"
        for o in outcomes
    ]
    left_out = ("host", "nvidia_smi")  # long; they are in environment.json
    facts = json.dumps({k: v for k, v in environment.items() if k not in left_out}, indent=2)
    failed = [outcome.name for outcome in outcomes if outcome.exit_code]
    state = f"{len(outcomes)} of {total} steps run, {len(failed)} failed"
    table = ["| step | exit | seconds | last line |", "| --- | --- | --- | --- |", *rows]
    title = [f"# GPU check\n\n{state}{': ' * bool(failed)}{', '.join(failed)}.", ""]
    return "\n".join([*title, *table, "", "```json", facts, "```", ""])


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # the commands are written here
            command, capture_output=True, text=True, check=True, timeout=120
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown: {error}"
    return done.stdout.strip()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
