"""What could run a network on this machine: installed runtimes, and engines that lie beside it."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from swise_deploy.console import choose
from swise_deploy.errors import InputError
from swise_deploy.files import sha256_of
from swise_deploy.runner import Runner
from swise_engines.cuda import find_gpu
from swise_engines.engine_manifest import read_manifest
from swise_engines.machine import Machine, UnobservableError
from swise_engines.nvidia_smi import read_gpus

logger = logging.getLogger(__name__)

RunnerName = Literal["auto", "onnxruntime", "openvino"]
"""What runs an ONNX file: "auto" is the fastest of all that is installed."""

RUNNER_NAMES: tuple[RunnerName, ...] = ("auto", "onnxruntime", "openvino")
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that can run a network.

    Attributes:
        label: What it is, with everything that decides about its speed: version, device.
        runner: Its kind: "onnxruntime", "cuda" for ONNX Runtime's CUDA provider, "openvino" or
            "tensorrt".
        path: The file that it runs.
        open: Makes the runner, not yet activated.
    """

    label: str
    runner: str
    path: Path
    open: Callable[[], Runner]


def candidates_for(
    path: Path, runner: RunnerName = "auto", *, threads: int | None = None, form: str = ""
) -> list[Candidate]:
    """What can run an ONNX file here, ONNX Runtime's CPU first.

    Args:
        path: The file.
        runner: "auto" for all; else that runtime alone, on the best device that it has.
        threads: CPU threads; None leaves it to the runtime.
        form: Says which form of a network the file is, where several compete.

    Raises:
        InputError: There is no such runner.
    """
    choose(runner, RUNNER_NAMES, what="runner")
    if runner == "onnxruntime":
        return _onnxruntime_candidates(path, threads, form)[-1:]
    if runner == "openvino":
        return [_openvino_candidate(path, threads, form)]
    found = _onnxruntime_candidates(path, threads, form)
    if find_spec("openvino") is not None:
        found.append(_openvino_candidate(path, threads, form))
    return [*found, *_engine_candidates(path)]


def _onnxruntime_candidates(path: Path, threads: int | None, form: str) -> list[Candidate]:
    # ONNX Runtime takes a while to import.
    import onnxruntime

    from swise_export.onnx_runner import PROVIDERS, OnnxRunner

    # Those that need no building.
    providers = [
        provider
        for provider in ("cpu", "cuda")
        if PROVIDERS[provider] in onnxruntime.get_available_providers()
    ]
    gpu = f" on {_gpu_name()}" if "cuda" in providers else ""
    return [
        Candidate(
            f"onnxruntime {onnxruntime.__version__} {PROVIDERS[provider]}"
            f"{gpu if provider == 'cuda' else ''}{_suffix(form)}",
            "onnxruntime" if provider == "cpu" else provider,
            path,
            partial(OnnxRunner, path, provider=provider, threads=threads),
        )
        for provider in providers
    ]


def _openvino_candidate(path: Path, threads: int | None, form: str) -> Candidate:
    version = _version_of("openvino")
    return Candidate(
        f"openvino {version} CPU{_suffix(form)}",
        "openvino",
        path,
        partial(_open_openvino, path, threads),
    )


def _open_openvino(path: Path, threads: int | None) -> Runner:
    from swise_export.openvino_runner import OpenVinoRunner

    return OpenVinoRunner(path, threads=threads)


def _engine_candidates(path: Path) -> list[Candidate]:
    engines = _engines_beside(path)
    device = find_gpu().device if engines else None
    if device is None:
        for engine in engines:
            logger.info("%s is left out: no GPU that this process can use", engine.name)
        return []
    from swise_engines.engine_runner import EngineRunner

    return [
        Candidate(
            f"{engine.name} on {device.name}, driver for CUDA {device.driver_cuda}",
            "tensorrt",
            engine,
            partial(EngineRunner, engine),
        )
        for engine in engines
    ]


def _engines_beside(path: Path) -> list[Path]:
    """Engines whose manifest says that they were built from this very file."""
    beside = [e for suffix in ENGINE_SUFFIXES for e in path.parent.glob(f"{path.stem}*{suffix}")]
    digest = sha256_of(path) if beside else ""
    return sorted(engine for engine in beside if _source_of(engine) == digest)


def _source_of(engine: Path) -> str | None:
    try:
        manifest = read_manifest(engine)
    except InputError as error:
        logger.warning("%s is left out: %s", engine.name, error)
        return None
    return None if manifest is None else manifest.onnx_sha256


def _gpu_name() -> str:
    try:
        return read_gpus(Machine(Path("/"), os.environ.get("PATH", os.defpath)))[0].name
    except UnobservableError as error:
        return f"a GPU that is not named ({error})"


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _suffix(form: str) -> str:
    return f", {form} form" if form else ""
