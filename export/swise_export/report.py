"""An export's report, for people and for machines."""

import dataclasses
import platform

from swise_deploy.command.console import size_text
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.timing import Interval, Timing
from swise_export.counting import lr_size_for_hr
from swise_export.job import ExportReport
from swise_export.manifest import AbsoluteQuality, manifest_path
from swise_export.precision.pareto import pareto_front
from swise_export.precision.plan import PrecisionPlan
from swise_export.runtimes.table import DEFAULT_RUNTIME, DEFAULT_TARGET

_GIGA = 1e9
_NAMED_LAYERS = 8


def dict_from_report(report: ExportReport) -> dict[str, object]:
    """The report as JSON types; units are in the names."""
    manifest = report.manifest
    drift = manifest.drift
    assert drift is not None
    return {
        "artifact": str(report.artifact),
        "manifest": str(manifest_path(report.artifact)),
        "model": manifest.model,
        "scale": manifest.scale,
        "precision": manifest.precision,
        "io": manifest.io,
        "form": manifest.form,
        "made_for": manifest.runtime,
        "params": manifest.num_params,
        "mult_adds_g": report.mult_adds / _GIGA,
        "artifact_mult_adds_g": report.artifact_mult_adds / _GIGA,
        "mult_adds_shares": dict(report.precision_shares),
        "lr_size": list(report.counted_lr_size),
        "size_bytes": report.size_bytes,
        "parity": {
            "traced_max_abs": manifest.parity,
            "max_abs": drift.max_abs,
            "psnr_db": drift.output_psnr_db,
        },
        "quality": None if manifest.quality is None else dataclasses.asdict(manifest.quality),
        "drift": {
            "images": drift.images,
            "psnr_y_db": drift.psnr_y_db,
            "ssim_y": drift.ssim_y,
            "measured_in": drift.measured_in,
            "worst": {"image": drift.worst_image, "psnr_y_db": drift.worst_psnr_y_db},
        },
        "latency": _latency_dict(report, report.latency),
        "seconds": report.seconds,
        "fallback": report.fallback or None,
        **(
            {}
            if report.plan is None
            else {report.plan.precision: _quantised_dict(report, report.plan)}
        ),
    }


def _latency_dict(report: ExportReport, latency: Timing | None) -> dict[str, object] | None:
    if latency is None:
        return None
    return {
        "p50_ms": latency.p50_ms,
        "p90_ms": latency.p90_ms,
        "runs": len(latency.samples_ms),
        "threads": report.threads,
        "runtime": report.latency_runtime,
        "lr_size": list(report.latency_lr_size),
    }


def _quantised_dict(report: ExportReport, plan: PrecisionPlan) -> dict[str, object]:
    against = report.time_against_fp32
    return {
        "mult_adds_share": plan.mult_adds_share,
        "layers": len(plan.quantised_layers),
        "layers_fp16": [x.name for x in plan.layers if x.precision != plan.precision],
        "layers_unsigned": [layer.name for layer in plan.unsigned_layers],
        "rest": plan.rest,
        "calibration": {
            "images": plan.num_pictures,
            "method": plan.method,
            "sha256": plan.pictures_sha256,
        },
        "held_out_drift_db": plan.held_out_drift_db,
        "drift_by_step": [dataclasses.asdict(step) for step in plan.drift_by_step],
        "time_by_step": [dataclasses.asdict(step) for step in plan.time_by_step],
        "time_by_kind": [dataclasses.asdict(kind) for kind in plan.time_by_kind],
        "time_against_fp32": None if against is None else dataclasses.asdict(against),
        "pareto": None if report.pareto is None else str(report.pareto),
    }


