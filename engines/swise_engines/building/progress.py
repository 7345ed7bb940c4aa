"""Progress of a build and its cancellation, through TensorRT's IProgressMonitor."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from swise_deploy.command.console import rich_console
from swise_engines.tensorrt.api import Api

Report = Callable[[str, float], None]
"""Called with the current phase and the share of the build that is done, 0 to 1."""


@dataclass(slots=True)
class _Phase:
    parent: str | None
    num_steps: int
    done: int = 0


@dataclass(slots=True)
class BuildProgress:
    """The state of a build: TensorRT reports nested phases, each with its number of steps."""

    report: Report
    cancelled: bool = False
    _phases: dict[str, _Phase] = field(default_factory=dict)
    _share: float = 0.0

    def start(self, phase: str, parent: str | None, num_steps: int) -> None:
        """A phase begins."""
        self._phases[phase] = _Phase(parent, max(1, num_steps))
        self._report(phase)

    def step(self, phase: str, step: int) -> bool:
        """A step of a phase is done; False asks TensorRT to stop."""
        if phase in self._phases:
            self._phases[phase].done = step + 1
            self._report(phase)
        return not self.cancelled

    def finish(self, phase: str) -> None:
        """A phase ends; its parent takes its next step itself."""
        ended = self._phases.pop(phase, None)
        if ended is not None and ended.parent is None:
            self._share = 1.0
            self.report(phase, 1.0)

    def cancel(self) -> None:
        """Stop at the next step."""
        self.cancelled = True

    def check(self) -> None:
        """Stop here where the build was cancelled.

        Raises:
            KeyboardInterrupt: It was.
        """
        if self.cancelled:
            raise KeyboardInterrupt

    def _report(self, phase: str) -> None:
        # A phase counts as one step of its parent; the share never decreases.
        share, weight = 0.0, 1.0
        for link in reversed(self._chain(phase)):
            share += weight * min(1.0, link.done / link.num_steps)
            weight /= link.num_steps
        self._share = max(self._share, min(1.0, share))
        self.report(phase, self._share)

    def _chain(self, phase: str | None) -> list[_Phase]:
        chain = []
        while phase is not None and phase in self._phases:
            chain.append(self._phases[phase])
            phase = self._phases[phase].parent
        return chain


def reports_progress(trt: ModuleType) -> bool:
    """True if a TensorRT reports the steps of a build, and can be stopped at one of them."""
    return hasattr(trt, "IProgressMonitor")


def monitor_from_progress(trt: ModuleType, progress: BuildProgress) -> Api | None:
    """TensorRT's view of a BuildProgress; None for TensorRT 8, whose Python reports nothing."""
    if not reports_progress(trt):
        return None
    base: Any = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]  # a class that exists only once TensorRT is imported
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


@contextlib.contextmanager
def stopping_on_ctrl_c(progress: BuildProgress) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM cancel a build, then do what they did before.

    An exception is lost in the callbacks of TensorRT's C++ code, such as its log: a signal only
    cancels the build, and is raised again at the end of this block. Outside the main thread, where
    Python allows no signal handler, the caller cancels by itself.

    Raises:
        KeyboardInterrupt: The build was cancelled, by a signal or otherwise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
    else:
        caught: list[int] = []

        def cancel(signum: int, frame: FrameType | None) -> None:
            del frame
            caught.append(signum)
            progress.cancel()

        previous = {n: signal.signal(n, cancel) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, before in previous.items():
                signal.signal(number, before)
            for again in caught[:1]:  # also where the build failed meanwhile
                signal.raise_signal(again)
    progress.check()


@contextlib.contextmanager
def ending_on_ctrl_c(*, has_steps: bool) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process during a call that reports no steps.

    Python handles a signal only when the call returns, which is minutes later.

    Args:
        has_steps: Whether the call reports steps, at which it can be stopped; nothing is done then.
    """
    if has_steps or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {n: signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _report_nothing(phase: str, share: float) -> None:
    del phase, share


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """Show a bar on stderr where that is a terminal; gives the function to report to."""
    console = rich_console(stderr=True)
    if not console.is_terminal:
        yield _report_nothing
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[phase]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0, phase="")

        def show(phase: str, share: float) -> None:
            bar.update(task, completed=share, phase=phase)

        yield show
