"""Latency of several subjects in one interleaved run."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Protocol, runtime_checkable

from swise_bench.results.document import Latency, NotMeasured, Ratio
from swise_deploy.runner import Runner
from swise_deploy.timing import Call, cpu_ratio, picture_call, ratio, time_calls

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
    device_ms: dict[str, list[float]] = {name: [] for name in runners}
    calls = {
        name: _noting_device_time(picture_call(r, lr_size, batch=batch), r, device_ms[name])
        for name, r in runners.items()
    }
    timings = time_calls(
        calls, min_runs=min_runs, max_seconds=max_seconds * len(calls), pause_s=PAUSE_S
    )
    return {
        name: Latency(
            lr_size,
            batch,
            timing,
            WALL_CLOCK,
            tuple(device_ms[name][-len(timing.samples_ms) :])
            or NotMeasured(f"{runners[name].name} has no device clock"),
        )
        for name, timing in timings.items()
    }


@runtime_checkable
class DeviceClock(Protocol):
    """A runner that knows how long its device worked."""

    @property
    def gpu_ms(self) -> float:
        """Milliseconds of the last `infer` by the device's events, copies left out."""


def _noting_device_time(call: Call, runner: Runner, noted: list[float]) -> Call:
    if not isinstance(runner, DeviceClock):
        return call
    clock = runner

    def timed() -> None:
        call()
        noted.append(clock.gpu_ms)

    return timed


def compare_latencies(latencies: Mapping[str, Latency], reference: str) -> list[Ratio]:
    """Every subject against the reference, round by round."""
    base = latencies[reference]
    return [
        Ratio(
            name,
            reference,
            base.lr_size,
            base.batch,
            ratio(latency.timing, base.timing),
            cpu_ratio(latency.timing, base.timing),
        )
        for name, latency in latencies.items()
        if name != reference
    ]
