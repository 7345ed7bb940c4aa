"""Ctrl-C and SIGTERM in commands whose threads work together."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from typing_extensions import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldInterrupts:
    """A context manager that defers Ctrl-C and SIGTERM.

    A signal may arrive when a thread has just acquired a lock, in a queue for instance, and has not
    yet prepared to release it. The other threads would then wait for the lock for ever. So the
    first signal takes effect only inside `let_through`, where the thread works alone, or on
    leaving; the second signal takes effect at once. Threads other than the main one get no signals.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._held: int | None = None
        self._came = self._open = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):  # neither ignored nor handled by the system
                    self._before[number] = handler
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, _kind: object, raised: object, _traceback: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if not isinstance(raised, KeyboardInterrupt):
            self._deliver()

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """A block in which signals take effect at once; a deferred signal takes effect before it.

        Raises:
            KeyboardInterrupt: Raised by Python's handler; another handler may raise another error.
        """
        self._open = True
        try:
            self._deliver()
            yield
        finally:
            self._open = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._open or self._came:
            self._came, self._held = True, None
            self._before[number](number, frame)
        else:
            self._came, self._held = True, number

    def _deliver(self) -> None:
        number, self._held = self._held, None
        if number is not None:
            self._before[number](number, None)
