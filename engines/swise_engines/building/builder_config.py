"""The settings of a build, in TensorRT's terms."""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.precision import FilePrecision
from swise_engines.building.progress import BuildProgress, monitor_from_progress
from swise_engines.targets.catalogue import Backend
from swise_engines.tensorrt.api import EXTRAS, Api, release_of, version_of
from swise_engines.tensorrt.manifest import Compatibility
from swise_engines.tensorrt.onnx_source import EngineSource
from swise_engines.tensorrt.profiles import Profile
from swise_engines.tensorrt.rtx_gpus import rtx_capabilities

MIB = 1 << 20

_SHARING = "PROFILE_SHARING_0806"
_COMPATIBILITY_IN_API = {"same_sm": "SAME_COMPUTE_CAPABILITY", "ampere_plus": "AMPERE_PLUS"}


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """The settings of a build for TensorRT.

    Attributes:
        backend: Which TensorRT.
        sm: Compute capability to build for; None is the GPU at hand.
        profiles: Sizes that the engine takes.
        precision: Precision that the network has to have; "" for any.
        workspace_mib: Limit for scratch memory; None is TensorRT's own.
        optimization_level: 0 to 5; None is TensorRT's own.
        dla_core: Deep-learning accelerator to run on; None is the GPU.
        compatibility: Which other GPUs may run the engine.
        version_compatible: Whether later versions of TensorRT may.
        timing_cache: Timings of kernels, read before and extended after; None for none.
    """

    backend: Backend
    sm: str | None
    profiles: tuple[Profile, ...]
    precision: FilePrecision | Literal[""] = ""
    workspace_mib: int | None = None
    optimization_level: int | None = None
    dla_core: int | None = None
    compatibility: Compatibility = "none"
    version_compatible: bool = False
    timing_cache: Path | None = None


def create_config(
    trt: ModuleType,
    builder: Api,
    network: Api,
    options: CompileOptions,
    *,
    source: EngineSource,
    progress: BuildProgress,
) -> Api:
    """Create TensorRT's builder configuration through polygraphy, which knows its versions.

    Raises:
        InputError: The installed TensorRT does not support the options.
    """
    polygraphy, config_class = _load_polygraphy(options.backend)
    port = source.interface.input
    profiles = [
        polygraphy.Profile().add(
            port.name, *(e.shape(port) for e in (profile.min, profile.opt, profile.max))
        )
        for profile in options.profiles
    ]
    settings: dict[str, object] = {
        "profiles": profiles,
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "builder_optimization_level": options.optimization_level,
    }
    monitor = monitor_from_progress(trt, progress)
    if monitor is not None:
        settings["progress_monitor"] = monitor
    if options.workspace_mib is not None:
        pool = trt.MemoryPoolType.WORKSPACE
        settings["memory_pool_limits"] = {pool: options.workspace_mib * MIB}
    if options.backend == "tensorrt_rtx":
        settings.update(_rtx_settings(trt, options))
        config = _call(config_class(**settings), builder, network)
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32; polygraphy clears it elsewhere
        return config
    settings["version_compatible"] = options.version_compatible or None
    if options.compatibility != "none":
        level = getattr(trt, "HardwareCompatibilityLevel", None)
        name = _COMPATIBILITY_IN_API[options.compatibility]
        if not hasattr(level, name):
            raise InputError(
                f"TensorRT {version_of(trt)} has no hardware compatibility {name}. Leave "
                "--compatibility out, or use a later one: 8.6 has AMPERE_PLUS, 10.16 both"
            )
        settings["hardware_compatibility_level"] = getattr(level, name)
    if options.timing_cache is not None and options.timing_cache.exists():
        settings["load_timing_cache"] = str(options.timing_cache)
    config = _call(config_class(**settings), builder, network)
    if release_of(version_of(trt)) < (10, 0) and hasattr(trt.PreviewFeature, _SHARING):
        # Later releases do this by default: contexts of several threads use one profile.
        config.set_preview_feature(getattr(trt.PreviewFeature, _SHARING), True)
    return config


def _call(create: Api, builder: Api, network: Api) -> Api:
    with warnings.catch_warnings():
        # polygraphy sets a timing cache, which TensorRT for RTX deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        return create(builder, network)


def _rtx_settings(trt: ModuleType, options: CompileOptions) -> Mapping[str, object]:
    if options.version_compatible or options.dla_core is not None:
        raise InputError(
            "TensorRT for RTX has neither version-compatible engines nor DLA. Leave "
            "--version-compatible and --dla-core out, or build with --backend tensorrt"
        )
    if options.compatibility == "ampere_plus":
        return {}  # no capability named: portable to SM 8.0 and later
    if options.sm is None:
        return {"use_gpu": True}
    known = rtx_capabilities(trt)
    if options.sm not in known:
        raise InputError(
            f"TensorRT for RTX {version_of(trt)} builds for SM {', '.join(known)}, not for "
            f"{options.sm}. Build on the device with --backend tensorrt, or portably with "
            "--compatibility ampere_plus"
        )
    major, minor = options.sm.split(".")
    return {"compute_capabilities": [(int(major), int(minor))]}


def _load_polygraphy(backend: Backend) -> tuple[Api, Api]:
    wants_rtx = backend == "tensorrt_rtx"
    extra, purpose = EXTRAS[backend], "building an engine"
    settings: Api = require("polygraphy.config", extra=extra, purpose=purpose)
    if "polygraphy.backend.trt" in sys.modules and wants_rtx != settings.USE_TENSORRT_RTX:
        raise InputError(
            f"this process has built with the other TensorRT; polygraphy supports one of them in a "
            f"process. Build with {backend} in a process of its own"
        )
    settings.USE_TENSORRT_RTX = wants_rtx
    log = require("polygraphy.logger", extra=extra, purpose=purpose).G_LOGGER
    log.use_python_logging_system = True
    log.colors = False
    loaders: Api = require("polygraphy.backend.trt", extra=extra, purpose=purpose)
    if not wants_rtx:
        return loaders, loaders.CreateConfig
    module: Api = require("polygraphy.backend.tensorrt_rtx", extra=extra, purpose=purpose)
    return loaders, module.CreateConfigRTX
