"""Progress of a run on stderr: a bar on a terminal, lines in a file."""

import sys
import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from typing_extensions import Self

from swise_deploy.command.console import rich_console
from swise_deploy.storage.context import Closing

# Lines about long preparations, where there is no terminal to draw a bar on.
SECONDS_BETWEEN_LINES = 10.0


class Display(Closing):
    """Progress of preparations and steps; silent in all processes but the first.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = rich_console(stderr=True, quiet=quiet)
        self._drawn = sys.stderr.isatty() and not quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            disable=not self._drawn,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line_s = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def close(self) -> None:
        """Stop drawing."""
        self._progress.stop()

    def note(self, message: str) -> None:
        """One line that stays."""
        if self._drawn:
            self._progress.console.print(message, highlight=False, markup=False)
        elif not self._quiet:
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    def report(self, what: str, done: int, total: int) -> None:
        """Progress of a preparation."""
        self._draw(what, done, total, detail="")
        now = time.monotonic()
        if not self._drawn and now - self._last_line_s > SECONDS_BETWEEN_LINES:
            self._last_line_s = now
            self.note(f"{what}: {done} of {total}")

    def steps(
        self, done: int, total: int, *, loss: float, steps_per_s: float, data_ms: float
    ) -> None:
        """Progress of the training itself; `data_ms` is the time that a step waited for data."""
        detail = f"loss {loss:.5f}  {steps_per_s:.2f} step/s  data {data_ms:.0f} ms"
        self._draw("training", done, total, detail=detail)
        if not self._drawn:
            left_s = (total - done) / steps_per_s if steps_per_s else 0.0
            self.note(f"step {done} of {total}  {detail}  ETA {clock(left_s)}")

    def _draw(self, what: str, done: int, total: int, *, detail: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, detail=detail)
        self._progress.update(self._tasks[what], completed=done, detail=detail)


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
