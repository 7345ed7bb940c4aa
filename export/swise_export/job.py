"""The whole job: export, run the file itself, compare, count, time; keep it only if it is good."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import BackendMissingError, QualityGateError
from swise_deploy.evaluation.pairs import Pair, read_pairs
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.files import staging
from swise_deploy.timing import Interval, Timing, picture_call, ratio, time_calls
from swise_export.config import ExportConfig
from swise_export.graph.counting import count_onnx
from swise_export.manifest import Manifest, manifest_path, write_manifest
from swise_export.precision.pareto import draw_pareto
from swise_export.precision.plan import PrecisionPlan, write_plan
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.attempts import Attempt, find_attempts, range_crop
from swise_export.tracing.trace import export_onnx, traced
from swise_export.verification.drift import PictureDrift, check_gate, measure_drift

logger = logging.getLogger(__name__)

# Small enough for a reading within seconds on two cores; `swise-bench` measures at any size.
LATENCY_LR_SIZE = (80, 45)
_LATENCY_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was made and what it cost.

    Attributes:
        mult_adds: Of the network as its paper writes it, at `counted_lr_size`.
        artifact_mult_adds: Of the graph that was written.
        latency: Of the file on the CPU, at `latency_lr_size`.
        plan: Where INT8 was placed; None without INT8.
        time_against_fp32: With INT8, the file's time as a ratio to the fp32 export's, both on this
            CPU in one run.
        pareto: Picture of drift against share; None where none was drawn.
    """

    artifact: Path
    manifest: Manifest
    pictures: tuple[PictureDrift, ...]
    mult_adds: int
    artifact_mult_adds: int
    counted_lr_size: tuple[int, int]
    latency: Timing
    latency_lr_size: tuple[int, int]
    latency_provider: str
    threads: int
    size_bytes: int
    seconds: float
    plan: PrecisionPlan | None = None
    time_against_fp32: Interval | None = None
    pareto: Path | None = None


def export_verified(
    network: LoadedNetwork,
    path: Path,
    config: ExportConfig,
    *,
    images: Sequence[Path] | None = None,
    calibration: Sequence[Path] | None = None,
    say: Callable[[str], None] = logger.info,
) -> ExportReport:
    """Export a network, verify the file on pictures and keep it only if it passes.

    What does not pass is tried again with more of it in a higher precision.

    Args:
        network: What to export.
        path: NAME.onnx; NAME.json is written beside it.
        config: What to make.
        images: Ground-truth pictures; None for the shipped samples.
        calibration: With INT8, pictures to calibrate and place it on; None for those shipped.
        say: Takes a line about each step as it begins.

    Raises:
        QualityGateError: It lost too much; what stood at `path` before is still there.
        InputError: No picture can be used.
        ExportError: The network cannot be exported.
        OutputError: The files cannot be written.
    """
    start = time.perf_counter()
    pairs = read_pairs(images or sample_paths(), network.scale)
    if config.size is not None:
        pairs = _cut_to_size(pairs, config.size, network.scale)
    with staging(path) as folder:
        staged = folder / path.name
        attempts = find_attempts(network, config, pairs, calibration, say)
        attempt, manifest, pictures = _first_that_passes(
            attempts, staged, network, config, pairs=pairs, say=say
        )
        plan = attempt.int8.plan if attempt.int8 is not None else None
        say("counting and timing")
        lr_size = config.size or LATENCY_LR_SIZE
        latency, against, provider = _time(staged, network, config, lr_size)
        counts = count_onnx(staged)
        # The paper's convention: the network as it is written, not as it was rewritten.
        written = count_onnx(traced(network.module, network, size=config.size))
        write_manifest(staged, manifest)
        pareto = _draw(staged, plan, manifest, say)
        if plan is not None and config.plan is not None and not config.plan.exists():
            write_plan(config.plan, plan)
        if pareto is not None:
            pareto = pareto.replace(path.with_name(pareto.name))
        manifest_path(staged).replace(manifest_path(path))
        staged.replace(path)
    return ExportReport(
        artifact=path,
        manifest=manifest,
        pictures=tuple(pictures),
        mult_adds=written.mult_adds,
        artifact_mult_adds=counts.mult_adds,
        counted_lr_size=counts.lr_size,
        latency=latency,
        latency_lr_size=lr_size,
        latency_provider=provider,
        threads=config.threads,
        size_bytes=path.stat().st_size,
        seconds=time.perf_counter() - start,
        plan=plan,
        time_against_fp32=against,
        pareto=pareto,
    )


