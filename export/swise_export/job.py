"""An export from network to report: traced, run, compared, counted, timed; kept only if good."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swise_deploy.checkpoints.foreign import open_any
from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import BackendMissingError, InputError, QualityGateError
from swise_deploy.evaluation.pairs import Pair, mean_quality, read_pairs
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.pictures.folders import find_images, sample_paths
from swise_deploy.runner import Runner
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.files import staging
from swise_deploy.timing import Interval, Timing, picture_call, ratio, time_calls
from swise_export.config import ExportConfig, ExportRequest
from swise_export.counting import count_onnx
from swise_export.manifest import (
    AbsoluteQuality,
    Drift,
    Manifest,
    manifest_path,
    read_manifest,
    write_manifest,
)
from swise_export.precision.pareto import draw_pareto
from swise_export.precision.plan import PrecisionPlan, write_plan
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.runtimes.table import DEFAULT_RUNTIME, find_runtime, load_runtime, open_runner
from swise_export.tracing.attempts import Attempt, find_attempts, range_crop
from swise_export.tracing.faithful import TOLERANCE, find_faithful
from swise_export.tracing.feeding import bicubic_psnr_y_db, fed_network, find_white
from swise_export.tracing.int8_timing import LATENCY_LR_SIZE
from swise_export.tracing.trace import export_onnx, traced_form
from swise_export.verification.drift import PictureDrift, check_gate, measure_drift

logger = logging.getLogger(__name__)

# Time to spend on each file; less where it will run elsewhere.
_LATENCY_SECONDS, _LATENCY_SECONDS_ELSEWHERE = 3.0, 0.5


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An artefact and its cost.

    Attributes:
        mult_adds: Of the network as its paper writes it, at `counted_lr_size`.
        artifact_mult_adds: Of the graph that was written.
        precision_shares: Of those, by precision.
        latency: Of the file on the CPU, at `latency_lr_size`, in `latency_runtime`; None where no
            runtime computes in its precision on a CPU.
        plan: The placement of INT8; None without INT8.
        time_against_fp32: With INT8, the file's time as a ratio to the fp32 export's, both on this
            CPU in one run.
        pareto: Picture of drift against share; None where none was drawn.
        fallback: Reason why the file is fp32 although INT8 was asked for; "" where it is not.
    """

    artifact: Path
    manifest: Manifest
    pictures: tuple[PictureDrift, ...]
    mult_adds: int
    artifact_mult_adds: int
    precision_shares: Mapping[str, float]
    counted_lr_size: tuple[int, int]
    latency: Timing | None
    latency_lr_size: tuple[int, int]
    latency_runtime: str
    threads: int
    size_bytes: int
    seconds: float
    plan: PrecisionPlan | None = None
    time_against_fp32: Interval | None = None
    pareto: Path | None = None
    fallback: str = ""


def export_requested(
    request: ExportRequest, *, report: Callable[[str], None] = logger.info
) -> ExportReport:
    """Open a network, export it and verify the file; see `export_verified`.

    Raises:
        InputError: A file, a folder or an option cannot be used.
        BackendMissingError: A package is missing.
        SwiseError: What `export_verified` raises.
    """
    images = None if request.images is None else find_images(request.images)
    lr = request.lr_images
    calibration = None if request.calibration is None else find_images(request.calibration)
    network = open_any(request.model, scale=request.scale, weights=request.weights)
    name = f"{network.name}_x{network.scale}_{request.config.precision}.onnx"
    return export_verified(
        network,
        request.output or Path(name),
        request.config,
        images=images,
        lr_images=() if lr is None else find_images(lr, ground_truth=False),
        calibration=calibration,
        report=report,
    )


