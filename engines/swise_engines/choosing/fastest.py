"""Choice of the fastest candidate on this machine, measured once and cached.

Candidates run one photograph in turn. A candidate whose picture differs from that of the first one
cannot win, however fast it is. Where the measurement does not decide, the first one runs.
"""

import contextlib
import hashlib
import json
import logging
import math
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.cpus import OtherPrograms, num_usable_cpus
from swise_deploy.errors import SwiseError
from swise_deploy.runner import Runner, batch_from_images
from swise_deploy.storage.documents import read_cached, write_cached
from swise_deploy.storage.files import sha256_of
from swise_deploy.timing import Call, Timing, ratio, time_calls
from swise_engines.choosing.candidates import Candidate
from swise_engines.choosing.photographs import drift_on_photographs
from swise_engines.tensorrt.manifest import read_manifest
from swise_export.graph.loading import sha256_of_onnx
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.interface.probing import photograph
from swise_export.runtimes.table import RUNTIMES

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 4

# One 8-bit value, the smallest difference in a picture; runtimes differ by about 1e-5 in fp32.
MAX_DIFFERENCE = 1 / 255
FIRST_RUN_LIMIT_S = 5.0
"""Seconds after which the measurement of a first run starts nothing new."""

# Small enough that the whole measurement takes seconds even for large networks; the second one
# where the time is limited.
_LR_SIZE, _SMALL_LR_SIZE = (128, 96), (96, 64)
# A candidate that is this many times slower in a first estimate is not measured further.
_MAX_SLOWNESS = 1.6
_MIN_ESTIMATE_RUNS, _ESTIMATE_MS = 3, 200.0
_MIN_RUNS, _USUAL_RUNS = 9, 40
_MIN_SECONDS, _MAX_SECONDS = 1.0, 10.0
_MAX_RELATIVE_WIDTH = 0.05
# Threads of ONNX Runtime spin for a while after a run; the next candidate waits for their end.
_PAUSE_S = 0.02
# Rounds that `time_calls` makes at least, warm-up included.
_MIN_ROUNDS = 8
# The interval of a ratio within this distance of 1 is a tie, which is decided as well.
_TIE = 0.05
# Share of the processors that other programs may use while a choice is made that is cached.
_QUIET_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that runs.

    Attributes:
        candidate: The candidate.
        reason: Its comparison with the others, in one line.
        refused: Reasons why candidates could not win, by label.
        is_certain: True if the confidence intervals decide and the machine was quiet.
    """

    candidate: Candidate
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)
    is_certain: bool = True


def choose_fastest(
    candidates: Sequence[Candidate],
    *,
    cache: Path,
    threads: int | None = None,
    limit_s: float | None = None,
    remeasure: bool = False,
    max_drift_db: float | None = None,
) -> Choice:
    """Measure the candidates, or read the cached choice of the same ones on this machine.

    Only a certain choice is cached; another one is measured again next time.

    Args:
        candidates: Ways to run the network, the most dependable one first; the pictures of the
            others are compared with its picture.
        cache: Folder of cached choices.
        threads: CPU threads of the candidates; None where the runtimes decide.
        limit_s: Seconds after which the measurement starts nothing new; None for up to a minute.
        remeasure: Measure even if a choice is cached.
        max_drift_db: PSNR-Y that a candidate may lose against the first one, on the shipped
            photographs; None takes only candidates with its picture.

    Raises:
        SwiseError: The first candidate does not run.
    """
    if len(candidates) == 1:
        return Choice(candidates[0], "no other installed runtime runs it")
    cached = cache / f"{_key(candidates, threads, max_drift_db)}.json"
    choice = None if remeasure else _cached_choice(cached, candidates)
    if choice is None:
        logger.info(
            "measuring for up to %s which runtime is fastest here (--runner NAME skips that): %s",
            "a minute" if limit_s is None else f"{limit_s:g} s",
            ", ".join(candidate.label for candidate in candidates),
        )
        choice = measure_fastest(candidates, limit_s=limit_s, max_drift_db=max_drift_db)
        if choice.is_certain:
            write_cached(
                cached, _CachedChoice(choice.candidate.label, choice.reason, dict(choice.refused))
            )
    return choice


def measure_fastest(
    candidates: Sequence[Candidate],
    *,
    limit_s: float | None = None,
    max_drift_db: float | None = None,
) -> Choice:
    """Run the candidates in turn and choose the fastest, or the first one where nothing decides.

    Args:
        candidates: As for `choose_fastest`.
        limit_s: Seconds after which nothing new is started; what runs then is finished.
        max_drift_db: As for `choose_fastest`.

    Raises:
        SwiseError: The first candidate does not run.
    """
    deadline_s = math.inf if limit_s is None else time.perf_counter() + limit_s
    others = OtherPrograms()
    size, batch = _input_of(candidates, _LR_SIZE if limit_s is None else _SMALL_LR_SIZE)
    refused: dict[str, str] = {}
    calls: dict[str, Call] = {}
    estimates_ms: dict[str, float] = {}
    expected: NDArray[np.float32] | None = None
    timings: dict[str, Timing] = {}
    is_cut = False
    reference: Runner | None = None
    losses: list[str] = []
    with ExitStack() as stack:
        for candidate in candidates:
            if expected is not None and time.perf_counter() >= deadline_s:
                refused[candidate.label] = "not measured: the time was over (use --remeasure)"
                is_cut = True
                continue
            try:
                runner = stack.enter_context(candidate.open())
                lr = _photograph(runner, size, batch)
                sr = _in_unit_range(runner.infer(lr))
            except SwiseError as error:
                if expected is None:
                    raise
                refused[candidate.label] = str(error)
                continue
            if expected is None or reference is None:
                expected, reference = _refuse_nan(sr, candidate), runner
            refusal, loss = _compared(
                runner, reference, _largest_difference(sr, expected), candidates[0], max_drift_db
            )
            losses += [f"{candidate.label}: {loss}"] if loss else []
            if refusal:
                refused[candidate.label] = refusal
                continue
            calls[candidate.label] = partial(runner.infer, lr)
            estimates_ms[candidate.label] = _estimate_ms(calls[candidate.label], deadline_s)
            logger.info("  %s: %.1f ms", candidate.label, estimates_ms[candidate.label])
        for label, slowness in _much_slower(estimates_ms).items():
            refused[label] = f"took {slowness:.1f} times as long in a first estimate"
            del calls[label]
        round_s = sum(estimates_ms[label] for label in calls) / 1000
        left_s = deadline_s - time.perf_counter()
        if len(calls) > 1 and _MIN_ROUNDS * round_s < left_s:
            usual_s = max(_MIN_SECONDS, min(round_s * _USUAL_RUNS, _MAX_SECONDS))
            timings = time_calls(
                calls,
                min_runs=_MIN_RUNS,
                max_seconds=min(usual_s, left_s / 2),  # warm-up may take as long
                max_relative_width=_MAX_RELATIVE_WIDTH,
                pause_s=_PAUSE_S,
            )
    choice = _fastest_of([c for c in candidates if c.label in calls], timings, refused)
    choice = replace(choice, reason="; ".join([choice.reason, *losses]))
    share = others.share()
    is_quiet = share is None or share <= _QUIET_SHARE
    if choice.is_certain and is_quiet and not is_cut:
        return choice
    load = "" if is_quiet else f", other programs used {share:.0%} of the processors"
    reason = f"{choice.reason}; not certain{load}: measured again next time"
    return replace(choice, reason=reason, is_certain=False)


def _much_slower(estimates_ms: Mapping[str, float]) -> dict[str, float]:
    """Candidates that need not be measured further: their times as multiples of the shortest."""
    shortest_ms = min(estimates_ms.values(), default=math.inf)
    return {
        label: estimate_ms / shortest_ms
        for label, estimate_ms in estimates_ms.items()
        if estimate_ms / shortest_ms > _MAX_SLOWNESS
    }


def _compared(
    runner: Runner,
    reference: Runner,
    difference: float,
    first: Candidate,
    max_drift_db: float | None,
) -> tuple[str, str]:
    """The reason why a candidate cannot win, and its loss on photographs; "" for neither.

    Args:
        runner: The candidate; active.
        reference: The first candidate; active.
        difference: The largest one between their pictures; NaN where one of them contains it.
        first: Candidate of `reference`.
        max_drift_db: PSNR-Y that may be lost; None for pictures that differ by 1 of 255 at most.
    """
    if max_drift_db is None or not MAX_DIFFERENCE < difference < math.inf:
        if difference <= MAX_DIFFERENCE:
            return "", ""
        return f"its picture differs by up to {difference * 255:.3g}/255; expected at most 1", ""
    drift_db = drift_on_photographs(runner, reference, read_onnx_file(first.path))
    loss = f"{drift_db:+.3f} dB on the photographs"
    # Written so that NaN is refused.
    return ("" if drift_db >= -max_drift_db else f"{loss}; allowed: -{max_drift_db:g} dB"), loss


def _refuse_nan(sr: NDArray[np.float32], candidate: Candidate) -> NDArray[np.float32]:
    """Return the picture with which the others are compared; NaN in it is an error."""
    if np.isnan(sr).any():
        raise SwiseError(
            f"the output of {candidate.path} on a photograph, in {candidate.label}, contains NaN; "
            "expected numbers: a layer overflows or divides by 0. Export it with swise-export, "
            "which checks that, or with --fp32"
        )
    return sr


def _estimate_ms(call: Call, deadline_s: float) -> float:
    """The shortest of a few runs; other programs make single runs many times longer."""
    times_ms: list[float] = []
    while len(times_ms) < _MIN_ESTIMATE_RUNS or sum(times_ms) < _ESTIMATE_MS:
        if times_ms and time.perf_counter() >= deadline_s:
            break
        start = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - start) * 1000)
    return min(times_ms)


def _fastest_of(
    candidates: Sequence[Candidate], timings: Mapping[str, Timing], refused: Mapping[str, str]
) -> Choice:
    """The fastest of the remaining candidates, by their ratios within each round.

    Args:
        candidates: In their order; the first one wins unless another one is certainly faster.
        timings: By label; empty where there was no time for them.
        refused: Reasons by label.
    """
    best = candidates[0]
    for candidate in candidates[1:] if timings else []:
        if ratio(timings[candidate.label], timings[best.label]).high < 1:
            best = candidate
    parts = []
    is_certain = bool(timings) or len(candidates) == 1
    for label, timing in timings.items():
        if label != best.label:
            slower = ratio(timing, timings[best.label])
            is_certain &= slower.low > 1 or 1 - _TIE <= slower.low <= slower.high <= 1 + _TIE
            span = f"95% CI {slower.low:.2f} to {slower.high:.2f}"
            parts.append(f"{label} takes {slower.value:.2f} times as long as {best.label} ({span})")
    parts += [f"{label}: {reason}" for label, reason in refused.items()]
    return Choice(best, "; ".join(parts) or "no other candidate was measured", refused, is_certain)


def _input_of(
    candidates: Sequence[Candidate], wanted: tuple[int, int]
) -> tuple[tuple[int, int], int]:
    """(width, height) and batch for the first candidate, within the profiles of engines."""
    interface = read_onnx_file(candidates[0].path).interface
    batch = interface.batch or 1
    if interface.size is not None:
        return interface.size, batch
    width, height = wanted
    for candidate in candidates:
        manifest = (
            read_manifest(candidate.path) if RUNTIMES[candidate.runtime].takes == "engine" else None
        )
        if manifest is not None:
            profile = manifest.profiles[0]
            width = max(profile.min.width, min(width, profile.max.width))
            height = max(profile.min.height, min(height, profile.max.height))
            batch = max(batch, profile.min.batch)
    return (width, height), batch


def _photograph(runner: Runner, size: tuple[int, int], batch: int) -> NDArray[np.number]:
    """A photograph of (width, height), `batch` times, in the runner's layout."""
    return batch_from_images(np.repeat(photograph(size)[None], batch, axis=0), runner.io)


