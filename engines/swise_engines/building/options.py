"""The options of a build, checked against the target, the installed TensorRT and the GPU."""

from dataclasses import dataclass
from typing import Literal

from swise_deploy.command.dependencies import install_command
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.precision import PRECISIONS, FilePrecision
from swise_engines.building.builder_config import CompileOptions
from swise_engines.cuda.boundary import Device
from swise_engines.targets.catalogue import Backend, Target, precisions_of_sm
from swise_engines.tensorrt.api import is_installed, load_tensorrt, wheel_for
from swise_engines.tensorrt.manifest import Compatibility
from swise_engines.tensorrt.onnx_source import EngineSource, check_profile, fit_profile
from swise_engines.tensorrt.profiles import Profile, default_profile
from swise_engines.tensorrt.rtx_gpus import is_newer, reason_unserved, rtx_capabilities

_OUR_JETPACK = 6  # the first one with Python 3.10
_MOST_DLA_CORES = 2  # of any Jetson; the builder refuses one that is not there


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """The options of a build.

    Attributes:
        target: The device; None is the GPU at hand.
        backend: Which TensorRT; None takes the target's first that is installed.
        profiles: Sizes that the engine takes; none takes the defaults for the scale.
        max_batch: Most pictures at once, for the default profile.
        precision: Required precision; "" requires what the ONNX file states.
        workspace_mib: Limit for scratch memory while building.
        optimization_level: 0 to 5.
        dla_core: Deep-learning accelerator to run on.
        compatibility: Which other GPUs may run the engine.
        version_compatible: Whether later versions of TensorRT may.
    """

    target: Target | None
    backend: Backend | None = None
    profiles: tuple[Profile, ...] = ()
    max_batch: int = 1
    precision: FilePrecision | Literal[""] = ""
    workspace_mib: int | None = None
    optimization_level: int | None = None
    dla_core: int | None = None
    compatibility: Compatibility = "none"
    version_compatible: bool = False


def choose_backend(options: BuildOptions, device: Device | None) -> Backend:
    """The TensorRT to build with: the requested one, or the target's first that can build here.

    Raises:
        InputError: The target has no such backend.
        BackendMissingError: None of them is installed, or the target is the GPU at hand and this
            machine has none.
    """
    if options.target is None and device is None:
        raise BackendMissingError(
            "--target current needs a GPU, and there is none here. Name the device that the engine "
            "is for; swise-build --list names them"
        )
    known: tuple[Backend, ...] = ("tensorrt", "tensorrt_rtx")
    if options.target is not None:
        known = options.target.backends
    if options.backend is not None:
        if options.backend not in known:
            raise InputError(
                f"--backend {options.backend}: {title_of(options)} is served by {', '.join(known)}"
            )
        return options.backend
    if device is None and known == ("tensorrt",):
        raise _not_on_device(options)
    # Where none can, the error of the preferred one names what is missing.
    chosen = next((b for b in known if _can_build(b, options, device)), known[0])
    load_tensorrt(chosen)
    return chosen


def _can_build(backend: Backend, options: BuildOptions, device: Device | None) -> bool:
    if not is_installed(backend):
        return False
    target = options.target
    on_device = device is not None and (target is None or target.sm == device.sm)
    return backend == "tensorrt_rtx" or on_device


def plan_build(
    source: EngineSource,
    options: BuildOptions,
    backend: Backend,
    version: str,
    device: Device | None,
) -> CompileOptions:
    """Check that source, target, TensorRT and GPU fit together; returns the settings of the build.

    Raises:
        InputError: They do not fit together.
        BackendMissingError: The target's engines are built on the target, and this machine is not
            it; or the target is the GPU at hand, and this TensorRT does not serve it.
    """
    target = options.target
    if backend == "tensorrt":
        _check_on_device(options, version, device)
    elif target is None and device is not None:
        _check_served(version, device)
    num_dla_cores = _MOST_DLA_CORES if target is None else target.dla_cores
    if options.dla_core is not None and options.dla_core >= num_dla_cores:
        raise InputError(
            f"--dla-core {options.dla_core}: {title_of(options)} has {num_dla_cores} of them, "
            "counted from 0"
        )
    profiles = options.profiles
    if not profiles:
        usual = default_profile(source.file.scale, max_batch=options.max_batch)
        profiles = (fit_profile(source.interface, usual),)
    for profile in profiles:
        check_profile(source.interface, profile, source.path)
        if options.dla_core is not None and not profile.is_fixed:
            raise InputError(
                f"--dla-core {options.dla_core}: an accelerator takes one size and batch, but the "
                f"profile is {profile}. Give one with --size WxH"
            )
    sm = target.sm if target is not None else (device.sm if device is not None else None)
    compatibility = _compatibility(options, backend, sm)
    _check_precisions(source, options, backend, "8.0" if compatibility == "ampere_plus" else sm)
    return CompileOptions(
        backend=backend,
        sm=sm,
        profiles=profiles,
        precision=options.precision or source.file.precision,
        workspace_mib=options.workspace_mib,
        optimization_level=options.optimization_level,
        dla_core=options.dla_core,
        compatibility=compatibility,
        version_compatible=options.version_compatible,
    )