def export_verified(
    network: LoadedNetwork,
    path: Path,
    config: ExportConfig,
    *,
    images: Sequence[Path] | None = None,
    lr_images: Sequence[Path] = (),
    calibration: Sequence[Path] | None = None,
    report: Callable[[str], None] = logger.info,
) -> ExportReport:
    """Export a network, verify the file on pictures and keep it only if it passes.

    Three questions, in this order: is the traced graph the network (at several sizes, to 1e-3)? Is
    the network any good as it is fed (its quality beside bicubic's)? What did the precision cost
    (drift)? An attempt that costs too much is followed by one with more layers in a higher
    precision.

    Args:
        network: What to export.
        path: NAME.onnx; NAME.json is written beside it.
        config: What to make.
        images: Ground-truth pictures; None for the shipped samples.
        lr_images: Their low-resolution pictures, matched by name; empty for MATLAB's bicubic.
        calibration: With INT8, pictures to calibrate and place it on; None for those shipped.
        report: Takes a line about each step as it begins.

    Raises:
        QualityGateError: The graph is not the network, or it lost too much; an earlier file at
            `path` is still there.
        InputError: No picture can be used, or another artefact is at `path`.
        ExportError: The network cannot be exported.
        BackendMissingError: The runtime that the file is for is not installed.
        OutputError: The files cannot be written.
    """
    _require_target(config)
    original = network
    start = time.perf_counter()
    _refuse_other_artefact(path, network, config)
    pairs = read_pairs(images or sample_paths(), network.scale, lr_paths=lr_images)
    if config.size is not None:
        pairs = _cut_to_size(pairs, config.size, network.scale)
    network = _fed(network, config, pairs, report)
    report("comparing the traced graph with the network at several sizes")
    faithful = find_faithful(network, form=config.form, size=config.size, report=report)
    reference, network = network, faithful.network
    config = dataclasses.replace(config, batch=faithful.batch)
    with staging(path) as folder:
        staged = folder / path.name
        attempts = find_attempts(network, config, pairs, calibration, report)
        attempt, manifest, pictures = _first_that_passes(
            attempts, staged, network, config, reference=reference, pairs=pairs, report=report
        )
        manifest = dataclasses.replace(
            manifest,
            runtime=config.runtime,
            max_drift_db=config.max_drift_db,
            parity=faithful.max_abs,
            quality=_absolute_quality(pictures, pairs, network.scale),
        )
        plan = attempt.recipe.plan if attempt.recipe is not None else None
        report("counting and timing")
        lr_size = config.size or LATENCY_LR_SIZE
        latency, against, latency_runtime = _time(staged, network, config, lr_size)
        if reason := reason_to_fall_back(config, against, latency_runtime):
            report(f"{reason}; exporting fp32")
            full = dataclasses.replace(
                config, precision="fp32", rest=None, range_method=None, plan=None
            )
            found = export_verified(
                original, path, full, images=images, lr_images=lr_images, report=report
            )
            return dataclasses.replace(found, fallback=reason)
        counts = count_onnx(staged)
        # The paper's convention: the network as it is written, not as it was rewritten.
        written = count_onnx(
            traced_form(network, form="plain", size=config.size, batch=config.batch)
        )
        write_manifest(staged, manifest)
        pareto = _draw(staged, plan, manifest, report)
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
        precision_shares=counts.precision_shares,
        counted_lr_size=counts.lr_size,
        latency=latency,
        latency_lr_size=lr_size,
        latency_runtime=latency_runtime,
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
    reference: LoadedNetwork,
    pairs: Sequence[Pair],
    report: Callable[[str], None],
) -> tuple[Attempt, Manifest, list[PictureDrift]]:
    refused: QualityGateError | None = None
    for attempt in attempts:
        report(f"exporting {network.name} x{network.scale} {config.precision}")
        manifest = export_onnx(
            network,
            staged,
            precision=config.precision,
            io=config.io,
            size=config.size,
            form=config.form,
            range_images=[range_crop(pair.lr, config.size) for pair in pairs[:4]],
            keep_fp32=attempt.keep_fp32,
            recipe=attempt.recipe,
            batch=config.batch,
        )
        try:
            with (
                _measuring_runner(staged, config) as artefact,
                TorchRunner(reference) as torch_runner,
            ):
                drift, pictures = measure_drift(
                    artefact,
                    torch_runner,
                    pairs,
                    on_picture=lambda name: report(f"verifying on {name}"),
                )
            _check_parity(drift, config)
            check_gate(drift, config.budget)
        except QualityGateError as error:
            refused = error
            report(f"refused: {str(error).split('. ')[0]}")
            continue
        return attempt, dataclasses.replace(manifest, drift=drift), pictures
    assert refused is not None
    raise refused


def _require_target(config: ExportConfig) -> None:
    """Check that the runtime that measures the file can run here.

    Raises:
        BackendMissingError: It cannot; the message names the way to install it.
    """
    if config.target.is_emulated:
        return
    try:
        reason = load_runtime(config.runtime).unusable_reason()
    except BackendMissingError as error:
        reason = str(error)
    if reason:
        raise BackendMissingError(
            f"--for {config.runtime} measures the file in {config.target.title}, which cannot run "
            f"here: {reason}. Or leave --for out, which emulates TensorRT's rounding"
        )


def reason_to_fall_back(config: ExportConfig, against: Interval | None, where: str) -> str:
    """Why an INT8 file is not worth its drift; "" where it is, or where nothing measured it.

    Args:
        config: What was asked for.
        against: Time relative to fp32 in the runtime that the file is for.
        where: Name of that runtime.
    """
    if against is None or config.target.is_emulated or config.keep_slower or against.value < 1:
        return ""
    return (
        f"INT8 takes {against.value:.2f} ({against.low:.2f} to {against.high:.2f}) of fp32's time "
        f"in {where}, so that it wins nothing (--keep-slower keeps it)"
    )


