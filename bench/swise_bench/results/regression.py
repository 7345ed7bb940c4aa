"""The regression gate: slower than before, beyond what noise explains.

Ratios between subjects of one interleaved run depend less on the machine than times. So, wherever
two runs share a reference subject, their ratios are compared; times are compared only where one
subject is all there is. A regression counts when even the favourable ends of both confidence
intervals exceed the allowance. Where other programs took so much of the machine in either run that
even ratios are unreliable, nothing is decided.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from swise_bench.results.host import UNRELIABLE_SHARE, Quietness
from swise_bench.results.values import Benchmark
from swise_deploy.command.console import size_text
from swise_deploy.errors import InputError
from swise_deploy.timing import Interval


@dataclass(frozen=True, slots=True)
class Change:
    """One figure then and now.

    Attributes:
        what: Subject, input size, batch, and what it is relative to.
        before: Value of the baseline.
        now: Value of this run.
        change: now / before - 1.
        least_change: The same with both intervals taken in favour of this run.
        is_regression: True where least_change exceeds the allowance in reliable measurements.
        undecided_reason: Why it cannot be decided; "" where it can.
    """

    what: str
    before: float
    now: float
    change: float
    least_change: float
    is_regression: bool
    undecided_reason: str = ""


@dataclass(frozen=True, slots=True)
class _Figure:
    value: Interval
    quietness: Quietness


def compare_benchmarks(
    baseline: Benchmark, current: Benchmark, *, max_regress: float
) -> list[Change]:
    """Compare two runs.

    Args:
        baseline: The older one.
        current: The newer one.
        max_regress: Allowed slowdown, 0.05 for 5%.

    Raises:
        InputError: They have nothing in common.
    """
    before, now = dict(_figures(baseline)), dict(_figures(current))
    common = [key for key in now if key in before]
    if not common:
        raise InputError(
            f"the baseline measured {_names(before)}; this run {_names(now)}. Expected a subject, "
            "input size and batch that are in both: give the same subjects, the same one first"
        )
    return [_change(key, before[key], now[key], max_regress) for key in common]


def _figures(benchmark: Benchmark) -> Iterator[tuple[str, _Figure]]:
    for r in benchmark.ratios:
        where = f"LR {size_text(r.lr_size)}, batch {r.batch}"
        quietness = r.quietness or benchmark.quietness
        yield f"{r.subject} / {r.reference} at {where}", _Figure(r.times_slower, quietness)
    if benchmark.ratios:
        return
    for subject in benchmark.subjects:
        for latency in subject.latencies:
            where = f"LR {size_text(latency.lr_size)}, batch {latency.batch}"
            quietness = latency.quietness or benchmark.quietness
            yield f"{subject.name} at {where}, ms", _Figure(latency.timing.median_ms, quietness)


def _names(figures: Mapping[str, object]) -> str:
    return "; ".join(list(figures)[:4]) or "nothing"


def _change(what: str, before: _Figure, now: _Figure, max_regress: float) -> Change:
    least = now.value.low / before.value.high - 1
    reasons = [
        f"other programs took {figure.quietness.other_share:.0%} of the processors in {run}, "
        f"unreliable from {UNRELIABLE_SHARE:.0%} on"
        for run, figure in (("the baseline", before), ("this run", now))
        if figure.quietness.reliability == "unreliable"
    ]
    return Change(
        what,
        before.value.value,
        now.value.value,
        now.value.value / before.value.value - 1,
        least,
        least > max_regress and not reasons,
        "; ".join(reasons),
    )


def differing_conditions(
    baseline: Benchmark, current: Benchmark
) -> dict[str, tuple[object, object]]:
    """Properties of the machine and its settings that differ, then and now, by name.

    Between such runs even ratios change without a change of the code.
    """
    before, now = (
        {
            "device": run.host.device,
            "cpu": run.host.cpu,
            "num_cpus": run.host.num_cpus,
            "power_mode": run.host.power_mode,
            "threads": run.threads,
        }
        for run in (baseline, current)
    )
    return {name: (before[name], now[name]) for name in before if before[name] != now[name]}


def describe_changes(changes: Sequence[Change], *, max_regress: float) -> str:
    """One line for every figure."""
    return "\n".join(
        f"{_verdict(change):<10} {change.what}: {change.before:.3f} -> {change.now:.3f} "
        f"({change.change:+.1%}; beyond both confidence intervals {change.least_change:+.1%}, "
        f"allowed {max_regress:+.1%})"
        for change in changes
    )


def _verdict(change: Change) -> str:
    if change.undecided_reason:
        return "UNDECIDED"
    return "REGRESSION" if change.is_regression else "ok"
