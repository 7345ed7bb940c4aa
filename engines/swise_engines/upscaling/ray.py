"""Pictures over a Ray cluster: a model for each worker, lost workers' files done again.

Files travel as bytes and the model with them, so that workers need neither a shared file system nor
the model, only this package.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError, SwiseError
from swise_deploy.pictures.formats import format_of
from swise_deploy.storage.files import scratch
from swise_engines.choosing.candidates import RunnerName
from swise_engines.tensorrt.manifest import ENGINE_SUFFIXES
from swise_engines.upscaling.batch import read_file, write_file
from swise_engines.upscaling.jobs import Job
from swise_engines.upscaling.pipeline import Outcome
from swise_engines.upscaling.stills import upscale_bytes
from swise_engines.upscaling.tiles.budget import DEFAULT_MEMORY_MIB
from swise_engines.upscaling.upscaler import Upscaler
from swise_export.manifest import manifest_path

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 3
_JOBS_PER_WORKER = 2  # one is worked on while the next one travels


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Cluster and workers.

    Attributes:
        address: Of the cluster, or "local" for one on this machine.
        threads: CPUs for each worker.
        num_workers: None takes as many as the cluster has CPUs for; GPUs, for an engine.
        runner: What runs an ONNX file. "auto" is ONNX Runtime here: workers that measured for
            themselves could choose differently, and results would not be the same everywhere.
    """

    address: str
    threads: int = 2
    num_workers: int | None = None
    runner: RunnerName = "auto"

    def runner_for(self, artefact: Path) -> RunnerName:
        """The runner that workers pass to `Upscaler.open`."""
        return "onnxruntime" if self.runner == "auto" and not _is_engine(artefact) else self.runner

    def share_out(self, artefact: Path, resources: Mapping[str, float]) -> tuple[int, float]:
        """Number of workers for a cluster, and the share of a GPU for each.

        Ray hides the GPUs from a worker that asks for none.

        Raises:
            InputError: An engine, and the cluster offers no GPU.
        """
        if not _is_engine(artefact):
            num_cpus = int(resources.get("CPU", 1))
            return self.num_workers or max(1, num_cpus // self.threads), 0.0
        num_gpus = int(resources.get("GPU", 0))
        if num_gpus < 1:
            raise InputError(
                f"{artefact} is an engine, and the Ray cluster at {self.address} offers no GPU. "
                "Give an ONNX file, or start Ray where it finds the GPUs (ray start --num-gpus N)"
            )
        num_workers = self.num_workers or num_gpus
        return num_workers, 1 / math.ceil(num_workers / num_gpus)


def _is_engine(artefact: Path) -> bool:
    return artefact.suffix.lower() in ENGINE_SUFFIXES


@dataclass(slots=True)
class _Attempt:
    """A job in the hands of a worker."""

    job: Job
    index: int
    worker: Any
    number: int


class _Worker:
    """The process of a worker."""

    def __init__(
        self,
        files: dict[str, bytes],
        artefact: str,
        runner: RunnerName,
        tile: int | None,
        threads: int,
    ) -> None:
        with scratch() as folder:
            for name, data in files.items():
                (folder / name).write_bytes(data)
            path = folder / artefact
            # Workers share a machine, so that none may take half of what is free.
            memory_mib = DEFAULT_MEMORY_MIB if tile is None else None
            self._upscaler = Upscaler.open(
                path, runner=runner, tile=tile, memory_mib=memory_mib, threads=threads
            )

    def upscale(self, data: bytes, suffix: str, quality: int | None) -> bytes | str:
        """Return the upscaled file, or the reason why there is none."""
        try:
            return upscale_bytes(self._upscaler, data, format_of(suffix), quality=quality)
        except SwiseError as error:
            return str(error)


def upscale_on_ray(
    artefact: Path,
    jobs: Iterable[Job],
    *,
    settings: RaySettings,
    tile: int | None = None,
    quality: int | None = None,
) -> Iterator[Outcome[Job]]:
    """Upscale picture files on a Ray cluster.

    Args:
        artefact: An ONNX file or an engine; its manifest beside it goes along.
        jobs: Files of this machine.
        settings: Where, and with how many workers.
        tile: Side of the tiles; None as in `Upscaler.open`.
        quality: For jpg and webp.

    Yields:
        What became of each job, in the order in which they end. A job whose worker died is given to
        another one, up to three times.

    Raises:
        BackendMissingError: Ray is not installed.
        InputError: There is no cluster at the address, or an engine has no GPU there.
    """
    ray = require("ray", extra="ray", purpose="spreading pictures over a cluster")
    with _Cluster(ray, settings.address):
        num_workers, num_gpus = settings.share_out(artefact, ray.cluster_resources())
        files = ray.put(_files_of(artefact))
        actor = ray.remote(_Worker).options(num_cpus=settings.threads, num_gpus=num_gpus)

        def start() -> Any:  # an actor handle, which has no type
            runner = settings.runner_for(artefact)
            return actor.remote(files, artefact.name, runner, tile, settings.threads)

        yield from _spread(ray, start, num_workers, jobs, quality=quality)


class _Cluster:
    """A connection that is closed only by whom it was opened."""

    def __init__(self, ray: ModuleType, address: str) -> None:
        self._ray = ray
        self._address = address
        self._opened = False

    def __enter__(self) -> None:
        if self._ray.is_initialized():
            return
        try:
            # "local" always starts a new cluster; other addresses are joined.
            self._ray.init(
                address=self._address,
                log_to_driver=False,
                include_dashboard=False if self._address == "local" else None,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"no Ray cluster at {self._address}: {error}. Start one with: ray start --head"
            ) from error
        self._opened = True

    def __exit__(self, *_: object) -> None:
        if self._opened:
            self._ray.shutdown()


def _files_of(artefact: Path) -> dict[str, bytes]:
    sidecar = manifest_path(artefact)
    paths = [artefact, sidecar] if sidecar.is_file() else [artefact]
    return {path.name: read_file(path) for path in paths}


def _spread(
    ray: ModuleType,
    start: Callable[[], Any],
    num_workers: int,
    jobs: Iterable[Job],
    *,
    quality: int | None,
) -> Iterator[Outcome[Job]]:
    workers = [start() for _ in range(num_workers)]
    free = deque(index for index in range(num_workers) for _ in range(_JOBS_PER_WORKER))
    waiting = iter(jobs)
    again: deque[tuple[Job, int]] = deque()
    running: dict[Any, _Attempt] = {}
    num_lost_in_a_row = 0
    while True:
        while free:
            job, number = again.popleft() if again else (next(waiting, None), 1)
            if job is None:
                break
            try:
                data = read_file(job.source)
            except SwiseError as error:
                yield Outcome(job, error)
                continue
            index = free.popleft()
            worker = workers[index]
            reference = worker.upscale.remote(data, job.target.suffix, quality)
            running[reference] = _Attempt(job, index, worker, number)
        if not running:
            return
        (reference,), _ = ray.wait(list(running), num_returns=1)
        attempt = running.pop(reference)
        free.append(attempt.index)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            num_lost_in_a_row += 1
            if num_lost_in_a_row > _MAX_ATTEMPTS * _JOBS_PER_WORKER * num_workers:
                raise SwiseError(f"workers die before they finish anything: {reason}") from error
            if workers[attempt.index] is attempt.worker:
                workers[attempt.index] = start()
            if attempt.number < _MAX_ATTEMPTS:
                logger.warning("%s is done again: its worker was lost", attempt.job.source)
                again.append((attempt.job, attempt.number + 1))
            else:
                lost = SwiseError(f"lost with its worker {_MAX_ATTEMPTS} times: {reason}")
                yield Outcome(attempt.job, lost)
            continue
        num_lost_in_a_row = 0
        yield _written(attempt.job, result)


def _written(job: Job, result: bytes | str) -> Outcome[Job]:
    if isinstance(result, str):
        return Outcome(job, InputError(result))
    try:
        write_file(job.target, result)
    except SwiseError as error:
        return Outcome(job, error)
    return Outcome(job)
