"""Facts of a file: an ONNX file, an engine, a checkpoint, a precision plan or results."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swise_deploy.checkpoints.shipped import WEIGHTS_SUFFIXES
from swise_deploy.command.console import size_text
from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError, SwiseError
from swise_deploy.storage.files import sha256_of

if TYPE_CHECKING:
    from swise_engines.tensorrt.precision_table import PrecisionTable

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
SUFFIXES = (".onnx", *ENGINE_SUFFIXES, *sorted(WEIGHTS_SUFFIXES), ".json")


@dataclass(frozen=True, slots=True)
class Information:
    """Facts of a file.

    Attributes:
        kind: "ONNX file", "engine", "checkpoint", "precision plan" or "results".
        path: The file.
        facts: By name, in the order in which they are shown; values are JSON types.
    """

    kind: str
    path: Path
    facts: Mapping[str, Any]


def inspect_file(path: Path) -> Information:
    """Find out what a file is.

    Raises:
        InputError: It is missing, damaged, or of no kind that is known.
    """
    if not path.is_file():
        raise InputError(f"no file at {path}. Expected one of {', '.join(SUFFIXES)}")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return Information("ONNX file", path, _onnx_facts(path))
    if suffix in ENGINE_SUFFIXES:
        return Information("engine", path, _engine_facts(path))
    if suffix in WEIGHTS_SUFFIXES:
        return Information("checkpoint", path, _checkpoint_facts(path))
    if suffix == ".json":
        return _json_information(path)
    raise InputError(f"{path} has the suffix {suffix!r}; expected one of {', '.join(SUFFIXES)}")


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


def _onnx_facts(path: Path) -> dict[str, Any]:
    from swise_export.counting import count_onnx
    from swise_export.interface.onnx_file import read_onnx_file
    from swise_export.runtimes.table import DEFAULT_RUNTIME

    file = read_onnx_file(path)
    interface = file.interface
    facts: dict[str, Any] = {
        "file": f"{_size(path)}, opset {file.opset}",
        "sha256": file.sha256,
        "takes": _port(interface.input),
        "gives": _port(interface.output),
        "scale": interface.scale,
        "sizes": size_text(interface.size) if interface.size else "any",
        "multiple": interface.multiple,
        "batch": interface.batch or "any",
    }
    try:
        counts = count_onnx(path)
    except SwiseError as error:
        facts["counts"] = f"not counted: {error}"
    else:
        facts |= {
            "parameters": counts.params,
            "Mult-Adds": counts.mult_adds,
            "counted at LR": size_text(counts.lr_size),
            "precision by share": {
                name: round(share, 4) for name, share in counts.precision_shares.items()
            },
        }
        if counts.unknown:
            facts["not counted"] = dict(counts.unknown)
    runtimes = _runtimes("onnx")
    if DEFAULT_RUNTIME in runtimes and "bf16" in file.formats:
        runtimes.remove(DEFAULT_RUNTIME)  # it has no bf16 convolutions
    return {**facts, **_origin(path, file.facts, file.sha256), "runs in": runtimes}


def _port(port: Any) -> str:
    shape = f"{port.layout}, {port.channels} channels, 0 to {port.white:g}"
    return f"{port.name}: {port.dtype}, {shape}"


def _origin(path: Path, stated: Mapping[str, str], sha256: str) -> dict[str, Any]:
    """Network, drift and quality from the manifest beside a file, where it belongs to it."""
    from swise_export.manifest import manifest_path, read_manifest

    facts: dict[str, Any] = {}
    if stated.get("model"):
        facts["network"] = f"{stated['model']}, {stated.get('form') or 'unknown'} form"
    if not manifest_path(path).is_file():
        return {**facts, "manifest": "none"}
    try:
        manifest = read_manifest(path)
    except SwiseError as error:
        return {**facts, "manifest": f"not read: {error}"}
    if manifest.sha256 != sha256:
        return {**facts, "manifest": f"{manifest_path(path).name} belongs to another file"}
    for title, placed in (("INT8", manifest.int8), ("FP8", manifest.fp8)):
        if placed is not None:
            facts[title] = (
                f"{placed.mult_adds_share:.1%} of the Mult-Adds, {placed.layers} layers, "
                f"the rest {placed.rest}"
            )
    if manifest.drift is not None:
        drift = manifest.drift
        facts["drift as verified"] = (
            f"{drift.psnr_y_db:+.4f} dB PSNR-Y on {drift.images} pictures; worst "
            f"{drift.worst_image} {drift.worst_psnr_y_db:+.4f} dB"
        )
    if manifest.quality is not None:
        quality = manifest.quality
        facts["quality as verified"] = (
            f"{quality.psnr_y_db:.2f} dB PSNR-Y (fp32 {quality.network_psnr_y_db:.2f}, bicubic "
            f"{quality.bicubic_psnr_y_db:.2f})"
        )
    return {**facts, "weights": manifest.weights, "made by": dict(manifest.versions)}


def _runtimes(takes: str) -> list[str]:
    """Runtimes that run such files on this machine."""
    from swise_bench.verbs.usable import unusable_reason
    from swise_export.runtimes.table import RUNTIMES

    return [n for n, r in RUNTIMES.items() if r.takes == takes and not unusable_reason(n)]


def _by_precision(table: "PrecisionTable") -> dict[str, float]:
    return {row.precision: row.mult_adds_share for row in table.rows}


def _engine_facts(path: Path) -> dict[str, Any]:
    from swise_engines.tensorrt.manifest import read_manifest

    facts: dict[str, Any] = {"file": _size(path), "sha256": sha256_of(path)}
    manifest = read_manifest(path)
    if manifest is None:
        return {**facts, "manifest": "none: built by something else, so it is not loaded"}
    found, compiled = _by_precision(manifest.precision_found), manifest.precision_compiled
    return {
        **facts,
        "takes": _port(manifest.interface.input),
        "gives": _port(manifest.interface.output),
        "scale": manifest.interface.scale,
        "sizes": [
            f"{size_text((p.min.width, p.min.height))} to {size_text((p.max.width, p.max.height))}"
            for p in manifest.profiles
        ],
        "network": manifest.model,
        "precision asked": manifest.precision_asked or "unknown",
        "precision found": found or "unknown",
        **({} if compiled is None else {"precision compiled": _by_precision(compiled)}),
        "made from": manifest.onnx_name,
        "made by": f"{manifest.backend} {manifest.backend_version}",
        "runs on": f"SM {', '.join(manifest.sms)}" if manifest.sms else manifest.gpu or "unknown",
        "drift as verified": dict(manifest.drift) if manifest.drift else manifest.drift_note,
    }


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    loading = require("swise_deploy.checkpoints.load", extra="export", purpose="reading weights")
    reading = require("swise_deploy.checkpoints.reading", extra="export", purpose="reading weights")
    states = reading.read_states(path)
    facts: dict[str, Any] = {"file": _size(path), "sha256": sha256_of(path)}
    facts["states"] = {
        state.place or "the file itself": f"{len(state.tensors)} tensors, "
        f"{sum(tensor.numel() for tensor in state.tensors.values()):,} numbers"
        for state in states
    }
    try:
        network = loading.open_network(weights=path)
    except SwiseError as error:
        return {**facts, "network": f"not recognised: {error}"}
    return {
        **facts,
        "network": network.name,
        "scale": network.scale,
        "parameters": sum(p.numel() for p in network.module.parameters()),
        "next": f"swise-export {path}",
    }


def _json_information(path: Path) -> Information:
    from swise_bench.results.document import read_benchmark
    from swise_export.precision.plan import read_plan

    reasons = []
    for kind, read in (("precision plan", _plan_facts), ("results", _result_facts)):
        try:
            return Information(kind, path, read(path, read_plan, read_benchmark))
        except SwiseError as error:
            reasons.append(str(error))
    raise InputError(f"{path} is neither a precision plan nor results of swise-bench: {reasons[0]}")


def _plan_facts(path: Path, read_plan: Any, _read_benchmark: Any) -> dict[str, Any]:
    plan = read_plan(path)
    return {
        "network": f"{plan.model} x{plan.scale}, {plan.form} form",
        plan.precision.upper(): f"{plan.mult_adds_share:.1%} of the Mult-Adds, "
        f"{len(plan.quantised_layers)} of {len(plan.layers)} layers, the rest {plan.rest}",
        "budget": f"{plan.max_drift_db:g} dB",
        "drift held out": f"{plan.held_out_drift_db:+.4f} dB PSNR-Y",
        "calibration": f"{plan.num_pictures} crops, ranges by {plan.method}",
        "weights sha256": plan.weights_sha256,
    }


def _result_facts(path: Path, _read_plan: Any, read_benchmark: Any) -> dict[str, Any]:
    from swise_bench.reports.verdict import summarize

    summary = summarize(read_benchmark(path))
    return {
        "verdict": summary.headline,
        **{verdict.name: verdict.words for verdict in summary.verdicts},
    }
