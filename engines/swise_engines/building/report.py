"""What swise-build does: options to a build, the build to a report."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from swise_deploy.command.console import progress
from swise_deploy.errors import BackendMissingError
from swise_deploy.pictures.folders import find_images
from swise_deploy.storage.files import json_text
from swise_engines.building.build import Built, build_engine
from swise_engines.building.options import BuildOptions
from swise_engines.building.progress import progress_bar
from swise_engines.building.verification import verify_built
from swise_engines.cuda.boundary import find_gpu
from swise_engines.running.engine_cache import BuildCache, default_cache
from swise_engines.targets.catalogue import find_target, load_targets
from swise_engines.tensorrt.manifest import EngineManifest
from swise_engines.tensorrt.precision_table import PrecisionTable
from swise_engines.tensorrt.profiles import profile_from_sizes
from swise_export.verification.budget import DriftBudget

MIB = 1 << 20


def run_build(arguments: Namespace) -> int:
    """Build what the command line asks for, verify it where it can run, and report."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if arguments.list:
        list_targets(console)
        return 0
    if arguments.images is not None:
        find_images(arguments.images)  # said before a build of minutes, not after it
    gpu = find_gpu()
    if arguments.verify and gpu.device is None:  # said before a build of minutes, too
        raise BackendMissingError(f"--verify has to run the engine: {gpu.reason}")
    options = options_from_arguments(arguments)
    with progress_bar(f"building {arguments.onnx.name}") as report:
        built = build_engine(
            arguments.onnx,
            arguments.output,
            options,
            gpu=gpu,
            cache=_choose_cache(arguments.cache_dir, no_cache=arguments.no_cache),
            report=report,
            say=progress,
        )
    built = verify_built(
        built,
        arguments.onnx,
        gpu,
        asked=arguments.verify,
        images=arguments.images,
        budget=DriftBudget(arguments.max_drift, arguments.max_worst),
        say=progress,
    )
    if arguments.json:
        document = {"engine": str(built.path), "was_cached": built.was_cached}
        sys.stdout.write(json_text({**document, **built.manifest.to_dict()}) + "\n")
    else:
        show_built(built, console)
    return 0


def list_targets(console: Console) -> None:
    """Print every target, in the order of the shipped file."""
    targets = load_targets().values()
    width = max(len(target.name) for target in targets)
    for target in targets:
        served = ", ".join(target.backends)
        console.print(f"{target.name:{width}}  {target.sm:>4}  {served:22}  {target.title}")
    console.print(f"{'current':{width}}  {'':>4}  {'':22}  The GPU of this machine")


def options_from_arguments(arguments: Namespace) -> BuildOptions:
    """The parsed command line as options.

    Raises:
        InputError: Unknown target, or sizes that are not in order.
    """
    return BuildOptions(
        target=None if arguments.target == "current" else find_target(arguments.target),
        backend=arguments.backend,
        profiles=tuple(
            profile_from_sizes(sizes, max_batch=arguments.batch) for sizes in arguments.size or []
        ),
        max_batch=arguments.batch,
        precision=arguments.precision or "",
        workspace_mib=arguments.workspace,
        optimization_level=arguments.optimization_level,
        dla_core=arguments.dla_core,
        compatibility=arguments.compatibility,
        version_compatible=arguments.version_compatible,
    )


def _choose_cache(folder: Path | None, *, no_cache: bool) -> BuildCache | None:
    if no_cache:
        return None
    return default_cache() if folder is None else BuildCache(folder)


def show_built(built: Built, console: Console) -> None:
    """Print what was built."""
    manifest = built.manifest
    console.print(f"{built.path}  {manifest.engine_bytes / MIB:.1f} MiB")
    for line in describe(manifest):
        console.print(f"  {line}")
    console.print(table_of(manifest.precision_found))
    if manifest.precision_read_back is not None:
        console.print(table_of(manifest.precision_read_back))
    path = shlex.quote(str(built.path))
    console.print(f"next: swise-bench {path}, swise-upscale IN -o OUT --model {path}")


def describe(manifest: EngineManifest) -> Sequence[str]:
    """What a reader of the report should know, a line each."""
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
