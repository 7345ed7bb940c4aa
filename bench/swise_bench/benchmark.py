"""A whole benchmark run: subjects in, a `Benchmark` out.

A subject, size or picture that fails costs only itself: the rest is measured, and the result states
what failed and why.
"""

import datetime
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from swise_bench.measuring.costs import count_subject
from swise_bench.measuring.energy import measure_energy
from swise_bench.measuring.latency import CallError, compare_latencies, measure_latency
from swise_bench.measuring.layers import profile_layers
from swise_bench.measuring.memory import measure_memory
from swise_bench.measuring.quality import Scored, result_from_scores, score_pictures
from swise_bench.measuring.reference import score_reference
from swise_bench.results.host import Quietness, QuietnessWatch, describe_host
from swise_bench.results.values import (
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
from swise_bench.subjects.files import content_hash, facts_of, fixed_batch
from swise_bench.subjects.resolve_auto import resolve_auto
from swise_bench.subjects.spec import (
    Subject,
    file_subject,
    load_network,
    onnx_path,
    open_subject,
)
from swise_deploy.command.console import progress, size_text
from swise_deploy.errors import SwiseError, first_line
from swise_deploy.evaluation.own_pairs import match_by_name
from swise_deploy.pictures.folders import find_images, folder_label, sample_paths
from swise_deploy.precision import QUANTISED_OR_ROUNDED
from swise_deploy.runner import Runner, upscale
from swise_deploy.storage.caches import cache_folder
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.runtimes.table import DEFAULT_RUNTIME, RUNTIMES

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from swise_deploy.evaluation.metrics import Quality
    from swise_export.runtimes.onnxruntime import OnnxRunner

Result = TypeVar("Result")
Keep = Callable[[Benchmark], None]

MAX_ATTEMPTS = 3
"""Number of attempts where other programs disturb a measurement too much."""

_Timed = dict[tuple[tuple[int, int], int], dict[str, Latency]]
_PENDING = NotMeasured("the run ended before")
_LATENCY = "latency"
"""The failure of a subject that is scored but cannot be timed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One benchmark run.

    Attributes:
        subjects: Files and networks; the first one that runs is the reference of the ratios.
        lr_sizes: Input sizes of the latency, (W, H).
        batches: Pictures per call.
        threads: Threads of every runtime on the CPU.
        min_runs: Rounds to make if time allows.
        max_seconds: Time of the counted rounds for each subject, size and batch.
        images: Folders of ground truth; none leaves quality out.
        lr_images: The LR pictures of each of `images`; none makes them by MATLAB's bicubic.
        with_memory: True measures memory, in a process of its own.
        with_energy: True measures energy.
        energy_seconds: Seconds of rest, and then of work, for it.
        with_layers: True times every layer.
        cache: Folder for scores and exported files.
    """

    subjects: tuple[Subject, ...]
    lr_sizes: tuple[tuple[int, int], ...] = ((160, 90),)
    batches: tuple[int, ...] = (1,)
    threads: int = 1
    min_runs: int = 20
    max_seconds: float = 10.0
    images: tuple[Path, ...] = ()
    lr_images: tuple[Path, ...] = ()
    with_memory: bool = False
    with_energy: bool = False
    energy_seconds: float = 5.0
    with_layers: bool = False
    cache: Path = field(default_factory=partial(cache_folder, "bench"))


@dataclass(slots=True)
class _Measured:
    """The results of one subject so far.

    Attributes:
        subject: With "auto" resolved.
        path: The file that runs; None for a torch network.
        runner: Activated; None where it could not be opened.
        error: Why it could not be opened.
    """

    subject: Subject
    path: Path | None = None
    runner: Runner | None = None
    error: SwiseError | None = None
    load_ms: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    costs: tuple[Cost, ...] | NotMeasured = _PENDING
    layer_times: tuple[LayerTime, ...] | NotMeasured = _PENDING
    memory: Memory | NotMeasured = _PENDING
    energy: Energy | NotMeasured = _PENDING
    quality: NotMeasured = _PENDING
    scored: "dict[Path, tuple[Scored, Mapping[str, Quality] | None]]" = field(default_factory=dict)

    @property
    def scale(self) -> int:
        """Output size over input size; 0 where it is unknown."""
        return 0 if self.runner is None else self.runner.scale


def run_benchmark(settings: Settings, *, keep: Keep | None = None) -> Benchmark:
    """Measure everything that the settings ask for.

    Args:
        settings: What to measure.
        keep: Called with the results so far whenever a part is finished.

    Raises:
        SwiseError: Not one subject can be opened; the error is that of the first.
    """
    watch = QuietnessWatch()
    timed: _Timed = {}
    measured = [_Measured(subject) for subject in settings.subjects]

    def finish(*, is_complete: bool) -> Benchmark:
        return _benchmark(settings, measured, timed, watch, is_complete=is_complete)

    def keep_part() -> None:
        if keep is not None:
            keep(finish(is_complete=False))

    with ExitStack() as stack:
        for one in measured:
            _open(one, settings, stack)
        if all(one.runner is None for one in measured):
            first = measured[0].error
            assert first is not None, "a subject without a runner has an error"
            raise first
        _time_all(measured, settings, timed, keep_part)
        for one in measured:
            _examine(one, settings)
            keep_part()
        return finish(is_complete=True)


def _open(one: _Measured, settings: Settings, stack: ExitStack) -> None:
    """Export where that is needed, open and activate."""
    folder = settings.cache / "exported"
    try:
        one.subject = resolve_auto(one.subject, threads=settings.threads, cache=settings.cache)
        # Exports what has to be, so that load times do without it.
        one.path = onnx_path(one.subject, folder) or one.subject.path
        start = time.perf_counter()
        opened = open_subject(one.subject, threads=settings.threads, folder=folder)
        one.runner = stack.enter_context(opened)
        one.load_ms = (time.perf_counter() - start) * 1000
    except SwiseError as error:
        one.runner = _emulated(one, settings, stack)
        if one.runner is None:
            one.error = error
        else:
            one.failures[_LATENCY] = str(error)
            progress(f"not measured: {one.subject.name}: {_LATENCY}: {error}")
    except Exception as error:  # noqa: BLE001  # a runtime's errors have no base class
        one.error = SwiseError(f"{one.subject.name} cannot be opened: {first_line(error)}")
    if one.error is not None:
        one.failures["opening"] = str(one.error)
        progress(f"not measured: {one.subject.name}: {one.error}")


def _emulated(one: _Measured, settings: Settings, stack: ExitStack) -> Runner | None:
    """A runner for the scores of a bf16 file that ONNX Runtime has no kernels for."""
    if one.path is None or one.subject.runner != DEFAULT_RUNTIME or one.path.suffix != ".onnx":
        return None
    with suppress(SwiseError):  # a damaged file
        if "bf16" in read_onnx_file(one.path).formats:
            return stack.enter_context(_rounded(one.path, settings))
    return None


def _time_all(
    measured: Sequence[_Measured], settings: Settings, timed: _Timed, keep_part: Callable[[], None]
) -> None:
    """Latency at every size and batch.

    Where other programs took so much of the machine that even ratios are unreliable, it is measured
    again after everything else, and the quietest attempt counts.
    """
    every = [(size, batch) for size in settings.lr_sizes for batch in settings.batches]
    for attempt in range(MAX_ATTEMPTS):
        for key in every:
            before = timed.get(key)
            if attempt and (before is None or _reliability(before) != "unreliable"):
                continue
            if attempt:
                progress("measuring again: the last attempt was unreliable")
            found = _time(measured, settings, *key)
            if found and (before is None or _other_share(found) < _other_share(before)):
                timed[key] = found
                keep_part()


def _quietness(found: Mapping[str, Latency]) -> Quietness:
    quietness = next(iter(found.values())).quietness
    assert quietness is not None, "measured here"
    return quietness


def _reliability(found: Mapping[str, Latency]) -> str:
    return _quietness(found).reliability


def _other_share(found: Mapping[str, Latency]) -> float:
    return _quietness(found).other_share or 0.0


def _time(
    measured: Sequence[_Measured], settings: Settings, lr_size: tuple[int, int], batch: int
) -> dict[str, Latency]:
    """Latency of all subjects in turn; one that fails is left out and the rest is timed."""
    what = f"latency at LR {size_text(lr_size)}, batch {batch}"
    running = {
        one.subject.name: one
        for one in measured
        if one.runner is not None and not {what, _LATENCY} & set(one.failures)
    }
    while running:
        runners = {name: one.runner for name, one in running.items() if one.runner is not None}
        progress(
            f"latency of {', '.join(runners)} in turn: LR {size_text(lr_size)}, batch {batch}, "
            f"{settings.threads} threads"
        )
        try:
            return measure_latency(
                runners,
                lr_size=lr_size,
                batch=batch,
                min_runs=settings.min_runs,
                max_seconds=settings.max_seconds,
            )
        except CallError as error:
            running.pop(error.subject).failures[what] = str(error)
            progress(f"not measured: {error.subject}: {what}: {error}")
    return {}


def _examine(one: _Measured, settings: Settings) -> None:
    """Everything but the latency."""
    one.costs = count_subject(one.subject, one.path, one.scale)
    runner = one.runner
    if runner is None:
        reason = NotMeasured(one.failures["opening"])
        one.layer_times = one.memory = one.energy = one.quality = reason
        return
    one.layer_times = _attempt(partial(_time_layers, runner, one.path, settings))
    one.memory = _attempt(partial(_measure_memory, one.subject, settings))
    one.energy = _attempt(partial(_measure_energy, runner, settings))
    one.quality = NotMeasured("not asked for: --images DIR")
    if settings.images:
        _score(one, runner, settings)
    elif runner.precision in QUANTISED_OR_ROUNDED:
        # Its speed says nothing where the runtime computes another function.
        samples = sample_paths()[0].parent
        _score(one, runner, replace(settings, images=(samples,), lr_images=()))


def _attempt(measure: Callable[[], Result | NotMeasured]) -> Result | NotMeasured:
    try:
        return measure()
    except Exception as error:  # noqa: BLE001  # a runtime's errors have no base class
        return NotMeasured(first_line(error))


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
        batch=settings.batches[0],
        threads=settings.threads,
        folder=folder,
    )


