"""Tried and failed, by parser and by command."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, such that it can be tried again, and how."""

    case: str
    reason: str


@dataclass(slots=True)
class Tally:
    """The number of tries of one parser or command, and its failures.

    Attributes:
        name: Of the parser or command.
        seed: From which every choice follows.
        tried: Number of files, kills or limited runs.
        refused: How many of them ended with an error that a user can fix.
        failures: What is not as it was promised.
        aborted: How many runs a library ended in C++ code, where memory ran out.
        skipped: Why nothing was tried; "" where something was.
        peak_mib: Most memory that one file took, beyond what was there before.
        slowest_s: Longest time that one file took.
    """

    name: str
    seed: int
    tried: int = 0
    refused: int = 0
    aborted: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: str = ""
    peak_mib: float = 0.0
    slowest_s: float = 0.0


def table(title: str, tallies: Iterable[Tally]) -> list[str]:
    """Lines of a Markdown table with a last row of sums."""
    rows = list(tallies)
    lines = [f"| {title} | tried | refused | failed |", "|---|---:|---:|---:|"]
    for row in rows:
        if row.skipped:
            lines.append(f"| {row.name} | 0 | | skipped: {row.skipped} |")
        else:
            lines.append(f"| {row.name} | {row.tried:,} | {row.refused:,} | {len(row.failures)} |")
    tried, refused = sum(row.tried for row in rows), sum(row.refused for row in rows)
    failed = sum(len(row.failures) for row in rows)
    lines.append(f"| **all** | **{tried:,}** | **{refused:,}** | **{failed}** |")
    return lines
