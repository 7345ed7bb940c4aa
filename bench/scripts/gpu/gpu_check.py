"""Run everything that needs a GPU, and keep the results with the device and the versions.

    python bench/scripts/gpu/gpu_check.py bench/results/gpu

The results of a device are one folder: environment.json, the output of each step, exit codes and
times in steps.json, and summary.md, all written as the steps end. A step that fails stops no other,
and the exit code is 1. Where a GPU is lent for minutes, run pieces, which add up in the folder:

    python bench/scripts/gpu/gpu_check.py RESULTS --work DIR --jobs 8 \
        --only "build *" --only "compile *"
    python bench/scripts/gpu/gpu_check.py RESULTS --work DIR --only "bench *"
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[3]
ROOMS = (ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench")
sys.path[:0] = [str(room) for room in ROOMS]  # runs from a checkout that is not installed

from scripts.gpu.gpu_steps import MAKES, TIMES, USES, Step, run_steps  # noqa: E402
from swise_deploy.checkpoints.shipped import shipped_weights  # noqa: E402
from swise_deploy.command.console import at_least, progress, run_command  # noqa: E402  # after the path
from swise_deploy.errors import BackendMissingError, InputError  # noqa: E402
from swise_deploy.pictures.folders import sample_paths  # noqa: E402
from swise_deploy.storage.files import write_json  # noqa: E402

if TYPE_CHECKING:
    from swise_engines.cuda.boundary import GpuAtHand

PACKAGES = (
    "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "polygraphy", "cuda-bindings", "pycuda",
    "torch", "lightning-fabric",
)  # fmt: skip
SIZES = {2: "640x360", 3: "426x240", 4: "320x180"}
PRECISIONS = ("fp32", "fp16", "int8")
BRIEFLY = ("--runs", "1", "--seconds", "0.1")


@dataclasses.dataclass(frozen=True, slots=True)
class Builder:
    """A TensorRT that is installed here.

    Attributes:
        backend: Its name.
        version: Its version.
        unserved: Why it runs nothing on this GPU; "" where it does.
    """

    backend: str
    version: str
    unserved: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckConfig:
    """One run of the check.

    Attributes:
        folder: Where the device's folder is made.
        onnx: Folder of exported files, where torch is missing; None exports them.
        with_int8: Whether INT8 is exported too.
        only: Patterns of the names of steps; empty for all.
        jobs: Steps at a time, of those that time nothing.
        work: Where files are made and kept; None takes a temporary folder.
        seconds: Of timing, per subject of a benchmark.
        energy_seconds: Of rest, and of work, per subject.
        timeout_s: Per step.
    """

    folder: Path
    onnx: Path | None
    with_int8: bool
    only: tuple[str, ...]
    jobs: int
    work: Path | None
    seconds: str
    energy_seconds: str
    timeout_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the device's folder is made")
    parser.add_argument(
        "--onnx", type=Path, metavar="DIR", help="exported files, where torch is missing"
    )
    parser.add_argument("--int8", action="store_true", help="INT8 as well: a long export")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="steps of such a name, as 'bench *'; may be repeated",
    )
    parser.add_argument(
        "--jobs",
        type=at_least(1),
        default=1,
        metavar="N",
        help="steps at a time, of those that time nothing (1)",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="where files are made and kept for a later --only"
    )
    parser.add_argument(
        "--seconds", default="10", metavar="S", help="of timing, per subject of a benchmark (10)"
    )
    parser.add_argument(
        "--energy-seconds", default="5", metavar="S", help="of rest, and of work, per subject (5)"
    )
    parser.add_argument("--timeout", type=float, default=3600, metavar="S", help="per step (3600)")
    arguments = parser.parse_args(argv)
    config = CheckConfig(
        folder=arguments.folder,
        onnx=arguments.onnx,
        with_int8=arguments.int8,
        only=tuple(arguments.only or ()),
        jobs=arguments.jobs,
        work=arguments.work,
        seconds=arguments.seconds,
        energy_seconds=arguments.energy_seconds,
        timeout_s=arguments.timeout,
    )
    return run_command(lambda: _check(config))


def _check(config: CheckConfig) -> int:
    from swise_engines.cuda.boundary import find_gpu

    gpu = find_gpu()
    if gpu.device is None or gpu.cuda is None:
        raise BackendMissingError(f"gpu_check needs an NVIDIA GPU: {gpu.reason}")
    folder = folder_of_device(config.folder, gpu.device.name)
    builders = _builders(gpu.device.sm)
    num_torch_gpus = _count_torch_gpus()
    environment = describe_environment(gpu, builders, num_torch_gpus)
    write_json(folder / "environment.json", environment)
    progress(f"{gpu.device.name}, results in {folder}")
    for builder in builders:
        if builder.unserved:
            progress(f"no engines of {builder.backend}: {builder.unserved}")
    with _work_folder(config.work) as scratch:
        asked = PRECISIONS if config.with_int8 or config.onnx else PRECISIONS[:2]
        steps = [
            *first_steps(folder),
            *engine_steps(
                folder,
                scratch,
                config.onnx,
                [builder for builder in builders if not builder.unserved],
                asked,
                peers=peers_here(num_torch_gpus),
                seconds=(config.seconds, config.energy_seconds),
            ),
            *training_steps(scratch, num_torch_gpus),
        ]
        wanted = config.only or ("*",)
        steps = [s for s in steps if any(fnmatch.fnmatchcase(s.name, w) for w in wanted)]
        if not steps:
            raise InputError(f"no step is called {' or '.join(wanted)}")
        outcomes = run_steps(
            steps, folder, environment, timeout_s=config.timeout_s, jobs=config.jobs
        )
    return int(any(outcome.has_failed for outcome in outcomes))


def folder_of_device(results: Path, name: str) -> Path:
    """The folder of a device's results, made where it is missing."""
    folder = results / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def describe_environment(
    gpu: "GpuAtHand", builders: Sequence[Builder], num_torch_gpus: int
) -> dict[str, object]:
    """The GPU, the versions and the state of the checkout that results belong to."""
    from swise_bench.results.host import describe_host

    return {
        "gpu": None if gpu.device is None else dataclasses.asdict(gpu.device),
        "binding": "" if gpu.cuda is None else gpu.cuda.name,
        "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "tensorrt": {builder.backend: builder.version for builder in builders},
        "unserved": [builder.unserved for builder in builders if builder.unserved],
        "torch_gpus": num_torch_gpus,
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "HEAD"]),
        "changed_files": _output(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"]),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "host": dataclasses.asdict(describe_host()),
        "nvidia_smi": _output(["nvidia-smi"]),
    }


