"""A whole benchmark run: subjects in, a `Benchmark` out."""

import datetime
import shlex
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from swise_bench.measuring.energy import measure_energy
from swise_bench.measuring.latency import compare_latencies, measure_latency, open_all
from swise_bench.measuring.layers import profile_layers
from swise_bench.measuring.memory import measure_memory
from swise_bench.measuring.quality import result_from_scores, score_pictures
from swise_bench.results.document import (
    Benchmark,
    Cost,
    Energy,
    Latency,
    LayerTime,
    Memory,
    NotMeasured,
    QualityResult,
    SubjectResult,
)
from swise_bench.results.host import QuietnessWatch, describe_host
from swise_bench.subjects.spec import (
    DEFAULT_RUNTIME,
    Subject,
    file_subject,
    load_network,
    onnx_path,
    open_subject,
)
from swise_deploy.command.console import progress, size_text
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.pictures.folders import find_images
from swise_deploy.runner import Runner, upscale
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import sha256_of
from swise_engines.tensorrt.manifest import read_manifest
from swise_export.graph.counting import (
    NTIRE_LR_SIZE,
    Counts,
    count_onnx,
    lr_size_for_hr,
)
from swise_export.graph.model import read_onnx_file
from swise_export.runtimes.table import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swise_deploy.evaluation.metrics import Quality


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure.

    Attributes:
        subjects: What to measure, the first one being the reference of the ratios.
        lr_sizes: Input sizes of the latency, (W, H).
        batches: Pictures per call.
        threads: Threads of every runtime on the CPU.
        min_runs: Rounds to make if time allows.
        max_seconds: Time of the counted rounds for each subject, size and batch.
        images: Folders of ground truth; none leaves quality out.
        with_memory: Whether memory is measured, in a process of its own.
        with_energy: Whether energy is measured.
        energy_seconds: How long each rests, and then works, for it.
        with_layers: Whether layers are timed.
        cache: Folder for scores and exported files.
    """

    subjects: tuple[Subject, ...]
    lr_sizes: tuple[tuple[int, int], ...] = ((160, 90),)
    batches: tuple[int, ...] = (1,)
    threads: int = 1
    min_runs: int = 20
    max_seconds: float = 10.0
    images: tuple[Path, ...] = ()
    with_memory: bool = False
    with_energy: bool = False
    energy_seconds: float = 5.0
    with_layers: bool = False
    cache: Path = field(default_factory=partial(cache_folder, "bench"))


def run_benchmark(settings: Settings) -> Benchmark:
    """Measure everything that the settings ask for.

    Raises:
        InputError: A subject or picture folder cannot be used.
        BackendMissingError: A runtime is not installed.
    """
    watch = QuietnessWatch()
    folder = settings.cache / "exported"
    for subject in settings.subjects:
        onnx_path(subject, folder)  # exports what has to be, so that load times do without it
    openers = {
        s.name: partial(open_subject, s, threads=settings.threads, folder=folder)
        for s in settings.subjects
    }
    ratios = []
    with ExitStack() as stack:
        runners, load_ms = open_all(openers, stack)
        latencies: dict[str, list[Latency]] = {name: [] for name in runners}
        for lr_size in settings.lr_sizes:
            for batch in settings.batches:
                progress(
                    f"latency of {', '.join(runners)} in turn: LR {size_text(lr_size)}, "
                    f"batch {batch}, {settings.threads} threads"
                )
                found = measure_latency(
                    runners,
                    lr_size=lr_size,
                    batch=batch,
                    min_runs=settings.min_runs,
                    max_seconds=settings.max_seconds,
                )
                for name, latency in found.items():
                    latencies[name].append(latency)
                ratios.extend(compare_latencies(found, settings.subjects[0].name))
        quietness = watch.finish()
        subjects = tuple(
            _examine(subject, runners[subject.name], settings, load_ms[subject.name], latencies)
            for subject in settings.subjects
        )
    return Benchmark(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["swise-bench", *sys.argv[1:]]),
        threads=settings.threads,
        host=describe_host(),
        quietness=quietness,
        subjects=subjects,
        ratios=tuple(ratios),
    )


def _examine(
    subject: Subject,
    runner: Runner,
    settings: Settings,
    load_ms: float,
    latencies: "Mapping[str, Sequence[Latency]]",
) -> SubjectResult:
    path = onnx_path(subject, settings.cache / "exported") or subject.path
    facts = _facts_of(path)
    return SubjectResult(
        name=subject.name,
        runner=runner.name,
        model=subject.network or facts.get("model", ""),
        scale=runner.scale,
        precision=runner.precision or "unknown",
        io=runner.io,
        path=path.name if path else "",
        sha256=_content_hash(path) if path else "",
        size_bytes=path.stat().st_size if path else 0,
        load_ms=load_ms,
        costs=_count(subject, path, runner.scale),
        latencies=tuple(latencies[subject.name]),
        layer_times=_time_layers(runner, path, settings),
        memory=_measure_memory(subject, settings),
        energy=_measure_energy(runner, settings),
        quality=_score(subject, runner, path, settings),
    )


def _facts_of(path: Path | None) -> "Mapping[str, str]":
    """What a file states of its origin: swise-export's metadata, also through an engine."""
    if path is None:
        return {}
    if path.suffix != ".onnx":
        manifest = read_manifest(path)
        return {} if manifest is None else {**manifest.source, "model": manifest.model}
    return read_onnx_file(path).facts