def _measure_energy(runner: Runner, settings: Settings) -> Energy | NotMeasured:
    if not settings.with_energy:
        return NotMeasured("not asked for: --energy")
    progress(f"energy of {runner.name}")
    return measure_energy(
        runner,
        lr_size=settings.lr_sizes[0],
        batch=settings.batches[0],
        seconds=settings.energy_seconds,
    )


def _lr_of(
    folder: Path, paths: Sequence[Path], scale: int, settings: Settings
) -> Mapping[Path, Path] | None:
    """The user's own LR picture of each ground truth; None where they are made by bicubic."""
    if not settings.lr_images:
        return None
    lr_folder = settings.lr_images[settings.images.index(folder)]
    return match_by_name(paths, find_images(lr_folder, ground_truth=False), scale).pairs


def _score(one: _Measured, runner: Runner, settings: Settings) -> None:
    identity = content_hash(one.path) if one.path else load_network(one.subject).weights_sha256
    for folder in settings.images:
        progress(f"quality of {one.subject.name} on {folder}")
        try:
            paths = find_images(folder)
            lr = _lr_of(folder, paths, runner.scale, settings)
            with _rounding(runner, one.path, settings) as scored_runner:
                one.scored[folder] = (
                    score_pictures(
                        partial(upscale, scored_runner, batch=fixed_batch(one.path)),
                        paths,
                        runner.scale,
                        identity=f"{identity} {scored_runner.name}",
                        cache=settings.cache,
                        lr=lr,
                    ),
                    score_reference(
                        one.subject,
                        facts_of(one.path),
                        runner.scale,
                        paths,
                        is_file=one.path is not None,
                        threads=settings.threads,
                        cache=settings.cache,
                        lr=lr,
                    ),
                )
        except Exception as error:  # noqa: BLE001  # a runtime's errors have no base class
            one.failures[f"quality on {folder.name}"] = first_line(error)
            one.quality = NotMeasured(first_line(error))
            progress(f"not measured: {one.subject.name}: quality: {first_line(error)}")


