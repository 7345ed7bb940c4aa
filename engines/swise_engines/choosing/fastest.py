"""Which candidate is fastest on this machine: measured once, kept, and told.

Candidates run one photograph in turn. One whose result is not that of the first candidate cannot
win, however fast it is.
"""

import contextlib
import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.errors import InputError, OutputError, SwiseError
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.runner import Runner
from swise_deploy.storage.documents import read_document, write_document
from swise_deploy.storage.files import sha256_of
from swise_deploy.timing import Call, Timing, ratio, time_calls
from swise_engines.choosing.candidates import Candidate
from swise_engines.tensorrt.manifest import read_manifest
from swise_export.graph.loading import sha256_of_onnx
from swise_export.graph.model import read_onnx_file
from swise_export.runtimes.table import RUNTIMES

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 2

# One level of 8 bits, the least that a picture shows; runtimes differ by about 1e-5 in fp32.
MAX_DIFFERENCE = 1 / 255
# Inside a sample photograph; the whole measurement takes seconds even for large networks.
_LR_SIZE = (128, 96)
# One this many times slower in a first look is not measured any further.
_HOPELESS = 1.6
_LEAST_LOOKS, _LOOK_MS = 3, 200.0
_MIN_RUNS = 9
_RUNS_WORTH = 40
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 10.0
_STEADY_WIDTH = 0.05
# Threads of ONNX Runtime keep spinning after a run; the next candidate waits that out.
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that runs.

    Attributes:
        candidate: It.
        reason: How it compares with the others, in one line.
        refused: Candidates that could not win, by label, and why.
    """

    candidate: Candidate
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)


def choose_fastest(
    candidates: Sequence[Candidate], *, cache: Path, threads: int | None = None
) -> Choice:
    """Measure the candidates, or read what was found before with the same ones on this machine.

    Args:
        candidates: What could run, the most dependable one first: the results of the others are
            compared with its result.
        cache: Folder in which verdicts are kept.
        threads: CPU threads that the candidates use; None where the runtimes decide.

    Raises:
        SwiseError: Not even the first candidate runs.
    """
    if len(candidates) == 1:
        return Choice(candidates[0], "nothing else that is installed runs it")
    kept = cache / f"{_key(candidates, threads)}.json"
    choice = _kept_choice(kept, candidates)
    if choice is None:
        logger.info(
            "measuring once, for up to a minute, which is fastest here "
            "(--runner decides without): %s",
            ", ".join(candidate.label for candidate in candidates),
        )
        choice = measure_fastest(candidates)
        try:
            write_document(
                kept, _Verdict(choice.candidate.label, choice.reason, dict(choice.refused))
            )
        except OutputError as error:
            logger.warning("it will be measured again next time: %s", error)
    return choice


def measure_fastest(candidates: Sequence[Candidate]) -> Choice:
    """Run the candidates in turn and take the one with the lowest median time.

    Raises:
        SwiseError: The first candidate does not run.
    """
    size, batch = _input_of(candidates)
    refused: dict[str, str] = {}
    calls: dict[str, Call] = {}
    first_look_ms: dict[str, float] = {}
    expected: NDArray[np.float32] | None = None
    with ExitStack() as stack:
        for candidate in candidates:
            try:
                runner = stack.enter_context(candidate.open())
                lr = _photograph(runner, size, batch)
                sr = _in_unit_range(runner.infer(lr))
            except SwiseError as error:
                if expected is None:
                    raise
                refused[candidate.label] = str(error)
                continue
            if expected is None:
                expected = _refuse_no_numbers(sr, candidate)
            difference = _largest_difference(sr, expected)
            if not difference <= MAX_DIFFERENCE:  # refuses NaN as well
                refused[candidate.label] = (
                    f"its picture differs by up to {difference * 255:.3g} levels of 255"
                )
                continue
            call = partial(runner.infer, lr)
            calls[candidate.label] = call
            first_look_ms[candidate.label] = _first_look_ms(call)
        for label in list(calls):
            slowness = first_look_ms[label] / min(first_look_ms.values())
            if slowness > _HOPELESS:
                refused[label] = f"took {slowness:.1f} times as long at first sight"
                del calls[label]
        seconds = sum(first_look_ms[label] for label in calls) * _RUNS_WORTH / 1000
        timings = time_calls(
            calls,
            min_runs=_MIN_RUNS,
            max_seconds=max(_LEAST_SECONDS, min(seconds, _MOST_SECONDS)),
            max_relative_width=_STEADY_WIDTH,
            pause_s=_PAUSE_S,
        )
    return _fastest_of(candidates, timings, refused)


def _refuse_no_numbers(sr: NDArray[np.float32], candidate: Candidate) -> NDArray[np.float32]:
    """The picture that the others are compared with; every pixel of it has to be a number."""
    if np.isnan(sr).any():
        raise SwiseError(
            f"{candidate.path} gives pixels that are no numbers on a photograph, in "
            f"{candidate.label}: something overflows or is divided by 0. Export it with "
            "swise-export, which checks that, or with --fp32"
        )
    return sr


def _first_look_ms(call: Call) -> float:
    """The shortest of a few runs: other programs make single ones many times longer."""
    times_ms: list[float] = []
    while len(times_ms) < _LEAST_LOOKS or sum(times_ms) < _LOOK_MS:
        start = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - start) * 1000)
    return min(times_ms)


def _fastest_of(
    candidates: Sequence[Candidate], timings: Mapping[str, Timing], refused: Mapping[str, str]
) -> Choice:
    best = min(timings, key=lambda label: timings[label].p50_ms)
    parts = []
    for label, timing in timings.items():
        if label != best:
            slower = ratio(timing, timings[best])
            span = f"95% CI {slower.low:.2f} to {slower.high:.2f}"
            parts.append(f"{label} takes {slower.value:.2f} times as long ({span})")
    parts += [f"{label}: {why}" for label, why in refused.items()]
    by_label = {candidate.label: candidate for candidate in candidates}
    return Choice(by_label[best], "; ".join(parts), refused)


def _input_of(candidates: Sequence[Candidate]) -> tuple[tuple[int, int], int]:
    """(width, height) and batch that the first candidate takes, and engines too where they can."""
    interface = read_onnx_file(candidates[0].path).interface
    batch = interface.batch or 1
    if interface.size is not None:
        return interface.size, batch
    width, height = _LR_SIZE
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


def _photograph(runner: Runner, size: tuple[int, int], batch: int) -> NDArray[np.generic]:
    """A photograph of (width, height), `batch` times, in the runner's layout."""
    image = read_rgb(sample_paths()[0])
    width, height = size
    beyond = ((0, max(0, height - image.shape[0])), (0, max(0, width - image.shape[1])), (0, 0))
    levels = np.pad(image, beyond, mode="symmetric")[None, :height, :width].repeat(batch, axis=0)
    if runner.io == "uint8":
        return np.ascontiguousarray(levels)
    return np.ascontiguousarray(levels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def _in_unit_range(sr: NDArray[np.generic]) -> NDArray[np.float32]:
    if sr.dtype == np.uint8:
        return sr.astype(np.float32) / np.float32(255)
    return np.clip(sr.astype(np.float32), 0, 1)


def _largest_difference(sr: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Infinite where shapes differ; not a number where a result is none."""
    if sr.shape != expected.shape:
        return float("inf")
    return float(np.abs(sr - expected).max())


def _key(candidates: Sequence[Candidate], threads: int | None) -> str:
    """Hash of everything that the verdict depends on."""
    facts = {
        "candidates": [
            (candidate.label, _content_hash(candidate.path)) for candidate in candidates
        ],
        "processor": _processor(),
        "num_cpus": num_usable_cpus(),
        "threads": threads,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _content_hash(path: Path) -> str:
    """Hash of a file, an ONNX file's external data included."""
    return sha256_of_onnx(path) if path.suffix.lower() == ".onnx" else sha256_of(path)


def _processor() -> str:
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
class _Verdict:
    """A choice as it is kept."""

    winner: str
    reason: str
    refused: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION


def _kept_choice(path: Path, candidates: Sequence[Candidate]) -> Choice | None:
    if not path.is_file():
        return None
    try:
        verdict = read_document(
            path,
            _Verdict,
            what="the kept verdict",
            advice="It is measured again",
            schema_version=SCHEMA_VERSION,
        )
    except InputError as error:
        logger.info("%s", error)
        return None
    winner = {candidate.label: candidate for candidate in candidates}.get(verdict.winner)
    return None if winner is None else Choice(winner, verdict.reason, verdict.refused)
