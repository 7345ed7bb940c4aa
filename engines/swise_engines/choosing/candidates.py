"""Runtimes of this machine that can run a network, and engines beside its file."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from swise_deploy.command.console import choose
from swise_deploy.command.dependencies import install_command
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.runner import Runner
from swise_engines.tensorrt.manifest import ENGINE_SUFFIXES, read_manifest
from swise_export.graph.loading import sha256_of_onnx
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.manifest import read_manifest as read_export_manifest
from swise_export.runtimes.table import (
    RUNTIMES,
    is_installed,
    load_runtime,
    open_runner,
    runner_choices,
    runtimes_for,
)

logger = logging.getLogger(__name__)

RunnerName = str
"""Key of the runtimes table for ONNX files, or "auto" for the fastest installed one."""

_ENGINE_RUNTIME = "tensorrt"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to run a network.

    Attributes:
        label: Runtime, version, device and form: everything that determines its speed.
        runtime: Key of the runtimes table.
        path: The file that it runs.
        open: Creates the runner, not yet activated.
        form: Form of the network; "" where only one competes.
    """

    label: str
    runtime: str
    path: Path
    open: Callable[[], Runner]
    form: str = ""


def candidates_for(
    path: Path,
    runner: RunnerName = "auto",
    *,
    threads: int | None = None,
    form: str = "",
    within_budget: bool = False,
) -> list[Candidate]:
    """Find the runtimes that can run an ONNX file here; the first one is the reference.

    Args:
        path: The file.
        runner: "auto" for all runtimes; else the key of one in the runtimes table.
        threads: CPU threads; None for the runtime's default.
        form: Form of the network in the file; "" where only one competes.
        within_budget: Also take runtimes that compute in a lower precision than the file states,
            and files of a lower precision beside it.

    Raises:
        InputError: The runner does not exist.
        BackendMissingError: The requested runner cannot run here, or no runtime is installed.
    """
    choose(runner, runner_choices(), what="runner")
    if runner != "auto":
        if reason := load_runtime(runner).unusable_reason():
            raise BackendMissingError(
                f"{RUNTIMES[runner].title} cannot run here: {reason}. Use --runner auto"
            )
        return [_candidate(runner, path, threads, form)]
    found = []
    for name, runtime in runtimes_for("onnx").items():
        considered = runtime.is_automatic or (within_budget and runtime.is_lossy)
        if not considered or (form and runtime.forms and form not in runtime.forms):
            continue
        reason = "not installed" if not is_installed(runtime) else _unusable_reason(name)
        if reason:
            logger.debug("%s is not considered: %s", runtime.title, reason)
        else:
            found.append(_candidate(name, path, threads, form))
    if not found:
        raise BackendMissingError(
            f"no runtime for {path} is installed. Install ONNX Runtime: {install_command('cpu')}"
        )
    lower = _lower_candidates(path, threads) if within_budget else []
    return [*found, *lower, *_engine_candidates(path)]


def _lower_candidates(path: Path, threads: int | None) -> list[Candidate]:
    """INT8 exports of the same weights beside a file, in the runtimes that they were made for."""
    file = read_onnx_file(path)
    found = []
    for other in sorted(path.parent.glob("*.onnx")):
        try:
            manifest = read_export_manifest(other)
        except InputError:
            continue
        facts = (manifest.model, manifest.weights_sha256, str(manifest.scale), manifest.io)
        ours = tuple(file.facts.get(key) for key in ("model", "weights_sha256", "scale", "io"))
        runtime = RUNTIMES.get(manifest.runtime)
        if other == path or manifest.int8 is None or facts != ours or runtime is None:
            continue
        if runtime.takes == "onnx" and is_installed(runtime):
            candidate = _candidate(manifest.runtime, other, threads, "")
            found.append(replace(candidate, label=f"{other.name} in {candidate.label}"))
    return found


def _unusable_reason(name: str) -> str:
    try:
        return load_runtime(name).unusable_reason()
    except BackendMissingError as error:
        return str(error)


def _candidate(name: str, path: Path, threads: int | None, form: str) -> Candidate:
    label = load_runtime(name).describe() + (f", {form} form" if form else "")
    return Candidate(label, name, path, partial(open_runner, name, path, threads=threads), form)


def _engine_candidates(path: Path) -> list[Candidate]:
    engines = _engines_beside(path)
    if not engines:
        return []
    runtime = load_runtime(_ENGINE_RUNTIME)
    if reason := runtime.unusable_reason():
        for engine in engines:
            logger.info("%s is not considered: %s", engine.name, reason)
        return []
    return [
        Candidate(
            f"{engine.name} on {runtime.describe()}",
            _ENGINE_RUNTIME,
            engine,
            partial(open_runner, _ENGINE_RUNTIME, engine),
        )
        for engine in engines
    ]


def _engines_beside(path: Path) -> list[Path]:
    """Engines whose manifest states that they were built from this very file."""
    beside = [e for suffix in ENGINE_SUFFIXES for e in path.parent.glob(f"{path.stem}*{suffix}")]
    digest = sha256_of_onnx(path) if beside else ""
    return sorted(engine for engine in beside if _source_of(engine) == digest)


def _source_of(engine: Path) -> str | None:
    try:
        manifest = read_manifest(engine)
    except InputError as error:
        logger.warning("%s is not considered: %s", engine.name, error)
        return None
    return None if manifest is None else manifest.onnx_sha256