def text_from_report(report: ExportReport) -> str:
    """The report in plain lines."""
    manifest = report.manifest
    drift = manifest.drift
    assert drift is not None
    rows = [
        ("artefact", f"{report.artifact}  ({report.size_bytes / 1e6:.2f} MB)"),
        ("manifest", str(manifest_path(report.artifact))),
        ("input, output", f"{_shape(report, 'input')} -> {_shape(report, 'output')}"),
        ("parameters", f"{manifest.num_params:,} counted{_published(report, 'params')}"),
        (
            "Mult-Adds",
            (
                f"{report.mult_adds / _GIGA:.1f} G counted at LR "
                f"{size_text(report.counted_lr_size)}{_published(report, 'mult_adds')}; "
                f"{report.artifact_mult_adds / _GIGA:.1f} G in this file"
            ),
        ),
        (
            "parity",
            (
                f"largest difference {drift.max_abs:.1e}, PSNR between the outputs "
                f"{drift.output_psnr_db:.1f} dB"
            ),
        ),
        *_quality_rows(manifest.quality),
        (
            "drift",
            (
                f"{drift.psnr_y_db:+.4f} dB PSNR-Y, {_signed(drift.ssim_y)} SSIM-Y on "
                f"{drift.images} pictures; worst {drift.worst_image} "
                f"{drift.worst_psnr_y_db:+.4f} dB; in {drift.measured_in}"
            ),
        ),
        *_precision_rows(report),
        ("latency", _latency(report, report.latency)),
    ]
    if report.fallback:
        rows.append(("fp32, not INT8", report.fallback))
    if report.plan is not None:
        rows.extend(_quantised_rows(report, report.plan))
    width = max(len(name) for name, _ in rows)
    title = (
        f"{_title(manifest.model)} x{manifest.scale} {manifest.precision}, {report.seconds:.1f} s"
    )
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def _precision_rows(report: ExportReport) -> list[tuple[str, str]]:
    manifest = report.manifest
    if manifest.precision == "fp32":
        return []
    rows = []
    if manifest.fp32_nodes:
        count = len(manifest.fp32_nodes)
        shares = ", ".join(f"{v:.2%} {name}" for name, v in report.precision_shares.items())
        text = f"{count} nodes (norms, averages, the final sum); Mult-Adds: {shares}"
        rows.append(("kept in fp32", text))
    if manifest.activations:
        node, largest = max(manifest.activations.items(), key=lambda item: item[1])
        note = " (fp16 holds 65504)" if manifest.precision != "bf16" else ""
        rows.append(("largest value", f"{largest:.3g} at {node}{note}"))
    return rows


def _quantised_rows(report: ExportReport, plan: PrecisionPlan) -> list[tuple[str, str]]:
    title, num_unsigned = plan.precision.upper(), len(plan.unsigned_layers)
    rows = [
        (
            title,
            (
                f"{plan.mult_adds_share:.1%} of the Mult-Adds, {len(plan.quantised_layers)} of "
                f"{len(plan.layers)} layers"
                f"{f', {num_unsigned} with unsigned inputs' if num_unsigned else ''}"
                f"; the rest {plan.rest}"
            ),
        ),
        (
            "calibration",
            (
                f"{plan.num_pictures} crops, ranges by {plan.method}; "
                f"{plan.held_out_drift_db:+.4f} dB on pictures held out"
            ),
        ),
    ]
    higher = sorted(
        (x for x in plan.layers if x.precision != plan.precision), key=lambda x: x.noise_db
    )
    rows.extend(
        (
            f"stays {layer.precision}",
            (
                f"{layer.name}: {layer.mult_adds / max(1, plan.mult_adds):.2%} of the Mult-Adds, "
                f"{layer.alone_db:+.4f} dB alone in {title}"
            ),
        )
        for layer in higher[:_NAMED_LAYERS]
    )
    if len(higher) > _NAMED_LAYERS:
        rows.append(("", f"and {len(higher) - _NAMED_LAYERS} more, named in --json"))
    front = pareto_front(tuple(step for step in plan.drift_by_step if step.num_layers))
    if front:
        line = ", ".join(f"{s.mult_adds_share:.0%} {s.drift_db:+.3f} dB" for s in front)
        rows.append((f"{title} share, drift", line))
    if plan.time_by_step:
        line = ", ".join(f"{s.mult_adds_share:.0%} {s.time:.2f}" for s in plan.time_by_step)
        rows.append((f"{title} share, time", f"{line} of fp32's"))
    rows.extend(
        (
            f"back to {plan.rest}",
            (
                f"{timed.num_layers} of {timed.kind} ({timed.mult_adds_share:.1%} of the "
                f"Mult-Adds): the file takes {timed.without.value:.2f} of its time without them"
            ),
        )
        for timed in plan.time_by_kind
        if not timed.is_kept
    )
    if report.pareto is not None:
        rows.append(("picture", str(report.pareto)))
    if report.time_against_fp32 is not None:
        where = f"in {report.latency_runtime}"
        rows.append(("against fp32", _against_fp32(report.time_against_fp32, where)))
    return rows


