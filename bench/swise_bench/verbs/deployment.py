"""From a checkpoint to a measured engine: export, build, verify, benchmark, one report."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from swise_bench.command import run_subjects
from swise_bench.config import BenchConfig, Outputs
from swise_deploy.command.console import progress
from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError
from swise_deploy.precision import ExportPrecision
from swise_deploy.storage.caches import cache_folder
from swise_engines.building.command import BuildConfig, run_build
from swise_engines.building.options import BuildOptions
from swise_engines.targets.catalogue import find_target
from swise_export.config import ExportConfig, ExportRequest
from swise_export.verification.budget import DriftBudget


@dataclass(frozen=True, slots=True)
class DeployConfig:
    """One deployment.

    Attributes:
        target: Name of the device; "current" is the GPU of this machine.
        weights: The checkpoint; None takes the shipped weights.
        model: Key of the network registry; None recognises the checkpoint.
        scale: Output size over input size; None takes the network's own.
        precision: Precision of the engine.
        max_drift_db: PSNR-Y that may be lost on average.
        images: Folder of ground truth; None takes the shipped samples.
        out: Folder of the artefacts.
        threads: Threads of every runtime on the CPU.
        max_seconds: Time of the latency, for each subject.
        is_dry: True prints the steps and the files, and makes none.
    """

    target: str
    weights: Path | None = None
    model: str | None = None
    scale: int | None = None
    precision: ExportPrecision = "fp16"
    max_drift_db: float = 0.05
    images: Path | None = None
    out: Path = field(default_factory=Path)
    threads: int = 1
    max_seconds: float = 10.0
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class Deployed:
    """The files of a deployment.

    Attributes:
        onnx: The verified ONNX file.
        engine: The engine; None where it could not be built here.
        engine_reason: Why there is no engine.
        report: The page of the benchmark.
    """

    onnx: Path
    engine: Path | None
    engine_reason: str
    report: Path


def plan_deployment(config: DeployConfig) -> list[str]:
    """The steps and the files that they make, as a user would do them one by one."""
    source = f"--weights {config.weights}" if config.weights else "with the shipped weights"
    name = config.out / f"{config.model or 'NETWORK'}_x{config.scale or 'N'}_{config.precision}"
    return [
        f"export {source} to {name}.onnx, refused beyond {config.max_drift_db:g} dB of drift",
        f"build {name}.onnx for {config.target} to {name}.{config.target}.engine",
        f"measure both in turn, and write {name}.html and {name}.results.json",
    ]


def deploy(config: DeployConfig) -> Deployed:
    """Export, build, verify, measure and report.

    An engine that cannot be built on this machine is reported, and the ONNX file is measured.

    Raises:
        QualityGateError: The file or the engine loses too much; nothing is kept of it.
        SwiseError: A step fails.
    """
    target = None if config.target == "current" else find_target(config.target)
    job = require("swise_export.job", extra="export", purpose="turning a checkpoint into ONNX")
    request = ExportRequest(
        config=ExportConfig(
            precision=config.precision,
            max_drift_db=config.max_drift_db,
            threads=config.threads,
            cache=cache_folder("int8"),
        ),
        model=config.model,
        scale=config.scale,
        weights=config.weights,
        images=config.images,
    )
    opened = _named(request, config)
    progress("1 of 3: export")
    report = job.export_requested(opened, report=progress)
    onnx: Path = report.artifact
    engine = onnx.with_name(f"{onnx.stem}.{config.target}.engine")
    progress("2 of 3: build")
    reason = ""
    try:
        run_build(
            BuildConfig(
                onnx=onnx,
                output=engine,
                options=BuildOptions(target=target),
                verify=None,
                images=config.images,
                budget=DriftBudget(config.max_drift_db, None),
                cache_dir=None,
                uses_cache=True,
                as_json=False,
            )
        )
    except BackendMissingError as error:
        reason = str(error)
        progress(f"not built: {reason}")
    progress("3 of 3: benchmark")
    page = onnx.with_suffix(".html")
    subjects = [f"{report.manifest.model}:{report.manifest.scale}@torch"] * (not config.weights)
    run_subjects(
        BenchConfig(
            subjects=(*subjects, str(onnx), *_runnable(engine)),
            threads=config.threads,
            max_seconds=config.max_seconds,
            images=(config.images,) if config.images else (),
            targets=() if target is None else (target.name,),
            outputs=Outputs(html=page, document=onnx.with_suffix(".results.json")),
        )
    )
    return Deployed(onnx, engine if engine.is_file() else None, reason, page)


def _named(request: ExportRequest, config: DeployConfig) -> ExportRequest:
    """The request with its file in the output folder."""
    from swise_deploy.checkpoints.foreign import open_any

    network = open_any(request.model, scale=request.scale, weights=request.weights)
    name = f"{network.name}_x{network.scale}_{config.precision}.onnx"
    return dataclasses.replace(request, output=config.out / name)


def _runnable(engine: Path) -> tuple[str, ...]:
    """The engine as a subject where it is there and this machine has a GPU."""
    from swise_engines.cuda.boundary import find_gpu

    return (str(engine),) if engine.is_file() and find_gpu().device is not None else ()