def _rounding(
    runner: Runner, path: Path | None, settings: Settings
) -> "AbstractContextManager[Runner]":
    """The runner for scores: it rounds to fp16 as a file states where ONNX Runtime would not."""
    if path is None or runner.runtime != DEFAULT_RUNTIME:
        return nullcontext(runner)
    is_rounded = {"fp16", "bf16"} & read_onnx_file(path).formats
    return _rounded(path, settings) if is_rounded else nullcontext(runner)


def _rounded(path: Path, settings: Settings) -> "OnnxRunner":
    """A runner that rounds as the file states, whatever ONNX Runtime has kernels for."""
    from swise_export.runtimes.onnxruntime import OnnxRunner  # onnxruntime takes a while

    return OnnxRunner(path, threads=settings.threads, as_device=True)


def _benchmark(
    settings: Settings,
    measured: Sequence[_Measured],
    timed: _Timed,
    watch: QuietnessWatch,
    *,
    is_complete: bool,
) -> Benchmark:
    noisiest = max(
        (_quietness(found) for found in timed.values()),
        key=lambda quietness: quietness.other_share or 0.0,
        default=watch.finish(),
    )
    return Benchmark(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["swise-bench", *sys.argv[1:]]),
        threads=settings.threads,
        host=describe_host(),
        quietness=noisiest,
        subjects=tuple(_result(one, measured, timed) for one in measured),
        ratios=tuple(
            ratio
            for found in timed.values()
            for ratio in compare_latencies(found, next(iter(found)))
        ),
        is_complete=is_complete,
    )


