"""Timing of several calls in turn, with warm-up, percentiles and confidence intervals.

A busy machine slows everything down for a while. If two programs are measured one after the other,
such a phase may affect only one of them. If they are measured in turn, round by round, it affects
both, and the ratio within a round holds. Medians and their confidence intervals come from order
statistics, which assume no distribution. numpy only.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swise_deploy.runner import Runner, batch_from_images

Call = Callable[[], object]

# Warm-up is over when the median of the last runs is this close to that of the runs before them.
STEADY_WITHIN = 0.05
STEADY_WINDOW = 4
MIN_WARMUP_RUNS = 3
MAX_WARMUP_RUNS = 40


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: The estimate: a median.
        low: Lower end.
        high: Upper end.
        confidence: Coverage that the order statistics guarantee for independent samples; below the
            requested one where there are too few samples.
    """

    value: float
    low: float
    high: float
    confidence: float

    @property
    def relative_width(self) -> float:
        """Half the interval over the value."""
        return (self.high - self.low) / 2 / self.value


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one callable.

    Attributes:
        samples_ms: Wall-clock time of every counted run, in order.
        first_ms: Time of the very first run, which includes lazy initialisation.
        warmup_runs: Number of runs before counting, including the first.
        is_steady: True where warm-up ended because times had settled, not by its limits.
        cpu_samples_ms: Processor time of the same runs, all threads of this process together. Other
            programs affect it much less than the wall clock; threads that spin while they wait
            count as working.
    """

    samples_ms: tuple[float, ...]
    first_ms: float
    warmup_runs: int
    is_steady: bool
    cpu_samples_ms: tuple[float, ...] = ()

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the counted runs, linear between samples."""
        return float(np.percentile(self.samples_ms, percent))

    @property
    def p50_ms(self) -> float:
        """Median."""
        return self.percentile_ms(50)

    @property
    def p90_ms(self) -> float:
        """90th percentile."""
        return self.percentile_ms(90)

    @property
    def p99_ms(self) -> float:
        """99th percentile; with fewer than 100 runs it is close to the slowest one."""
        return self.percentile_ms(99)

    @property
    def median_ms(self) -> Interval:
        """Median with its 95% confidence interval."""
        return median_interval(self.samples_ms)


def time_calls(
    calls: Mapping[str, Call],
    *,
    min_runs: int = 20,
    max_seconds: float = 10.0,
    max_relative_width: float = 0.02,
    pause_s: float = 0.0,
) -> dict[str, Timing]:
    """Time several callables in turn, one run of each per round.

    Rounds go on until `min_runs` are done and every median is known to `max_relative_width`, or
    until `max_seconds` have passed; at least 5 rounds are always made.

    Args:
        calls: Callables by name. A call must return when its work is done, not when it is queued.
        min_runs: Number of rounds if time allows.
        max_seconds: Time for the counted rounds of all calls together; warm-up may take as long
            again.
        max_relative_width: Half the 95% confidence interval of a median over the median.
        pause_s: Idle time before each run, until the waiting threads of the last one stop spinning.

    Raises:
        ValueError: There is nothing to time.
    """
    if not calls:
        raise ValueError("nothing to time: calls is empty")
    warmups = _warm_up(calls, max_seconds)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    cpu_samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    start = time.perf_counter()
    rounds = 0
    while True:
        # Each round starts with another call, so that no call always runs after the same one.
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            time.sleep(pause_s)
            cpu_start = time.process_time_ns()
            samples[name].append(_wall_ms(calls[name]))
            cpu_samples[name].append((time.process_time_ns() - cpu_start) / 1e6)
        rounds += 1
        if rounds >= 5 and time.perf_counter() - start >= max_seconds:
            break
        if rounds >= min_runs and all(
            median_interval(s).relative_width <= max_relative_width for s in samples.values()
        ):
            break
    return {
        name: Timing(
            tuple(samples[name]), warm[0], len(warm), _is_steady(warm), tuple(cpu_samples[name])
        )
        for name, warm in warmups.items()
    }


def picture_call(runner: Runner, lr_size: tuple[int, int], *, batch: int = 1) -> Call:
    """A call that sends a batch of random pictures of size (W, H) through an activated runner."""
    width, height = lr_size
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, height, width, 3), np.uint8)
    pictures = batch_from_images(images, runner.io)
    return lambda: runner.infer(pictures)


def ratio(numerator: Timing, denominator: Timing) -> Interval:
    """Ratio of two times: the median of the ratios within each round.

    Raises:
        ValueError: The two do not come from the same rounds.
    """
    return _median_ratio(numerator.samples_ms, denominator.samples_ms)


def cpu_ratio(numerator: Timing, denominator: Timing) -> Interval:
    """Ratio of two processor times: the median of the ratios within each round.

    Raises:
        ValueError: The two do not come from the same rounds, or have no processor time.
    """
    return _median_ratio(numerator.cpu_samples_ms, denominator.cpu_samples_ms)


def _median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    pairs = [(a, b) for a, b in zip(numerators, denominators, strict=True) if b > 0]
    return median_interval([a / b for a, b in pairs])


def median_interval(samples: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The median and its distribution-free confidence interval.

    The interval between the k-th smallest and k-th largest of n independent samples covers the
    median with probability 1 - 2 P(Binomial(n, 1/2) < k), whatever the distribution (David and
    Nagaraja, "Order Statistics", section 7.1). k is the largest with at least `confidence`, or 1.

    Raises:
        ValueError: There is no sample.
    """
    if len(samples) == 0:
        raise ValueError("no samples: the median of nothing is not defined")
    ordered = np.sort(np.asarray(samples, np.float64))
    num = len(ordered)
    tails = np.cumsum(_binomial_half(num))  # tails[k - 1] = P(X < k)
    tail = (1 - confidence) / 2
    k = max(1, int(np.searchsorted(tails, tail, side="right")))
    return Interval(
        float(np.median(ordered)),
        float(ordered[k - 1]),
        float(ordered[num - k]),
        max(0.0, float(1 - 2 * tails[k - 1])),
    )


def _binomial_half(num: int) -> NDArray[np.float64]:
    """P(X = k) of Binomial(num, 1/2) for k = 0..num, by logarithms as 2**-num may vanish."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num + 1)))])
    logs = log_factorial[-1] - log_factorial - log_factorial[::-1] - num * math.log(2)
    return np.asarray(np.exp(logs), np.float64)


def _warm_up(calls: Mapping[str, Call], max_seconds: float) -> dict[str, list[float]]:
    start = time.perf_counter()
    warmups: dict[str, list[float]] = {name: [_wall_ms(call)] for name, call in calls.items()}
    for done in range(1, MAX_WARMUP_RUNS):
        waiting = [name for name, times in warmups.items() if not _is_steady(times)]
        is_late = done >= MIN_WARMUP_RUNS and time.perf_counter() - start >= max_seconds
        if not waiting or is_late:
            break
        for name in waiting:
            warmups[name].append(_wall_ms(calls[name]))
    return warmups


def _is_steady(times_ms: Sequence[float]) -> bool:
    if len(times_ms) < 2 * STEADY_WINDOW:
        return False
    before = float(np.median(times_ms[-2 * STEADY_WINDOW : -STEADY_WINDOW]))
    last = float(np.median(times_ms[-STEADY_WINDOW:]))
    return abs(last - before) <= STEADY_WITHIN * before


def _wall_ms(call: Call) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6
