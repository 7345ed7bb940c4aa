"""Signals of a training run: the first one lets the step end and the state be saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from swise_deploy.command.console import progress

STOPPED = 75
"""Exit code of a run that was stopped and saved before its last step: go on with --resume.

EX_TEMPFAIL of sysexits.h, "try again later": batch systems can requeue on it.
"""

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class StopSignals:
    """Ctrl-C, SIGTERM and SIGUSR1, which batch systems send some time before they kill.

    Before the first step they end the command at once, since there is nothing to save. While steps
    are made the first one only sets `requested`; the second one ends the command at once.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._waiting_for_step = False

    def requested(self) -> bool:
        """Tell whether a signal has come."""
        return self._requested.is_set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """A block in which SIGUSR1 is handled too; the handlers before it come back after it."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._before = before
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def while_training(self) -> Iterator[None]:
        """A block in which steps are made."""
        self._waiting_for_step = True
        try:
            yield
        finally:
            self._waiting_for_step = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._waiting_for_step and not self._requested.is_set():
            self._requested.set()
            progress("stopping after this step; a second signal stops at once")
            return
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt
