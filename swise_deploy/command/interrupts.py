"""Ctrl-C and SIGTERM in commands whose threads work together."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from typing_extensions import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class HeldInterrupts:
    """Holds Ctrl-C and SIGTERM back; a context manager.

    What they raise may come after a lock was taken and before anything is there to give it back, in
    a queue for instance. The other threads then wait for it for ever, and whoever waits for them
    too. So the first one takes effect only where `let_through` says that the thread works alone, or
    on leaving; the second one at once. In threads that get no signals nothing happens.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._held: int | None = None
        self._came = self._open = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):  # neither ignored nor the system's own business
                    self._before[number] = handler
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if not isinstance(exc, KeyboardInterrupt):
            self._deliver()

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """A block in which they take effect at once; before it, what was held does.

        Raises:
            KeyboardInterrupt: Or whatever handles signals outside raises.
        """
        self._open = True
        try:
            self._deliver()
            yield
        finally:
            self._open = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._open or self._came:
            self._came = True
            self._before[number](number, frame)
        else:
            self._came, self._held = True, number

    def _deliver(self) -> None:
        number, self._held = self._held, None
        if number is not None:
            self._before[number](number, None)