def _in_unit_range(sr: NDArray[np.number]) -> NDArray[np.float32]:
    if sr.dtype == np.uint8:
        return sr.astype(np.float32) / np.float32(255)
    return np.clip(sr.astype(np.float32), 0, 1)


def _largest_difference(sr: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest absolute difference; infinite for different shapes, NaN where a value is NaN."""
    if sr.shape != expected.shape:
        return float("inf")
    return float(np.abs(sr - expected).max())


def _key(candidates: Sequence[Candidate], threads: int | None, max_drift_db: float | None) -> str:
    """Hash of everything that determines the choice."""
    facts = {
        "candidates": [
            (candidate.label, _content_hash(candidate.path)) for candidate in candidates
        ],
        "processor": processor_model(),
        "num_cpus": num_usable_cpus(),
        "threads": threads,
        "max_drift_db": max_drift_db,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _content_hash(path: Path) -> str:
    """Hash of a file, an ONNX file's external data included."""
    return sha256_of_onnx(path) if path.suffix.lower() == ".onnx" else sha256_of(path)


def processor_model() -> str:
    """Model of the processor, and of the board on a Jetson."""
    found = [platform.machine()]
    with contextlib.suppress(OSError):  # not Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        named = ("model name", "CPU part", "Model")
        found += [line.partition(":")[2].strip() for line in lines if line.startswith(named)]
    with contextlib.suppress(OSError):  # most machines have no device tree
        found.append(Path("/proc/device-tree/model").read_text(encoding="utf-8"))
    return "; ".join(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _CachedChoice:
    """A choice in the cache."""

    winner: str
    reason: str
    refused: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION


def _cached_choice(path: Path, candidates: Sequence[Candidate]) -> Choice | None:
    cached = read_cached(path, _CachedChoice, schema_version=SCHEMA_VERSION)
    if cached is None:
        return None
    winner = {candidate.label: candidate for candidate in candidates}.get(cached.winner)
    return None if winner is None else Choice(winner, cached.reason, cached.refused)