def _against_fp32(times: Interval, where: str) -> str:
    measured = f"{times.value:.2f} ({times.low:.2f} to {times.high:.2f}) of fp32's time {where}"
    if times.low > 1:
        return f"INT8 is slower here: {measured}; on another device or runtime, measure there"
    if times.high < 1:
        return f"INT8 is faster here: {measured}"
    return f"no difference here: {measured}"


def _title(model: str) -> str:
    return NETWORKS[model].title if model in NETWORKS else model


def _half_note(report: ExportReport) -> str:
    """Why the latency of an fp16 file may disappoint: ONNX Runtime has no half kernels on x86."""
    in_ort = report.manifest.runtime in (DEFAULT_TARGET, DEFAULT_RUNTIME)
    if report.manifest.precision != "fp16" or not in_ort or platform.machine() != "x86_64":
        return ""
    return ", which computes fp16 in fp32 between casts: no measure of a GPU"


def _published(report: ExportReport, what: str) -> str:
    network = NETWORKS.get(report.manifest.model)
    counts = network.published.get(report.manifest.scale) if network is not None else None
    if counts is None:
        return ""
    if what == "params":
        return f" (published: {counts.params_k:g} K)"
    if report.counted_lr_size != lr_size_for_hr(report.manifest.scale):
        return ""
    return f" (published: {counts.mult_adds_g:g} G)"


def _shape(report: ExportReport, side: str) -> str:
    facts = report.manifest.input if side == "input" else report.manifest.output
    return f"{facts.name} {facts.dtype} ({', '.join(str(dim) for dim in facts.shape)})"


def _latency(report: ExportReport, timing: Timing | None) -> str:
    if timing is None:
        return f"not measured: no runtime on a CPU computes in {report.manifest.precision}"
    return (
        f"p50 {timing.p50_ms:.1f} ms, p90 {timing.p90_ms:.1f} ms over {len(timing.samples_ms)} "
        f"runs at LR {size_text(report.latency_lr_size)}, {report.threads} threads, "
        f"{report.latency_runtime}{_half_note(report)}"
    )


def _signed(value: float | None) -> str:
    return "no" if value is None else f"{value:+.5f}"


def _quality_rows(quality: AbsoluteQuality | None) -> list[tuple[str, str]]:
    if quality is None:
        return []
    network, bicubic = quality.network_psnr_y_db, quality.bicubic_psnr_y_db
    text = f"{quality.psnr_y_db:.2f} dB PSNR-Y (network {network:.2f}, bicubic {bicubic:.2f})"
    return [("quality", text)]


def warning_from_report(report: ExportReport) -> str:
    """A warning about a network that is worse than bicubic; "" where it is better."""
    quality = report.manifest.quality
    if quality is None or not quality.is_below_bicubic:
        return ""
    return (
        f"WARNING: the network is worse than bicubic on these pictures: PSNR-Y "
        f"{quality.network_psnr_y_db:.2f} dB, bicubic {quality.bicubic_psnr_y_db:.2f} dB. Usual "
        "causes: no trained weights were loaded (--weights), the network works on 0 to 255 "
        "(--range 255), it takes BGR (--bgr), or it was trained for another task or degradation"
    )