def _first_that_passes(
    attempts: Iterator[Attempt],
    staged: Path,
    network: LoadedNetwork,
    config: ExportConfig,
    *,
    pairs: Sequence[Pair],
    say: Callable[[str], None],
) -> tuple[Attempt, Manifest, list[PictureDrift]]:
    refused: QualityGateError | None = None
    for attempt in attempts:
        say(f"exporting {network.name} x{network.scale} {config.precision}")
        manifest = export_onnx(
            network,
            staged,
            precision=config.precision,
            io=config.io,
            size=config.size,
            form=config.form,
            range_images=[range_crop(pair.lr, config.size) for pair in pairs[:4]],
            keep_fp32=attempt.keep_fp32,
            int8=attempt.int8,
        )
        try:
            with (
                OnnxRunner(staged, threads=config.threads, as_device=True) as artefact,
                TorchRunner(network) as reference,
            ):
                drift, pictures = measure_drift(
                    artefact, reference, pairs, on_picture=lambda name: say(f"verifying on {name}")
                )
            check_gate(drift, config.budget)
        except QualityGateError as error:
            refused = error
            say(f"refused: {str(error).split('. ')[0]}")
            continue
        return attempt, dataclasses.replace(manifest, drift=drift), pictures
    assert refused is not None
    raise refused


def _time(
    staged: Path, network: LoadedNetwork, config: ExportConfig, lr_size: tuple[int, int]
) -> tuple[Timing, Interval | None, str]:
    with contextlib.ExitStack() as stack:
        artefact = stack.enter_context(OnnxRunner(staged, threads=config.threads))
        calls = {"artefact": picture_call(artefact, lr_size)}
        if config.precision == "int8":
            full = staged.with_name("fp32.onnx")
            export_onnx(network, full, io=config.io, size=config.size, form=config.form)
            runner = stack.enter_context(OnnxRunner(full, threads=config.threads))
            calls["fp32"] = picture_call(runner, lr_size)
        timings = time_calls(calls, min_runs=10, max_seconds=_LATENCY_SECONDS * len(calls))
    against = ratio(timings["artefact"], timings["fp32"]) if "fp32" in timings else None
    return timings["artefact"], against, artefact.provider


def _draw(
    staged: Path, plan: PrecisionPlan | None, manifest: Manifest, say: Callable[[str], None]
) -> Path | None:
    if plan is None or not plan.drift_by_step:
        return None
    path = staged.with_suffix(".pareto.png")
    try:
        draw_pareto(path, plan, title=f"{manifest.model} x{manifest.scale}, INT8 and {plan.rest}")
    except BackendMissingError as error:
        say(f"no picture of drift against share: {error}")
        return None
    return path


def _cut_to_size(pairs: Sequence[Pair], size: tuple[int, int], scale: int) -> list[Pair]:
    """Cut or repeat pictures to the only input size of a static export."""
    width, height = size
    cut = []
    for pair in pairs:
        rows, columns = (
            np.arange(n) % m for n, m in zip((height, width), pair.lr.shape, strict=False)
        )
        hr_rows, hr_columns = (
            np.arange(n * scale) % m for n, m in zip((height, width), pair.hr.shape, strict=False)
        )
        cut.append(Pair(pair.name, pair.lr[rows][:, columns], pair.hr[hr_rows][:, hr_columns]))
    return cut