def _check_precisions(
    source: EngineSource, options: BuildOptions, backend: Backend, sm: str | None
) -> None:
    """Refuse a file whose layers compute in what the target has no hardware or kernels for."""
    supported = () if sm is None else precisions_of_sm(backend, sm)
    needed = {layer.precision for layer in source.counts.layers if layer.mult_adds}
    lacking = sorted(needed & set(PRECISIONS) - set(supported)) if supported else []
    if lacking:
        raise InputError(
            f"{source.path} computes in {', '.join(lacking)}, which {backend} does not have on SM "
            f"{sm} ({title_of(options)}); it has {', '.join(supported)}. Export with --fp16 for "
            "this device, or build for another one"
        )


def _compatibility(options: BuildOptions, backend: Backend, sm: str | None) -> Compatibility:
    """The requested one; portable where the GPU at hand is newer than all that RTX names."""
    is_free = options.target is None and options.compatibility == "none"
    if backend != "tensorrt_rtx" or not is_free or sm is None:
        return options.compatibility
    return "ampere_plus" if is_newer(rtx_capabilities(load_tensorrt(backend)), sm) else "none"


def _check_served(version: str, device: Device) -> None:
    """Refuse a GPU for which TensorRT for RTX builds, but on which it loads nothing."""
    capabilities = rtx_capabilities(load_tensorrt("tensorrt_rtx"))
    reason = reason_unserved(version, capabilities, device.sm)
    if reason:
        raise BackendMissingError(
            f"{reason}; this machine has {device.name}. TensorRT may serve it: "
            f"{install_command('tensorrt', beside=[wheel_for(device.driver_cuda)])}, then "
            "swise-build --backend tensorrt. To build for another device, name it, such as "
            "--target sm86"
        )


def _check_on_device(options: BuildOptions, version: str, device: Device | None) -> None:
    target = options.target
    if device is None:
        raise _not_on_device(options)
    if target is not None and target.sm != device.sm:
        raise InputError(
            f"{target.title} has SM {target.sm}, this machine has a {device.name} of SM "
            f"{device.sm}, and TensorRT builds for the GPU that it runs on. Build on the device, "
            "or for this one with --target current"
        )
    if target is not None and not target.served_by(version):
        raise InputError(
            f"TensorRT {version} does not serve {target.title}; "
            f"{', '.join(target.tensorrt_versions)} do"
        )


def _not_on_device(options: BuildOptions) -> BackendMissingError:
    target = options.target
    if target is not None and target.jetpacks and max(map(_major, target.jetpacks)) < _OUR_JETPACK:
        return BackendMissingError(
            f"TensorRT builds on the device itself, and {target.title} has no Python for this "
            "package. Write a folder that NVIDIA's trtexec builds there: "
            f"swise-build FILE.onnx --trtexec --target {target.name}"
        )
    return BackendMissingError(
        f"TensorRT builds on the device itself, where it times its kernels: run swise-build on "
        f"{title_of(options)}. Engines for RTX cards build anywhere with --backend tensorrt_rtx"
    )


def _major(jetpack: str) -> int:
    return int(jetpack.partition(".")[0])


def target_slug(options: BuildOptions, settings: CompileOptions) -> str:
    """The part of an engine's file name for its target, such as "sm86" or "jetson-orin-nano"."""
    if settings.compatibility == "ampere_plus":
        return "portable"
    if options.target is not None:
        return options.target.name
    return f"sm{(settings.sm or '').replace('.', '')}"


def title_of(options: BuildOptions) -> str:
    """The title of the target."""
    return "the GPU at hand" if options.target is None else options.target.title