def _content_hash(path: Path) -> str:
    return read_onnx_file(path).sha256 if path.suffix == ".onnx" else sha256_of(path)


def _count(subject: Subject, path: Path | None, scale: int) -> "tuple[Cost, ...] | NotMeasured":
    sizes = (lr_size_for_hr(scale), NTIRE_LR_SIZE)
    if path is None:
        from swise_bench.measuring.torch_counts import count_torch

        module = load_network(subject).module
        return tuple(_cost(count_torch(module, lr_size=size), "torch network") for size in sizes)
    if path.suffix != ".onnx":
        return NotMeasured(f"{path.suffix} files hold no graph to count; count the ONNX file")
    counts = [count_onnx(path, lr_size=size) for size in sizes]
    unique = {c.lr_size: c for c in counts}
    return tuple(_cost(c, "ONNX graph") for c in unique.values())


def _cost(counts: Counts, counted_from: str) -> Cost:
    return Cost(
        counts.lr_size,
        counts.sr_size,
        counts.params,
        counts.mult_adds,
        counts.activations,
        counts.num_convolutions,
        counts.traffic_bytes,
        counts.uncounted,
        counts.unknown,
        counted_from,
    )


def _time_layers(
    runner: Runner, path: Path | None, settings: Settings
) -> tuple[LayerTime, ...] | NotMeasured:
    if not settings.with_layers:
        return NotMeasured("not asked for: --layers")
    runtime = RUNTIMES[runner.runtime]
    if path is None or path.suffix != ".onnx" or not runtime.has_profile:
        return NotMeasured(f"no profiler is read for {runner.name}")
    progress(f"layers of {path.name} in {runner.name}")
    return profile_layers(
        path, runtime=runner.runtime, lr_size=settings.lr_sizes[0], threads=settings.threads
    )


def _measure_memory(subject: Subject, settings: Settings) -> Memory | NotMeasured:
    if not settings.with_memory:
        return NotMeasured("not asked for: --memory")
    progress(f"memory of {subject.name} in a process of its own")
    folder = settings.cache / "exported"
    return measure_memory(
        file_subject(subject, folder),
        lr_size=settings.lr_sizes[0],
        threads=settings.threads,
        folder=folder,
    )


def _measure_energy(runner: Runner, settings: Settings) -> Energy | NotMeasured:
    if not settings.with_energy:
        return NotMeasured("not asked for: --energy")
    progress(f"energy of {runner.name}")
    return measure_energy(runner, lr_size=settings.lr_sizes[0], seconds=settings.energy_seconds)


def _score(
    subject: Subject, runner: Runner, path: Path | None, settings: Settings
) -> tuple[QualityResult, ...] | NotMeasured:
    if not settings.images:
        return NotMeasured("not asked for: --images DIR")
    identity = _content_hash(path) if path else load_network(subject).weights_sha256
    results = []
    with _rounding(runner, path, settings) as judged:
        for folder in settings.images:
            progress(f"quality of {subject.name} on {folder}")
            paths = find_images(folder)
            scored = score_pictures(
                partial(upscale, judged),
                paths,
                judged.scale,
                identity=f"{identity} {judged.name}",
                cache=settings.cache,
            )
            reference = _reference_scores(subject, path, runner, paths, settings)
            results.append(result_from_scores(str(folder), scored.scores, reference))
    return tuple(results)


def _rounding(
    runner: Runner, path: Path | None, settings: Settings
) -> AbstractContextManager[Runner]:
    """What to score: a file that ONNX Runtime's CPU would compute in fp32 is rounded as it says."""
    if path is None or runner.runtime != DEFAULT_RUNTIME:
        return nullcontext(runner)
    from swise_export.runtimes.onnxruntime import OnnxRunner  # onnxruntime takes a while

    return OnnxRunner(path, threads=settings.threads, as_device=True)


def _reference_scores(
    subject: Subject, path: Path | None, runner: Runner, paths: list[Path], settings: Settings
) -> "Mapping[str, Quality] | None":
    """Scores of the fp32 torch network that the subject was made from; None if unknown."""
    facts = _facts_of(path)
    name = subject.network or facts.get("model", "")
    if not name:
        return None
    source = Subject(
        f"{name}:{runner.scale}@torch", "torch", None, name, subject.weights, runner.scale
    )
    try:
        network = load_network(source)
    except (BackendMissingError, InputError):
        return None
    # A file of other weights, or one that does not say of which, was not made from this network.
    if path is not None and facts.get("weights_sha256") != network.weights_sha256:
        return None
    with open_subject(source, threads=settings.threads, folder=settings.cache) as torch_runner:
        scored = score_pictures(
            partial(upscale, torch_runner),
            paths,
            runner.scale,
            identity=f"{network.weights_sha256} {torch_runner.name}",
            cache=settings.cache,
        )
    return scored.scores