def _result(one: _Measured, measured: Sequence[_Measured], timed: _Timed) -> SubjectResult:
    path, runner, facts = one.path, one.runner, _facts_where_readable(one.path)
    return SubjectResult(
        name=one.subject.name,
        runner="" if runner is None else runner.name,
        model=one.subject.network or facts.get("model", ""),
        scale=one.scale,
        precision=(None if runner is None else runner.precision) or "unknown",
        io="" if runner is None else runner.io,
        path=path.name if path else "",
        sha256=content_hash(path) if path and runner is not None else "",
        size_bytes=path.stat().st_size if path else 0,
        load_ms=one.load_ms,
        costs=one.costs,
        latencies=tuple(
            found[one.subject.name] for found in timed.values() if one.subject.name in found
        ),
        layer_times=one.layer_times,
        memory=one.memory,
        energy=one.energy,
        quality=_quality(one, measured) or one.quality,
        failures=dict(one.failures),
    )


def _facts_where_readable(path: Path | None) -> Mapping[str, str]:
    try:
        return facts_of(path)
    except SwiseError:
        return {}


def _quality(one: _Measured, measured: Sequence[_Measured]) -> tuple[QualityResult, ...]:
    """Means over the pictures that all subjects of the scale have scores of."""
    results = []
    for folder, (scored, reference) in one.scored.items():
        others = [
            other.scored[folder][0].scores
            for other in measured
            if folder in other.scored and other.scale == one.scale
        ]
        common = frozenset.intersection(*(frozenset(scores) for scores in others))
        exact = {n for scores in others for n, score in scores.items() if score.is_exact}
        label = folder_label(folder)
        results.append(
            result_from_scores(label, scored, reference, exact=exact, common=common or None)
        )
    return tuple(results)
