"""Latency of several subjects in one interleaved run."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from swise_bench.results import Latency, Ratio
from swise_deploy.runner import Runner
from swise_deploy.timing import picture_call, ratio, time_calls

WALL_CLOCK = (
    "wall clock of one call with pictures in host memory before and after it; "
    "copies to and from a device, where there is one, are included"
)

# Threads of ONNX Runtime and OpenMP keep spinning after a run; the next subject waits that out.
PAUSE_S = 0.02


def open_all(
    openers: Mapping[str, Callable[[], Runner]], stack: ExitStack
) -> tuple[dict[str, Runner], dict[str, float]]:
    """Open and activate runners until the stack is closed; their load times in milliseconds too."""
    runners, load_ms = {}, {}
    for name, opener in openers.items():
        start = time.perf_counter_ns()
        runners[name] = stack.enter_context(opener())
        load_ms[name] = (time.perf_counter_ns() - start) / 1e6
    return runners, load_ms


def measure_latency(
    runners: Mapping[str, Runner],
    *,
    lr_size: tuple[int, int],
    batch: int = 1,
    min_runs: int = 20,
    max_seconds: float = 10.0,
) -> dict[str, Latency]:
    """Time activated runners in turn.

    Args:
        runners: Activated runners by name.
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        min_runs: Rounds to make if time allows.
        max_seconds: Time for the counted rounds, for each runner.
    """
    calls = {name: picture_call(r, lr_size, batch=batch) for name, r in runners.items()}
    timings = time_calls(
        calls, min_runs=min_runs, max_seconds=max_seconds * len(calls), pause_s=PAUSE_S
    )
    return {n: Latency(lr_size, batch, timing, WALL_CLOCK) for n, timing in timings.items()}


def compare_latencies(latencies: Mapping[str, Latency], reference: str) -> list[Ratio]:
    """Every subject against the reference, round by round."""
    base = latencies[reference]
    return [
        Ratio(name, reference, base.lr_size, base.batch, ratio(latency.timing, base.timing))
        for name, latency in latencies.items()
        if name != reference
    ]
