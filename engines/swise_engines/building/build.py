"""An ONNX file to an engine with its manifest: cached, locked, checked."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from swise_deploy import __version__
from swise_deploy.command.dependencies import installed_version
from swise_deploy.errors import BackendMissingError, InputError, SwiseError
from swise_deploy.storage.files import sha256_of, writing
from swise_engines.building.builder_config import CompileOptions
from swise_engines.building.compiler import Compiled, compile_engine
from swise_engines.building.options import BuildOptions, choose_backend, plan_build, target_slug
from swise_engines.building.progress import BuildProgress, Report
from swise_engines.cuda.boundary import Device, GpuAtHand
from swise_engines.running.checks import admit_device
from swise_engines.running.engine_cache import BuildCache, cache_key
from swise_engines.running.read_back import read_back
from swise_engines.tensorrt.api import load_tensorrt, version_of
from swise_engines.tensorrt.manifest import (
    ENGINE_SUFFIXES,
    SCHEMA_VERSION,
    EngineManifest,
    write_manifest,
)
from swise_engines.tensorrt.onnx_source import EngineSource, read_source
from swise_engines.tensorrt.precision_table import PrecisionTable, check_precision
from swise_export.manifest import manifest_path


@dataclass(frozen=True, slots=True)
class Built:
    """An engine file, its manifest, and whether the cache had it."""

    path: Path
    manifest: EngineManifest
    was_cached: bool


def build_engine(
    onnx: Path,
    out: Path | None,
    options: BuildOptions,
    *,
    gpu: GpuAtHand,
    cache: BuildCache | None,
    report: Report,
    say: Callable[[str], None],
) -> Built:
    """Build an engine, or take it from the cache, and write it with its manifest.

    Args:
        onnx: The ONNX file.
        out: Where the engine goes; None is beside the ONNX file, named after it and the target.
        options: What is to be built.
        gpu: The GPU of this machine, or why there is none.
        cache: Where engines are kept; None keeps none.
        report: Called with the progress of the build.
        say: Called with what the user should know meanwhile.

    Raises:
        InputError: The file, the target and the options do not go together.
        BackendMissingError: A package or GPU that the build needs is not here, or the GPU at hand
            was asked for and is none that TensorRT runs engines on; nothing was written.
        BuildError: TensorRT cannot build it, or the precision is not what was asked for.
        OutputError: The engine cannot be written.
        KeyboardInterrupt: Ctrl-C; nothing was written.
    """
    source = read_source(onnx)
    backend = choose_backend(options, gpu.device)
    version = version_of(load_tensorrt(backend))
    settings = plan_build(source, options, backend, version, gpu.device)
    if settings.compatibility != options.compatibility:
        say(
            f"{backend} {version} is older than SM {settings.sm} and has no name for it: building "
            "a portable engine, as with --compatibility ampere_plus"
        )
    out = out or onnx.with_name(f"{onnx.stem}.{target_slug(options, settings)}.engine")
    if out.suffix.lower() not in ENGINE_SUFFIXES or out.is_dir():
        raise InputError(
            f"--output {out}: expected the name of a file ending in {', '.join(ENGINE_SUFFIXES)}"
        )
    if manifest_path(out) == manifest_path(onnx):
        raise InputError(
            f"{out} would put its manifest over that of {onnx}. Give another name with --output"
        )
    must_load = options.target is None
    if cache is None:
        say(f"building {out.name} with {backend} {version}")
        plan, manifest = _compile(source, settings, gpu, report, must_load=must_load)
        return Built(out, _write(out, plan, manifest), was_cached=False)
    key = cache_key(_facts(source, settings, version, gpu))
    with cache.locked(key, on_wait=lambda: say("another process builds the same; waiting for it")):
        found = cache.find(key)
        if found is None:
            say(f"building {out.name} with {backend} {version}")
            if backend == "tensorrt" and gpu.device is not None:
                timings = cache.timing_path(backend, version, gpu.device.name)
                settings = replace(settings, timing_cache=timings)
            plan, manifest = _compile(source, settings, gpu, report, must_load=must_load)
            _write(cache.engine_path(key), plan, manifest)
        else:
            say("the cache has this engine; nothing to build")
            plan, manifest = found[0].read_bytes(), found[1]
    manifest = replace(manifest, onnx_name=onnx.name)
    return Built(out, _write(out, plan, manifest), was_cached=found is not None)


def _facts(
    source: EngineSource, settings: CompileOptions, version: str, gpu: GpuAtHand
) -> Mapping[str, object]:
    facts = asdict(replace(settings, timing_cache=None))
    return {
        **facts,
        "profiles": [str(asdict(profile)) for profile in settings.profiles],
        "onnx_sha256": source.file.sha256,
        "swise_deploy": __version__,
        "tensorrt": version,
        # TensorRT times its kernels on it; for RTX it decides whether the engine is read back.
        "gpu": "" if gpu.device is None else gpu.device.name,
        "manifest_schema": SCHEMA_VERSION,
    }


def _compile(
    source: EngineSource,
    settings: CompileOptions,
    gpu: GpuAtHand,
    report: Report,
    *,
    must_load: bool,
) -> tuple[bytes, EngineManifest]:
    compiled = compile_engine(source, settings, BuildProgress(report))
    manifest = _describe(source, settings, compiled, gpu.device)
    table, note = _try_read_back(source, compiled, manifest, gpu, must_load=must_load)
    if table is not None:
        check_precision(settings.precision, table)
    return compiled.plan, replace(manifest, precision_read_back=table, read_back_note=note)


def _try_read_back(
    source: EngineSource,
    compiled: Compiled,
    manifest: EngineManifest,
    gpu: GpuAtHand,
    *,
    must_load: bool,
) -> tuple[PrecisionTable | None, str]:
    """Read it back where that works; an engine for this GPU that TensorRT will not run is no use.

    Raises:
        BackendMissingError: It has to run on the GPU at hand, and TensorRT serves no such GPU.
    """
    if gpu.cuda is None:
        return None, f"not read back: {gpu.reason}"
    try:
        admit_device(Path(manifest.onnx_name), manifest, gpu.cuda.device)
        table = read_back(
            load_tensorrt(manifest.backend),
            compiled.plan,
            source,
            manifest.profiles[0],
            gpu.cuda,
            dla_core=manifest.dla_core,
        )
    except BackendMissingError as error:
        if must_load:
            raise
        return None, f"not read back: {error}"
    except SwiseError as error:
        return None, f"not read back: {error}"
    return table, ""


def _describe(
    source: EngineSource, settings: CompileOptions, compiled: Compiled, device: Device | None
) -> EngineManifest:
    trt = load_tensorrt(settings.backend)
    is_portable = settings.compatibility == "ampere_plus"
    versions = {
        "swise-deploy": __version__,
        "polygraphy": installed_version("polygraphy") or "not installed as a package",
        "python": platform.python_version(),
    }
    if device is not None:
        versions["cuda_driver"] = device.driver_cuda
    return EngineManifest(
        engine_sha256="",
        engine_bytes=len(compiled.plan),
        onnx_name=source.path.name,
        onnx_sha256=source.file.sha256,
        model=source.file.network,
        interface=source.interface,
        precision_asked=settings.precision,
        precision_found=compiled.table,
        precision_read_back=None,
        read_back_note="",
        backend=settings.backend,
        backend_version=version_of(trt),
        sms=() if is_portable or settings.sm is None else (settings.sm,),
        gpu=device.name if device is not None and settings.backend == "tensorrt" else "",
        compatibility=settings.compatibility,
        version_compatible=settings.version_compatible,
        profiles=settings.profiles,
        workspace_mib=settings.workspace_mib,
        optimization_level=settings.optimization_level,
        dla_core=settings.dla_core,
        dla_fallback=compiled.dla_fallback,
        build_seconds=round(compiled.seconds, 3),
        drift=None,
        drift_note="not measured",
        source=dict(source.file.facts),
        versions=versions,
    )


def _write(out: Path, plan: bytes, manifest: EngineManifest) -> EngineManifest:
    with writing(out) as temporary:
        temporary.write_bytes(plan)
        manifest = replace(manifest, engine_sha256=sha256_of(temporary))
        # Between the two renames the older engine lies beside the newer manifest, and is refused.
        write_manifest(out, manifest)
    return manifest