def _measuring_runner(path: Path, config: ExportConfig) -> Runner:
    """Runs a file as the runtime that it is for computes it."""
    if config.target.is_emulated:
        return OnnxRunner(path, threads=config.threads, as_device=True)
    return open_runner(config.runtime, path, threads=config.threads)


def _time(
    staged: Path, network: LoadedNetwork, config: ExportConfig, lr_size: tuple[int, int]
) -> tuple[Timing | None, Interval | None, str]:
    if config.target.is_emulated and config.precision not in find_runtime(DEFAULT_RUNTIME).exports:
        return None, None, ""
    with contextlib.ExitStack() as stack:
        runtime = DEFAULT_RUNTIME if config.target.is_emulated else config.runtime
        artefact = stack.enter_context(open_runner(runtime, staged, threads=config.threads))
        calls = {"artefact": picture_call(artefact, lr_size)}
        if config.precision == "int8":
            full = staged.with_name("fp32.onnx")
            export_onnx(
                network,
                full,
                io=config.io,
                size=config.size,
                form=config.form,
                batch=config.batch,
            )
            fp32 = stack.enter_context(open_runner(runtime, full, threads=config.threads))
            calls["fp32"] = picture_call(fp32, lr_size)
        seconds = _LATENCY_SECONDS_ELSEWHERE if config.target.is_emulated else _LATENCY_SECONDS
        timings = time_calls(calls, min_runs=10, max_seconds=seconds * len(calls))
    against = ratio(timings["artefact"], timings["fp32"]) if "fp32" in timings else None
    return timings["artefact"], against, artefact.name


def _draw(
    staged: Path,
    plan: PrecisionPlan | None,
    manifest: Manifest,
    report: Callable[[str], None],
) -> Path | None:
    if plan is None or not plan.drift_by_step:
        return None
    path = staged.with_suffix(".pareto.png")
    try:
        draw_pareto(
            path,
            plan,
            title=f"{manifest.model} x{manifest.scale}, {plan.precision.upper()} and {plan.rest}",
        )
    except BackendMissingError as error:
        report(f"no picture of drift against share: {error}")
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


def _refuse_other_artefact(path: Path, network: LoadedNetwork, config: ExportConfig) -> None:
    """Keep an artefact of another network or of other settings, unless it may be replaced.

    Raises:
        InputError: It is there; the message says which.
    """
    if config.overwrite or not path.exists():
        return
    try:
        manifest = read_manifest(path)
    except InputError:
        found = "a file that is not described by a manifest of this version"
    else:
        shape = manifest.input.shape
        height, width = shape[1:3] if manifest.io == "uint8" else shape[2:]
        is_fixed = isinstance(height, int) and isinstance(width, int)
        size = (width, height) if is_fixed else None
        facts = {
            "model": (manifest.model, network.name),
            "scale": (manifest.scale, network.scale),
            "weights": (manifest.weights_sha256[:12], network.weights_sha256[:12]),
            "form": (manifest.form, config.form),
            "io": (manifest.io, config.io),
            "size": (size, config.size),
        }
        other = {what: was for what, (was, asked) in facts.items() if was != asked}
        if not other:
            return
        found = "an export of " + ", ".join(f"{what} {was}" for what, was in other.items())
    raise InputError(
        f"{path} is there already, {found}. Give another name with -o, or replace it with "
        "--overwrite"
    )


def _fed(
    network: LoadedNetwork,
    config: ExportConfig,
    pairs: Sequence[Pair],
    report: Callable[[str], None],
) -> LoadedNetwork:
    """The network behind the conversion of pictures that it wants."""
    white = config.white
    if white is None and network.name in NETWORKS:
        white = 1  # networks of the registry take [0, 1]
    if white is None:
        white, line = find_white(network, pairs)
        if line:
            report(line)
    return fed_network(network, white=white, bgr=config.bgr)


def _check_parity(drift: Drift, config: ExportConfig) -> None:
    """Refuse an fp32 file whose pictures are not the network's, whichever are better.

    Raises:
        QualityGateError: They differ by more than rounding.
    """
    # 8-bit pictures differ by one value where rounding falls to the other side.
    tolerance = TOLERANCE if config.io == "float" else 1.5 / 255
    if config.precision == "fp32" and drift.max_abs > tolerance:
        raise QualityGateError(
            f"the fp32 file differs from the network by up to {drift.max_abs:.2g} of white, on "
            f"{drift.images} pictures; at most {tolerance:.2g} is rounding. Nothing was kept. "
            "Export it for one size with --size WxH"
        )


def _absolute_quality(
    pictures: Sequence[PictureDrift], pairs: Sequence[Pair], scale: int
) -> AbsoluteQuality:
    artefact = mean_quality({p.name: p.artefact for p in pictures})
    network = mean_quality({p.name: p.reference for p in pictures})
    return AbsoluteQuality(artefact.psnr_y_db, network.psnr_y_db, bicubic_psnr_y_db(pairs, scale))
