"""The swise-build command: an engine is built, verified where it can run, and reported."""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from swise_deploy.command.console import progress, rich_console
from swise_deploy.errors import BackendMissingError
from swise_deploy.pictures.folders import find_images
from swise_deploy.storage.files import json_text
from swise_engines.building.build import build_engine
from swise_engines.building.options import BuildOptions
from swise_engines.building.progress import progress_bar
from swise_engines.building.report import show_built
from swise_engines.building.verification import verify_built
from swise_engines.cuda.boundary import find_gpu
from swise_engines.running.engine_cache import EngineCache, default_cache
from swise_engines.targets.catalogue import load_targets
from swise_export.verification.budget import DriftBudget


@dataclass(frozen=True, slots=True)
class BuildConfig:
    """The options of swise-build.

    Attributes:
        onnx: The ONNX file.
        output: The engine; None is beside the ONNX file, named after it and the target.
        options: What to build.
        verify: True requires a measurement of drift, False omits it, None makes it where the
            engine can run.
        images: A folder of pictures to verify on; None takes the shipped ones.
        budget: Drift that is allowed.
        cache_dir: Where engines are kept; None is the user's cache.
        uses_cache: Whether engines are kept and taken from there.
        as_json: Whether the report is JSON.
    """

    onnx: Path
    output: Path | None
    options: BuildOptions
    verify: bool | None
    images: Path | None
    budget: DriftBudget
    cache_dir: Path | None
    uses_cache: bool
    as_json: bool

    @property
    def cache(self) -> EngineCache | None:
        """The cache of engines; None for none."""
        if not self.uses_cache:
            return None
        return default_cache() if self.cache_dir is None else EngineCache(self.cache_dir)


def run_build(config: BuildConfig) -> int:
    """Build an engine, verify it where it can run, and print the report.

    Raises:
        SwiseError: What `build_engine` and `verify_built` raise; missing pictures and a missing
            GPU are reported before the build, which takes minutes.
    """
    if config.images is not None:
        find_images(config.images)
    gpu = find_gpu()
    if config.verify and gpu.device is None:
        raise BackendMissingError(f"--verify has to run the engine: {gpu.reason}")
    with progress_bar(f"building {config.onnx.name}") as report:
        built = build_engine(
            config.onnx,
            config.output,
            config.options,
            gpu=gpu,
            cache=config.cache,
            report=report,
            notify=progress,
        )
    built = verify_built(
        built,
        config.onnx,
        gpu,
        verify=config.verify,
        images=config.images,
        budget=config.budget,
        notify=progress,
    )
    if config.as_json:
        document = {"engine": str(built.path), "was_cached": built.was_cached}
        sys.stdout.write(json_text({**document, **built.manifest.to_dict()}) + "\n")
    else:
        show_built(built, _console())
    return 0


def list_targets() -> int:
    """Print every target, in the order of the shipped file."""
    console = _console()
    targets = load_targets().values()
    width = max(len(target.name) for target in targets)
    for target in targets:
        served = ", ".join(target.backends)
        console.print(f"{target.name:{width}}  {target.sm:>4}  {served:22}  {target.title}")
    console.print(f"{'current':{width}}  {'':>4}  {'':22}  The GPU of this machine")
    return 0


def _console() -> Console:
    return rich_console(highlight=False, markup=False, soft_wrap=True)