@contextlib.contextmanager
def _work_folder(asked: Path | None) -> Iterator[Path]:
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _builders(sm: str) -> list[Builder]:
    from swise_engines.tensorrt.api import is_installed, load_tensorrt, version_of
    from swise_engines.tensorrt.rtx_gpus import reason_unserved, rtx_capabilities

    found = []
    if is_installed("tensorrt"):
        found.append(Builder("tensorrt", version_of(load_tensorrt("tensorrt"))))
    if is_installed("tensorrt_rtx"):
        trt = load_tensorrt("tensorrt_rtx")
        version = version_of(trt)
        unserved = reason_unserved(version, rtx_capabilities(trt), sm)
        found.append(Builder("tensorrt_rtx", version, unserved))
    return found


def _count_torch_gpus() -> int:
    """GPUs that torch can use; 0 without torch. torch runs in a process of its own here."""
    found = _output([sys.executable, "-c", "import torch; print(torch.cuda.device_count())"])
    return int(found) if found.isdecimal() else 0


@dataclasses.dataclass(frozen=True, slots=True)
class Peers:
    """The runners that engines are compared with.

    Attributes:
        torch: Runners of torch on the GPU, as swise-bench names them.
        onnx: Runners of ONNX files.
        engine: Further ways to run the same engine.
    """

    torch: tuple[str, ...] = ()
    onnx: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()


def peers_here(num_torch_gpus: int) -> Peers:
    """The peers that are installed."""
    import onnxruntime

    on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    both = all(util.find_spec(name) for name in ("cuda", "pycuda"))
    kinds = ("torch-cuda", "compile-cuda", "torch-cuda-fp16", "compile-cuda-fp16")
    return Peers(
        kinds if num_torch_gpus else (),
        ("onnxruntime", *(["cuda"] if on_gpu else [])),
        ("no-graphs", *(["pycuda"] if both else [])),
    )


def _command(module: str, *arguments: str) -> tuple[str, ...]:
    """Arguments that run a command, also where the package is not installed."""
    return (sys.executable, "-m", module, *arguments)


