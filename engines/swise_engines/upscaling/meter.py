"""Progress lines: at most one a second, with speed and time left."""

import time
from collections.abc import Callable

from swise_deploy.command.console import progress

_INTERVAL_S = 1.0


class Meter:
    """Prints the progress of a run on stderr.

    Args:
        unit: What is counted, such as "files" or "frames".
        is_quiet: Print nothing.
        write: Takes a line.
    """

    def __init__(
        self, unit: str, *, is_quiet: bool, write: Callable[[str], None] = progress
    ) -> None:
        self._unit = unit
        self._is_quiet = is_quiet
        self._write = write
        self._start_s = self._last_s = time.perf_counter()

    def update(self, done: float, total: float | None, label: str = "") -> None:
        """Print a line if the last one is a second old, or all is done.

        Args:
            done: Units that are finished; a part of one counts.
            total: All units; None where the number is not known.
            label: What is worked on.
        """
        now_s = time.perf_counter()
        is_last = total is not None and done >= total
        if self._is_quiet or done <= 0 or not (is_last or now_s - self._last_s >= _INTERVAL_S):
            return
        self._last_s = now_s
        self._write(progress_line(done, total, now_s - self._start_s, self._unit, label))


def progress_line(
    done: float, total: float | None, elapsed_s: float, unit: str, label: str = ""
) -> str:
    """One line such as "frames 30/120 25%  9.61 frames/s, 0:09 left  clip.mp4"."""
    rate = done / max(elapsed_s, 1e-9)
    count = f"{int(done)}"
    if total is not None:
        count += f"/{total:g} {min(100 * done / total, 100):.0f}%"
    left = "" if total is None else f", {clock(max(total - done, 0) / rate)} left"
    return f"{unit} {count}  {rate:.2f} {unit}/s{left}" + (f"  {label}" if label else "")


def clock(seconds: float) -> str:
    """A duration as minutes:seconds, or hours:minutes:seconds from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
