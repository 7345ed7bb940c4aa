"""From an ONNX file to an engine with its manifest, by way of the cache."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swise_deploy import __version__
from swise_deploy.checkpoints.shipped import is_shipped
from swise_deploy.command.dependencies import installed_version
from swise_deploy.errors import BackendMissingError, BuildError, InputError, SwiseError
from swise_deploy.storage.documents import document_from_value
from swise_engines.building.builder_config import CompileOptions
from swise_engines.building.compiler import Compiled, compile_engine
from swise_engines.building.options import BuildOptions, choose_backend, plan_build, target_slug
from swise_engines.building.progress import BuildProgress, Report
from swise_engines.cuda.boundary import Device, GpuAtHand
from swise_engines.running.checks import check_device
from swise_engines.running.engine_cache import EngineCache, cache_key, write_engine
from swise_engines.running.read_back import read_back
from swise_engines.tensorrt.api import load_tensorrt, version_of
from swise_engines.tensorrt.manifest import (
    ENGINE_SUFFIXES,
    SCHEMA_VERSION,
    EngineManifest,
)
from swise_engines.tensorrt.onnx_source import EngineSource, read_source
from swise_engines.tensorrt.precision_table import PrecisionTable, check_precision
from swise_export.interface.onnx_file import read_onnx_file
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
    cache: EngineCache | None,
    report: Report,
    notify: Callable[[str], None],
) -> Built:
    """Build an engine, or take it from the cache, and write it with its manifest.

    Args:
        onnx: The ONNX file.
        out: Where the engine goes; None is beside the ONNX file, or in the working folder for a
            file of the package, named after it and the target.
        options: What to build.
        gpu: The GPU of this machine, or why there is none.
        cache: Cache of engines; None for none. Where it cannot be used, a warning is logged.
        report: Called with the progress of the build.
        notify: Called with messages for the user.

    Raises:
        InputError: The file, the target and the options do not go together.
        BackendMissingError: A package or GPU that the build needs is missing, or the engine is for
            the GPU at hand and TensorRT runs no engines on it; nothing was written.
        BuildError: TensorRT cannot build it, or its precision is not the requested one.
        OutputError: The engine cannot be written.
        KeyboardInterrupt: Ctrl-C; nothing was written.
    """
    source = read_source(onnx)
    backend = choose_backend(options, gpu.device)
    version = version_of(load_tensorrt(backend))
    settings = plan_build(source, options, backend, version, gpu.device)
    if settings.compatibility != options.compatibility:
        notify(
            f"{backend} {version} is older than SM {settings.sm} and has no name for it: building "
            "a portable engine, as with --compatibility ampere_plus"
        )
    out = _choose_output(onnx, out, options, settings)
    must_load = options.target is None

    def compile_now(settings: CompileOptions) -> tuple[bytes, EngineManifest]:
        notify(f"building {out.name} with {backend} {version}")
        return _compile(source, settings, gpu, report, must_load=must_load)

    if cache is None:
        plan, manifest = compile_now(settings)
        return Built(out, write_engine(out, plan, manifest), was_cached=False)
    request = _describe_request(source, settings, version, gpu.device)
    key = cache_key(_facts(settings, request, gpu))
    waits = "another process is building the same engine; waiting for it"
    with cache.locked(key, on_wait=lambda: notify(waits)) as is_usable:
        found = cache.find(key, request) if is_usable else None
        if found is not None:
            notify("the cache has this engine; nothing to build")
            plan, manifest = found
        else:
            if is_usable and backend == "tensorrt" and gpu.device is not None:
                timings = cache.timing_path(backend, version, gpu.device.name)
                settings = replace(settings, timing_cache=timings)
            plan, manifest = compile_now(settings)
            if is_usable:
                cache.keep(key, plan, manifest)
    manifest = replace(manifest, onnx_name=onnx.name)
    return Built(out, write_engine(out, plan, manifest), was_cached=found is not None)


def _choose_output(
    onnx: Path, out: Path | None, options: BuildOptions, settings: CompileOptions
) -> Path:
    out = (
        out
        or (Path() if is_shipped(onnx) else onnx.parent)
        / f"{onnx.stem}.{target_slug(options, settings)}.engine"
    )
    if out.suffix.lower() not in ENGINE_SUFFIXES or out.is_dir():
        raise InputError(
            f"--output {out}: expected the name of a file ending in {', '.join(ENGINE_SUFFIXES)}"
        )
    if manifest_path(out) == manifest_path(onnx):
        raise InputError(
            f"{out} would put its manifest over that of {onnx}. Give another name with --output"
        )
    return out


def _facts(
    settings: CompileOptions, request: Mapping[str, object], gpu: GpuAtHand
) -> Mapping[str, object]:
    """Everything that a build depends on, as JSON types."""
    return {
        **document_from_value(replace(settings, timing_cache=None)),
        "onnx_sha256": request["onnx_sha256"],
        "swise_deploy": __version__,
        "tensorrt": request["backend_version"],
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
    if read_onnx_file(source.path).sha256 != source.file.sha256:
        raise BuildError(f"{source.path} was changed during the build. Build it again")
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
    """Read the precision of an engine where it loads; the text is the reason where it does not.

    Raises:
        BackendMissingError: The engine is for the GPU at hand, and TensorRT does not serve it.
    """
    if gpu.cuda is None:
        return None, f"not read back: {gpu.reason}"
    try:
        check_device(Path(manifest.onnx_name), manifest, gpu.cuda.device)
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


def _describe_request(
    source: EngineSource, settings: CompileOptions, version: str, device: Device | None
) -> Mapping[str, object]:
    """Attributes of the manifest that are known before the build; a cached engine has to match."""
    is_portable = settings.compatibility == "ampere_plus"
    return {
        "onnx_sha256": source.file.sha256,
        "interface": source.interface,
        "precision_asked": settings.precision,
        "backend": settings.backend,
        "backend_version": version,
        "sms": () if is_portable or settings.sm is None else (settings.sm,),
        "gpu": device.name if device is not None and settings.backend == "tensorrt" else "",
        "compatibility": settings.compatibility,
        "version_compatible": settings.version_compatible,
        "profiles": settings.profiles,
        "workspace_mib": settings.workspace_mib,
        "optimization_level": settings.optimization_level,
        "dla_core": settings.dla_core,
    }


def _describe(
    source: EngineSource, settings: CompileOptions, compiled: Compiled, device: Device | None
) -> EngineManifest:
    version = version_of(load_tensorrt(settings.backend))
    versions = {
        "swise-deploy": __version__,
        "polygraphy": installed_version("polygraphy") or "not installed as a package",
        "python": platform.python_version(),
    }
    if device is not None:
        versions["cuda_driver"] = device.driver_cuda
    request: Mapping[str, Any] = _describe_request(source, settings, version, device)
    return EngineManifest(
        engine_sha256="",
        engine_bytes=len(compiled.plan),
        onnx_name=source.path.name,
        model=source.file.network,
        precision_found=compiled.table,
        precision_compiled=compiled.compiled,
        stores=compiled.stores,
        precision_read_back=None,
        read_back_note="",
        dla_fallback=compiled.dla_fallback,
        build_seconds=round(compiled.seconds, 3),
        drift=None,
        drift_note="not measured",
        source=dict(source.file.facts),
        versions=versions,
        **request,
    )
