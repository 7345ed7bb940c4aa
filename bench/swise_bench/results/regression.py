"""The regression gate: is it slower than before, beyond what noise explains?

Absolute times move with the machine's mood, ratios between subjects of one interleaved run hardly
do. So, wherever two runs share a reference subject, their ratios are compared; times are compared
only where one subject is all there is. A regression counts when even the favourable ends of both
confidence intervals exceed the allowance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swise_deploy.errors import InputError

_CONDITIONS = ("device", "cpu", "num_cpus", "power_mode", "threads")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure then and now.

    Attributes:
        what: Subject, input size, batch, and what it is relative to.
        before: Value of the baseline.
        now: Value of this run.
        change: now / before - 1.
        least_change: The same with both intervals taken in favour of this run.
        is_regression: Whether least_change exceeds the allowance.
    """

    what: str
    before: float
    now: float
    change: float
    least_change: float
    is_regression: bool


def compare_documents(
    baseline: Mapping[str, Any], current: Mapping[str, Any], *, max_regress: float
) -> list[Change]:
    """Compare two documents of `document_from_benchmark`.

    Args:
        baseline: The older one.
        current: The newer one.
        max_regress: Allowed slowdown, 0.05 for 5%.

    Raises:
        InputError: They have nothing in common.
    """
    before, now = _figures(baseline), _figures(current)
    common = [key for key in now if key in before]
    if not common:
        raise InputError(
            f"the baseline measured {_names(before)}; this run {_names(now)}. Expected a subject, "
            "input size and batch that are in both: give the same subjects, the same one first"
        )
    return [_change(key, before[key], now[key], max_regress) for key in common]


def _figures(document: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    if document["ratios"]:
        return {
            f"{r['subject']} / {r['reference']} at {_size(r)}": r["times_slower"]
            for r in document["ratios"]
        }
    return {
        f"{subject['name']} at {_size(latency)}, ms": latency["timing"]["median_ms"]
        for subject in document["subjects"]
        for latency in subject["latencies"]
    }


def _size(entry: Mapping[str, Any]) -> str:
    width, height = entry["lr_size"]
    return f"LR {width}x{height}, batch {entry['batch']}"


def _names(figures: Mapping[str, object]) -> str:
    return "; ".join(list(figures)[:4]) or "nothing"


def _change(
    what: str, before: Mapping[str, float], now: Mapping[str, float], max_regress: float
) -> Change:
    least = now["low"] / before["high"] - 1
    return Change(
        what,
        before["value"],
        now["value"],
        now["value"] / before["value"] - 1,
        least,
        least > max_regress,
    )


def differing_conditions(
    baseline: Mapping[str, Any], current: Mapping[str, Any]
) -> dict[str, tuple[object, object]]:
    """What differs in the machine or its setting, then and now, by name.

    Between such runs even ratios change without a change of the code.
    """
    before, now = ({**document["host"], **document} for document in (baseline, current))
    return {name: (before[name], now[name]) for name in _CONDITIONS if before[name] != now[name]}


def describe_changes(changes: Sequence[Change], *, max_regress: float) -> str:
    """One line for every figure."""
    lines = []
    for change in changes:
        verdict = "REGRESSION" if change.is_regression else "ok"
        lines.append(
            f"{verdict:<10} {change.what}: {change.before:.3f} -> {change.now:.3f} "
            f"({change.change:+.1%}; beyond both confidence intervals {change.least_change:+.1%}, "
            f"allowed {max_regress:+.1%})"
        )
    return "\n".join(lines)
