"""An export's report, for people and for machines."""

from swise_deploy.models.registry import NETWORKS
from swise_deploy.timing import Timing
from swise_export.manifest import manifest_path
from swise_export.verified import ExportReport

_GIGA = 1e9


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
        "params": manifest.num_params,
        "mult_adds_g": report.mult_adds / _GIGA,
        "artifact_mult_adds_g": report.artifact_mult_adds / _GIGA,
        "lr_size": list(report.counted_lr_size),
        "size_bytes": report.size_bytes,
        "parity": {"max_abs": drift.max_abs, "psnr_db": drift.output_psnr_db},
        "drift": {
            "images": drift.images,
            "psnr_y_db": drift.psnr_y_db,
            "ssim_y": drift.ssim_y,
            "worst": {"image": drift.worst_image, "psnr_y_db": drift.worst_psnr_y_db},
        },
        "latency": {
            "p50_ms": report.latency.p50_ms,
            "p90_ms": report.latency.p90_ms,
            "runs": len(report.latency.samples_ms),
            "threads": report.threads,
            "provider": report.latency_provider,
            "lr_size": list(report.latency_lr_size),
        },
        "seconds": report.seconds,
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
                f"{report.mult_adds / _GIGA:.1f} G counted at LR {_size(report.counted_lr_size)}"
                f"{_published(report, 'mult_adds')}; "
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
        (
            "drift",
            (
                f"{drift.psnr_y_db:+.4f} dB PSNR-Y, {drift.ssim_y:+.5f} SSIM-Y on {drift.images} "
                f"pictures; worst {drift.worst_image} {drift.worst_psnr_y_db:+.4f} dB"
            ),
        ),
        *_precision_rows(report),
        (
            "latency",
            (
                f"{_latency(report.latency)} at LR {_size(report.latency_lr_size)}, "
                f"{report.threads} threads, {report.latency_provider}"
            ),
        ),
    ]
    width = max(len(name) for name, _ in rows)
    title = (
        f"{_title(manifest.model)} x{manifest.scale} {manifest.precision}, {report.seconds:.1f} s"
    )
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def _precision_rows(report: ExportReport) -> list[tuple[str, str]]:
    manifest = report.manifest
    if manifest.precision == "fp32":
        return []
    rows = [("kept in fp32", f"{len(manifest.fp32_nodes)} nodes (norms, averages, the final sum)")]
    if manifest.activations:
        node, largest = max(manifest.activations.items(), key=lambda item: item[1])
        rows.append(("largest value", f"{largest:.3g} at {node} (fp16 holds 65504)"))
    return rows


def _title(model: str) -> str:
    return NETWORKS[model].title if model in NETWORKS else model


def _published(report: ExportReport, what: str) -> str:
    network = NETWORKS.get(report.manifest.model)
    counts = network.published.get(report.manifest.scale) if network is not None else None
    if counts is None:
        return ""
    if what == "params":
        return f" (published: {counts.params_k:g} K)"
    return f" (published: {counts.mult_adds_g:g} G)"


def _shape(report: ExportReport, side: str) -> str:
    facts = report.manifest.input if side == "input" else report.manifest.output
    return f"{facts.name} {facts.dtype} ({', '.join(str(dim) for dim in facts.shape)})"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _latency(timing: Timing) -> str:
    return (
        f"p50 {timing.p50_ms:.1f} ms, p90 {timing.p90_ms:.1f} ms over {len(timing.samples_ms)} runs"
    )
