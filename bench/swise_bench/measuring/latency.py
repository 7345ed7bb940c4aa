"""Latency of several subjects in one interleaved run."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from swise_bench.results.host import QuietnessWatch
from swise_bench.results.values import Latency, NotMeasured, Ratio
from swise_deploy.errors import SwiseError, first_line
from swise_deploy.runner import Runner
from swise_deploy.timing import Call, cpu_ratio, picture_call, ratio, time_calls

WALL_CLOCK = (
    "wall clock of one call with pictures in host memory before and after it; "
    "copies to and from a device, where there is one, are included"
)

# Threads of ONNX Runtime and OpenMP keep spinning after a run; the next subject waits that out.
PAUSE_S = 0.02


class CallError(SwiseError):
    """A call of one of several subjects failed.

    Attributes:
        subject: Whose call.
    """

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(reason)
        self.subject = subject


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

    Raises:
        CallError: A runner fails; it names which one.
    """
    watch = QuietnessWatch()
    found = _time_in_turn(
        runners, lr_size=lr_size, batch=batch, min_runs=min_runs, max_seconds=max_seconds
    )
    quietness = watch.finish()
    return {name: dataclasses.replace(x, quietness=quietness) for name, x in found.items()}


def _time_in_turn(
    runners: Mapping[str, Runner],
    *,
    lr_size: tuple[int, int],
    batch: int,
    min_runs: int,
    max_seconds: float,
) -> dict[str, Latency]:
    device_ms: dict[str, list[float]] = {name: [] for name in runners}
    calls = {
        name: _named(
            name, _noting_device_time(picture_call(r, lr_size, batch=batch), r, device_ms[name])
        )
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


def _named(name: str, call: Call) -> Call:
    """A call whose errors name the subject."""

    def named() -> object:
        try:
            return call()
        except Exception as error:  # a runtime's errors have no base class
            raise CallError(name, first_line(error)) from error

    return named


@runtime_checkable
class DeviceClock(Protocol):
    """A runner that reports the time of its device."""

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
            base.quietness,
        )
        for name, latency in latencies.items()
        if name != reference
    ]
