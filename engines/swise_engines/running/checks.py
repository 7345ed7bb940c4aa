"""Checks before an engine is loaded: an engine is code, and loading it runs that code."""

import hashlib
from pathlib import Path

from swise_deploy.command.dependencies import install_command
from swise_deploy.errors import BackendMissingError, InputError
from swise_engines.cuda.boundary import Device
from swise_engines.tensorrt.api import (
    is_installed,
    load_tensorrt,
    release_of,
    version_of,
    wheel_for,
)
from swise_engines.tensorrt.manifest import EngineManifest, read_manifest
from swise_engines.tensorrt.rtx_gpus import reason_unserved, rtx_capabilities
from swise_export.manifest import manifest_path

FIRST_PORTABLE_SM = (8, 0)


def check_file(path: Path, *, trust: bool = False) -> EngineManifest | None:
    """Check that an engine file is the one that its manifest describes; see `read_engine`."""
    return read_engine(path, trust=trust)[1]


def read_engine(path: Path, *, trust: bool = False) -> tuple[bytes, EngineManifest | None]:
    """Read an engine once, and check that it is the one that its manifest describes.

    Args:
        path: The engine.
        trust: Accept an engine without a manifest; the caller knows its origin.

    Returns:
        The content that was checked, and its manifest; None where there is none and `trust` was
        given.

    Raises:
        InputError: The file is missing, truncated or changed, or has no readable manifest.
    """
    if not path.is_file():
        raise InputError(f"no engine at {path}. Build one with swise-build FILE.onnx")
    manifest = read_manifest(path)
    if manifest is None and not trust:
        raise InputError(
            f"{path} has no manifest ({manifest_path(path).name} beside it), so its origin is "
            "unknown, and loading an engine runs its code. Build it with swise-build; if you "
            "built it yourself with another tool, load it with EngineRunner(path, trust=True)"
        )
    try:
        if manifest is not None:
            _check_size(path, path.stat().st_size, manifest)
        plan = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if manifest is not None:
        _check_content(path, plan, manifest)
    return plan, manifest


def _check_size(path: Path, size_bytes: int, manifest: EngineManifest) -> None:
    if size_bytes != manifest.engine_bytes:
        kind = "truncated" if size_bytes < manifest.engine_bytes else "changed"
        raise InputError(
            f"{path} is {kind}: {size_bytes} bytes, but its manifest states "
            f"{manifest.engine_bytes}. Copy it again, or build it again with swise-build"
        )


def _check_content(path: Path, plan: bytes, manifest: EngineManifest) -> None:
    found = hashlib.sha256(plan).hexdigest()
    if found != manifest.engine_sha256:
        raise InputError(
            f"{path} was changed after it was built: its SHA-256 is {found[:12]}..., its manifest "
            f"states {manifest.engine_sha256[:12]}.... Copy it again, or build it again with "
            "swise-build"
        )


def check_version(path: Path, manifest: EngineManifest, running: str) -> None:
    """Check that the installed TensorRT can load the engine.

    Args:
        path: The engine.
        manifest: Its manifest.
        running: Version of the installed TensorRT of `manifest.backend`.

    Raises:
        InputError: It was built by a version whose engines this one cannot load.
    """
    if manifest.backend_version == running:
        return
    if manifest.version_compatible and accepts_version(manifest.backend_version, running):
        return
    name = "TensorRT for RTX" if manifest.backend == "tensorrt_rtx" else "TensorRT"
    raise InputError(
        f"{path} was built by {name} {manifest.backend_version}; the installed {running} "
        f"cannot load it. {_build_command(manifest)}"
    )


def accepts_version(built: str, running: str) -> bool:
    """True if a version-compatible engine of one TensorRT runs on another.

    Forward within a major version, from 8 to 10 and from 10 to 11, but not from 8 to 11. (NVIDIA,
    TensorRT documentation, "Version compatibility".)
    """
    before, now = release_of(built), release_of(running)
    return now >= before and (before[0], now[0]) in {
        (8, 8),
        (8, 10),
        (10, 10),
        (10, 11),
        (11, 11),
    }


def check_device(path: Path, manifest: EngineManifest, device: Device) -> None:
    """Check that the engine was built for the GPU of this machine.

    Raises:
        InputError: It was built for another compute capability.
        BackendMissingError: TensorRT for RTX, which built it, runs nothing on this GPU.
    """
    here = release_of(device.sm)
    if not manifest.sms or manifest.compatibility == "ampere_plus":
        if here >= FIRST_PORTABLE_SM:
            _check_portable(path, manifest, device)
            return
        built_for = "SM 8.0 and later"
    elif device.sm in manifest.sms:
        return
    else:
        built_for = f"SM {', '.join(manifest.sms)}" + (f" ({manifest.gpu})" * bool(manifest.gpu))
    raise InputError(
        f"{path} was built for {built_for}, but this is a {device.name} of SM {device.sm}. "
        f"{_build_command(manifest)}"
    )


def _check_portable(path: Path, manifest: EngineManifest, device: Device) -> None:
    if manifest.backend != "tensorrt_rtx" or not is_installed("tensorrt_rtx"):
        return
    trt = load_tensorrt("tensorrt_rtx")
    reason = reason_unserved(version_of(trt), rtx_capabilities(trt), device.sm)
    if reason:
        raise BackendMissingError(
            f"{path} cannot run on this {device.name}: {reason}. TensorRT may serve it: "
            f"{install_command('tensorrt', beside=[wheel_for(device.driver_cuda)])}, then "
            f"swise-build {manifest.onnx_name} --backend tensorrt"
        )


def _build_command(manifest: EngineManifest) -> str:
    return f"Build it for this device: swise-build {manifest.onnx_name} --target current"
