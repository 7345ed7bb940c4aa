"""The first engine that runs: built, verified, timed and tested in a few minutes of a lent GPU.

    python bench/scripts/gpu/first_engine.py prepare ONNX --fsrcnn WEIGHTS  # beside torch, no GPU
    python bench/scripts/gpu/first_engine.py run RESULTS --onnx ONNX --torch-python python3

`run` takes the most important steps first and keeps each result as it comes: environment.json, the
output of each step, steps.json and summary.md in the folder of the device. A step that takes too
long is stopped, and a quicker one takes its place where there is one; no step starts after
--budget. It runs in the Python that has TensorRT; torch may be in another one.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROOMS = (ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench")
sys.path[:0] = [str(room) for room in ROOMS]  # runs from a checkout that is not installed

from scripts.gpu.gpu_check import Builder, describe_environment, folder_of_device  # noqa: E402
from scripts.gpu.gpu_steps import Step, run_steps  # noqa: E402
from swise_deploy.command.console import progress, run_command  # noqa: E402
from swise_deploy.errors import BackendMissingError  # noqa: E402
from swise_deploy.pictures.folders import sample_paths  # noqa: E402
from swise_deploy.storage.files import write_json  # noqa: E402

PROBE = "fsrcnn_x2_fp32"  # seconds to build: whether anything works at all
SCALES = (2, 4, 3)  # in the order of importance
PRECISIONS = ("fp16", "fp32", "int8")
SIZES = ("--size", "640x360", "--size", "320x180")
TORCH = ("torch-cuda", "torch-cuda-fp16", "compile-cuda", "compile-cuda-fp16")
ROUNDS = 2  # engines and torch take turns, each in its Python


@dataclasses.dataclass(frozen=True, slots=True)
class RunConfig:
    """One run on a GPU.

    Attributes:
        results: Where the device's folder is made.
        onnx: What `prepare` exported.
        engine_python: The Python with TensorRT.
        torch_python: The Python with torch; "" for none.
        budget_s: Of all steps together.
        is_rehearsal: Whether it may run without a GPU, with stand-ins for the Pythons.
    """

    results: Path
    onnx: Path
    engine_python: str
    torch_python: str
    budget_s: float
    is_rehearsal: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare files, or run on a GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="export what the run needs")
    prepare.add_argument("onnx", type=Path)
    prepare.add_argument("--fsrcnn", type=Path, metavar="WEIGHTS", help="of FSRCNN x2, the probe")
    run = commands.add_parser("run", help="run on this machine's GPU")
    run.add_argument("results", type=Path)
    run.add_argument("--onnx", type=Path, required=True, metavar="DIR")
    run.add_argument("--engine-python", default=sys.executable, metavar="PYTHON")
    run.add_argument("--torch-python", default="", metavar="PYTHON")
    run.add_argument("--budget", type=float, default=360, metavar="S", help="all steps (360)")
    run.add_argument("--rehearse", action="store_true", help="allow a machine without a GPU")
    arguments = parser.parse_args(argv)
    if arguments.command == "prepare":
        folder, weights = arguments.onnx, arguments.fsrcnn
        return run_command(lambda: prepare_files(folder, weights))
    config = RunConfig(
        results=arguments.results,
        onnx=arguments.onnx,
        engine_python=arguments.engine_python,
        torch_python=arguments.torch_python,
        budget_s=arguments.budget,
        is_rehearsal=arguments.rehearse,
    )
    return run_command(lambda: run_on_gpu(config))


def prepare_files(folder: Path, fsrcnn: Path | None) -> int:
    """Export the networks; INT8 with fp32 weights for the rest, which TensorRT 8.6 takes."""
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = run_steps(export_steps(folder, fsrcnn), folder, {}, timeout_s=3600)
    return int(any(outcome.has_failed for outcome in outcomes))


def export_steps(folder: Path, fsrcnn: Path | None) -> list[Step]:
    """The exports, each left out where its file is there."""
    python, steps = (sys.executable, "-m", "swise_export.cli"), []
    if fsrcnn is not None:
        probe = str(folder / f"{PROBE}.onnx")
        command = (*python, "--weights", str(fsrcnn), "--fp32", "-o", probe)
        steps.append(Step("export probe", command, unless=probe))
    for scale in SCALES:
        for precision in PRECISIONS:
            onnx = str(folder / f"{_name(scale, precision)}.onnx")
            rest = ("--rest", "fp32") if precision == "int8" else ()
            command = (*python, "--scale", str(scale), f"--{precision}", *rest, "-o", onnx)
            steps.append(Step(f"export {_name(scale, precision)}", command, unless=onnx))
    return steps


def run_on_gpu(config: RunConfig) -> int:
    """Run the plan; 1 where a step failed.

    Raises:
        BackendMissingError: There is no GPU, and it is no rehearsal.
    """
    from swise_engines.cuda.boundary import find_gpu

    gpu = find_gpu()
    if gpu.device is None and not config.is_rehearsal:
        raise BackendMissingError(f"first_engine needs an NVIDIA GPU: {gpu.reason}")
    name = "rehearsal" if gpu.device is None else gpu.device.name
    folder = folder_of_device(config.results, name)
    environment = describe_environment(gpu, _builder(), 0)
    write_json(folder / "environment.json", environment)
    progress(f"{name}, results in {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        steps = list(plan(config, folder, Path(scratch)))
        outcomes = run_steps(
            steps, folder, environment, timeout_s=config.budget_s, budget_s=config.budget_s
        )
    return int(any(outcome.has_failed for outcome in outcomes))


def _builder() -> list[Builder]:
    from swise_engines.tensorrt.api import is_installed, load_tensorrt, version_of

    if not is_installed("tensorrt"):
        return []
    return [Builder("tensorrt", version_of(load_tensorrt("tensorrt")))]


def plan(config: RunConfig, folder: Path, scratch: Path) -> Iterator[Step]:
    """Every step in the order of importance, with its time limit."""

    def engine(name: str) -> str:
        return str(scratch / f"{name}.engine")

    def call(module: str, *arguments: str) -> tuple[str, ...]:
        return (config.engine_python, "-m", module, *arguments)

    def build(name: str, limit_s: float) -> Iterator[Step]:
        onnx = str(config.onnx / f"{name}.onnx")
        to = (onnx, "-o", engine(name), "--backend", "tensorrt", "--no-cache", "--verify")
        command = call("swise_engines.building.cli", *to)
        made = engine(name)
        yield Step(f"build {name}", command, makes=made, needs=onnx, limit_s=limit_s)
        quick = (*command, "--optimization-level", "1")
        title = f"build {name} quickly"
        yield Step(title, quick, makes=made, needs=onnx, unless=made, limit_s=limit_s / 2)

    def upscale(name: str) -> Step:
        to = (str(sample_paths()[0]), "-o", str(folder / f"{name}.png"), "--model", engine(name))
        command = call("swise_engines.upscaling.cli", *to)
        return Step(f"upscale {name}", command, needs=engine(name), limit_s=20)

    def bench(scale: int, turn: int, precisions: Sequence[str] = PRECISIONS) -> Step:
        names = [engine(_name(scale, precision)) for precision in precisions]
        others = ["no-graphs", *(["pycuda"] if util.find_spec("pycuda") else [])]
        subjects = [*names, *(f"{names[0]}@{runner}" for runner in others)]
        output = ("--output", str(folder / f"bench_x{scale}_{turn}.json"))
        command = call("swise_bench.cli", *SIZES, "--runs", "20", "--seconds", "1", *output)
        title = f"bench x{scale} round {turn}"
        return Step(title, command, tuple(subjects), needs=names[0], limit_s=40)

    def bench_torch(scale: int, turn: int) -> Step:
        subjects = [f"swisenet:{scale}@{runner}" for runner in TORCH]
        output = ("--output", str(folder / f"torch_x{scale}_{turn}.json"))
        options = (*SIZES, "--runs", "20", "--seconds", "1", *output)
        command = (config.torch_python, "-m", "swise_bench.cli", *options)
        return Step(f"torch x{scale} round {turn}", command, tuple(subjects), limit_s=60)

    yield Step("doctor", call("swise_engines.doctor.cli", "--target", "current"), limit_s=30)
    yield from build(PROBE, 45)
    yield upscale(PROBE)
    for scale in SCALES:
        first, *others = PRECISIONS
        yield from build(_name(scale, first), 80)
        yield upscale(_name(scale, first))
        yield bench(scale, 0, [first])  # a number, whatever happens to the other builds
        for precision in others:
            yield from build(_name(scale, precision), 80)
        for turn in range(1, ROUNDS + 1):
            yield bench(scale, turn)
            if config.torch_python:
                yield bench_torch(scale, turn)
        if scale == SCALES[0]:
            yield _tests(config, folder)
            yield _energy(config, folder, [engine(_name(scale, p)) for p in PRECISIONS])
    if config.torch_python:
        yield _training(config, scratch)


def _tests(config: RunConfig, folder: Path) -> Step:
    """The tests that need a GPU: a leak over 10,000 runs, threads, memory, refusals."""
    report = ("--junitxml", str(folder / "pytest.xml"))
    options = ("-m", "gpu", "-rs", "-p", "no:cacheprovider", *report)
    where = ("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"))
    tests = (str(ROOT / "tests" / "engines"),)
    return Step(
        "tests", (config.engine_python, "-m", "pytest", *options, *where, *tests), limit_s=90
    )


def _energy(config: RunConfig, folder: Path, engines: Sequence[str]) -> Step:
    brief = ("--size", "640x360", "--runs", "1", "--seconds", "0.1", "--energy")
    output = ("--energy-seconds", "3", "--output", str(folder / "energy_x2.json"))
    command = (config.engine_python, "-m", "swise_bench.cli", *brief, *output)
    return Step("energy x2", command, tuple(engines), limit_s=40)


def _training(config: RunConfig, scratch: Path) -> Step:
    """The recipe for a GPU, a few steps of it: whether it runs there."""
    data = ("--data", str(sample_paths()[0].parent), "--cache", str(scratch / "pictures"))
    short = ("--steps", "200", "--holdout", "1", "--out", str(scratch / "training"))
    command = (config.torch_python, "-m", "swise_deploy.training.cli", "--recipe", "gpu")
    return Step("train x2", (*command, *data, *short), limit_s=90)


def _name(scale: int, precision: str) -> str:
    return f"swisenet_x{scale}_{precision}"


if __name__ == "__main__":
    sys.exit(main())
