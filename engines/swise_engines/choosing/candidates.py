"""What could run a network on this machine: installed runtimes, and engines that lie beside it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

from swise_deploy.command.console import choose
from swise_deploy.command.dependencies import installed_version
from swise_deploy.errors import InputError
from swise_deploy.runner import Runner
from swise_deploy.storage.files import sha256_of
from swise_engines.cuda.boundary import find_gpu
from swise_engines.doctor.probe import probe_cuda
from swise_engines.tensorrt.manifest import ENGINE_SUFFIXES, read_manifest

logger = logging.getLogger(__name__)

RunnerName = Literal["auto", "onnxruntime", "openvino"]
"""What runs an ONNX file: "auto" is the fastest of all that is installed."""

RUNNER_NAMES: tuple[RunnerName, ...] = ("auto", "onnxruntime", "openvino")


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

    from swise_export.runtimes.onnxruntime import PROVIDERS, OnnxRunner

    available = onnxruntime.get_available_providers()
    # Those that need no building. CUDA's is in the package also where there is no GPU for it.
    gpu_name = _visible_gpu() if PROVIDERS["cuda"] in available else ""
    providers = ["cpu", *(["cuda"] if gpu_name else [])]
    return [
        Candidate(
            f"onnxruntime {onnxruntime.__version__} {PROVIDERS[provider]}"
            f"{f' on {gpu_name}' if provider == 'cuda' else ''}{_suffix(form)}",
            "onnxruntime" if provider == "cpu" else provider,
            path,
            partial(OnnxRunner, path, provider=provider, threads=threads),
        )
        for provider in providers
    ]


def _openvino_candidate(path: Path, threads: int | None, form: str) -> Candidate:
    version = installed_version("openvino") or "of unknown version"
    return Candidate(
        f"openvino {version} CPU{_suffix(form)}",
        "openvino",
        path,
        partial(_open_openvino, path, threads),
    )


def _open_openvino(path: Path, threads: int | None) -> Runner:
    from swise_export.runtimes.openvino import OpenVinoRunner

    return OpenVinoRunner(path, threads=threads)


def _engine_candidates(path: Path) -> list[Candidate]:
    engines = _engines_beside(path)
    device = find_gpu().device if engines else None
    if device is None:
        for engine in engines:
            logger.info("%s is left out: no GPU that this process can use", engine.name)
        return []
    from swise_engines.running.runner import EngineRunner

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


def _visible_gpu() -> str:
    """Name of the first GPU that CUDA shows to this process; "" if it shows none."""
    try:
        devices = cast("list[dict[str, object]]", probe_cuda()["devices"])
    except OSError as error:
        logger.info("CUDA's provider is left out: %s", error)
        return ""
    return str(devices[0]["name"]) if devices else ""


def _suffix(form: str) -> str:
    return f", {form} form" if form else ""