def first_steps(folder: Path) -> list[Step]:
    """The doctor, and the tests that need a GPU."""
    report = str(folder / "pytest.xml")
    options = ("-m", "gpu", "-rs", "-p", "no:cacheprovider", "--junitxml", report)
    tests = (*options, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"))
    return [
        Step("doctor", _command("swise_engines.doctor.cli", "--target", "current")),
        Step("tests", _command("pytest", *tests, str(ROOT / "tests")), chain="tests"),
    ]


def engine_steps(
    folder: Path,
    scratch: Path,
    exported: Path | None,
    builders: Sequence[Builder],
    precisions: Sequence[str],
    *,
    peers: Peers,
    seconds: tuple[str, str] = ("10", "5"),
) -> list[Step]:
    """The steps of SwiseNet at every scale with every TensorRT, from the export to the benchmark.

    Without a TensorRT, torch on the GPU and ONNX Runtime are measured.

    Args:
        folder: Where results are kept.
        scratch: Where files are made.
        exported: Where ONNX files lie already; None exports them.
        builders: The TensorRTs that run engines here.
        precisions: Of the exports.
        peers: What is measured in turn with the engines.
        seconds: Of timing, and of rest and work for energy, per subject.
    """
    steps = []
    picture = str(sample_paths()[0])
    exports = exported is None and util.find_spec("torch") is not None
    for scale in sorted(SIZES):
        engines, others = [], []
        for precision in precisions:
            name = f"swisenet_x{scale}_{precision}"
            onnx = f"{(exported or scratch) / name}.onnx"
            if exports and shipped_weights("swisenet", scale) is not None:
                export = ("--scale", str(scale), f"--{precision}", "-o", onnx)
                command = _command("swise_export.cli", *export)
                steps.append(Step(f"export {name}", command, chain=name))
            elif not Path(onnx).is_file():
                continue
            for builder in builders:
                engine = f"{scratch / name}.{builder.backend}.engine"
                to = ("-o", engine, "--backend", builder.backend)
                build = _command("swise_engines.building.cli", onnx, *to, "--no-cache", "--verify")
                title = f"{name} {builder.backend}"
                steps.append(Step(f"build {title}", build, chain=name, makes=engine))
                upscale = (picture, "-o", f"{engine}.png", "--model", engine)
                command = _command("swise_engines.upscaling.cli", *upscale)
                steps.append(Step(f"upscale {title}", command, chain=name))
                engines.append(engine)
                if builder.backend == "tensorrt":
                    others.append(f"{engine}@trtexec")
                if precision == "fp16":
                    others += [f"{engine}@{runner}" for runner in peers.engine]
            if precision == "fp32":
                others += [f"{onnx}@{runner}" for runner in peers.onnx]
        in_torch = [f"swisenet:{scale}@{runner}" for runner in peers.torch]
        if engines or in_torch or others:
            steps += _measuring_steps(
                folder, scale, engines, in_torch=in_torch, others=others, seconds=seconds
            )
    return steps


def _measuring_steps(
    folder: Path,
    scale: int,
    engines: Sequence[str],
    *,
    in_torch: Sequence[str],
    others: Sequence[str],
    seconds: tuple[str, str],
) -> list[Step]:
    """Memory in processes of their own; energy; and the times of everything in one run, in turn.

    What torch compiles it keeps on the disk: done beforehand, the timing steps do not wait for it.
    """

    def bench(name: str, subjects: Sequence[str], turn: int, *options: str) -> Step:
        output = ("--output", str(folder / f"{name.replace(' ', '_')}.json"))
        command = _command("swise_bench.cli", "--size", SIZES[scale], *options, *output)
        return Step(f"{name}", command, tuple(subjects), turn, name)

    compiled = [subject for subject in in_torch if "@compile" in subject]
    eager = [subject for subject in in_torch if subject not in compiled]
    steps = [
        *(
            bench(
                f"compile x{scale} {subject.partition('@')[2]}", [subject], MAKES, *BRIEFLY,
                "--memory",
            )
            for subject in compiled
        ),
        bench(f"memory x{scale}", [*engines, *eager], USES, *BRIEFLY, "--memory"),
        bench(f"bench x{scale}", [*engines, *in_torch, *others], TIMES, "--seconds", seconds[0]),
        bench(
            f"energy x{scale}", [*engines, *in_torch], TIMES, *BRIEFLY, "--energy",
            "--energy-seconds", seconds[1],
        ),
    ]  # fmt: skip
    return [step for step in steps if step.subjects]


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
            _command("swise_export.training.cli", *common, *options, "--out", str(scratch / name)),
            chain="training",  # they share the folder of pictures
        )
        for name, options in (ways.items() if num_gpus else ())
    ]


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
