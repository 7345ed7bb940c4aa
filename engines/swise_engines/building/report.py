"""The report of a build, for people."""

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from swise_engines.building.build import Built
from swise_engines.tensorrt.kernel_text import describe_stores
from swise_engines.tensorrt.manifest import EngineManifest
from swise_engines.tensorrt.precision_table import PrecisionTable

MIB = 1 << 20


def show_built(built: Built, console: Console) -> None:
    """Print the report."""
    manifest = built.manifest
    console.print(f"{built.path}  {manifest.engine_bytes / MIB:.1f} MiB")
    for line in describe(manifest):
        console.print(f"  {line}")
    console.print(table_of(manifest.precision_found))
    if manifest.precision_compiled is not None:
        console.print(table_of(manifest.precision_compiled))
    if manifest.precision_read_back is not None:
        console.print(table_of(manifest.precision_read_back))
    path = shlex.quote(str(built.path))
    console.print(f"next: swise-bench {path}, swise-upscale IN -o OUT --model {path}")


def describe(manifest: EngineManifest) -> Sequence[str]:
    """The facts of an engine, one line each."""
    served = " that TensorRT for RTX serves" * (manifest.backend == "tensorrt_rtx")
    portable = f"SM 8.0 and later{served}"
    built_for = "SM " + ", ".join(manifest.sms) if manifest.sms else portable
    lines = [
        f"for {built_for}, {manifest.backend} {manifest.backend_version} alone",
        *(f"takes {profile}" for profile in manifest.profiles),
    ]
    if manifest.version_compatible:
        lines[0] = f"for {built_for}, {manifest.backend} {manifest.backend_version} and later"
    if manifest.dla_core is not None:
        fallback = ", ".join(manifest.dla_fallback) or "none"
        lines.append(f"on DLA core {manifest.dla_core}; layers left to the GPU: {fallback}")
    if manifest.stores:
        lines.append(f"compiled: kernels that store {describe_stores(manifest.stores)}")
    if manifest.read_back_note:
        lines.append(f"precision {manifest.read_back_note}")
    lines.append(_describe_drift(manifest))
    return lines


def _describe_drift(manifest: EngineManifest) -> str:
    drift = manifest.drift
    if drift is None:
        return f"drift {manifest.drift_note}"
    return (
        f"drift against {drift['reference']} on {drift['images']} pictures: PSNR-Y "
        f"{drift['psnr_y_db']:+.4f} dB (worst {drift['worst_image']}, "
        f"{drift['worst_psnr_y_db']:+.4f} dB), output PSNR {drift['output_psnr_db']:.1f} dB"
    )


def table_of(precisions: PrecisionTable) -> Table:
    """Layers by precision, for the terminal."""
    table = Table("precision", "layers", "Mult-Adds", "weights", title=precisions.origin)
    for row in precisions.rows:
        weights = ", ".join(f"{number} {name}" for name, number in row.weights.items())
        table.add_row(row.precision, str(row.num_layers), f"{row.mult_adds_share:.1%}", weights)
    if precisions.unattributed_share > 0:
        table.add_row("unknown", "", f"{precisions.unattributed_share:.1%}", "")
    return table
