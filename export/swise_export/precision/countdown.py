"""Progress of a long loop, with an estimate of the time that is left."""

import time
from collections.abc import Callable

_INTERVAL_S = 5.0


class Countdown:
    """Reports every few seconds how many steps are done and how much time is left.

    Args:
        title: Name of the loop.
        num_steps: Number of steps.
        unit: Name of the steps, plural.
        report: Receives lines of progress.
    """

    def __init__(
        self, title: str, num_steps: int, unit: str, *, report: Callable[[str], None]
    ) -> None:
        self._title, self._num_steps, self._unit, self._report = title, num_steps, unit, report
        self._start = self._last_report = time.monotonic()
        self._num_done = self._num_timed = 0

    def advance(self, *, took_time: bool = True) -> None:
        """Count one step; steps that took no time do not enter the estimate."""
        self._num_done += 1
        self._num_timed += took_time
        now = time.monotonic()
        if self._num_timed and now - self._last_report > _INTERVAL_S:
            self._last_report = now
            left_s = (now - self._start) / self._num_timed * (self._num_steps - self._num_done)
            self._report(
                f"{self._title}: {self._num_done} of {self._num_steps} {self._unit}, "
                f"{left_s:.0f} s left"
            )
