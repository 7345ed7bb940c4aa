"""The processors of this machine, and how busy they are."""

import os
from pathlib import Path


def num_usable_cpus() -> int:
    """Number of logical processors that this process may use, which may be fewer than all."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_ticks(root: Path = Path("/")) -> tuple[float, float]:
    """Busy and total ticks of the usable processors, or of all where they have no lines.

    Both are 0 where the system does not state them.
    """
    try:
        text = (root / "proc/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    rows = {
        name: [float(value) for value in values[:8]]
        for name, *values in map(str.split, text.splitlines())
        if name.startswith("cpu")
    }
    usable = [rows[name] for name in _usable_cpu_names() if name in rows]
    counted = usable or [row for name, row in rows.items() if name == "cpu"]
    # user nice system idle iowait irq softirq steal
    total = sum(map(sum, counted))
    return total - sum(row[3] + row[4] for row in counted), total


def _usable_cpu_names() -> list[str]:
    if not hasattr(os, "sched_getaffinity"):
        return []
    return [f"cpu{number}" for number in os.sched_getaffinity(0)]


def own_processor_seconds() -> float:
    """Processor time of this process and of the processes that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class OtherPrograms:
    """Measures the share of the processors that other programs use, from its creation on."""

    def __init__(self) -> None:
        self._busy, self._total = processor_ticks()
        self._own_s = own_processor_seconds()

    def share(self) -> float | None:
        """From 0 to 1; None where the system does not state it."""
        busy, total = processor_ticks()
        if total <= self._total:
            return None
        own_ticks = (own_processor_seconds() - self._own_s) * os.sysconf("SC_CLK_TCK")
        return max(0.0, busy - self._busy - own_ticks) / (total - self._total)
