"""Reading, working and writing at the same time, in order; a failure stops its own item only."""

import contextlib
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.command.interrupts import HeldInterrupts
from swise_deploy.errors import SwiseError

Item = TypeVar("Item")
Read = TypeVar("Read")
Worked = TypeVar("Worked")

NUM_THREADS = min(8, max(2, num_usable_cpus()))


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item]):
    """An item that is done, or the error that stopped it."""

    item: Item
    error: SwiseError | None = None


def run_overlapped(
    items: Iterable[Item],
    *,
    read: Callable[[Item], Read],
    work: Callable[[Item, Read], Worked],
    write: Callable[[Item, Worked], None],
    num_threads: int = NUM_THREADS,
) -> Iterator[Outcome[Item]]:
    """Take every item through three steps; while one is worked on, others are read and written.

    Args:
        items: In the order in which they are worked on.
        read: Runs in other threads, up to `num_threads` items ahead.
        work: Runs in the thread that asks for outcomes, one item at a time.
        write: Runs in other threads; at most `num_threads` results wait for it.
        num_threads: Readers, and as many writers.

    Yields:
        An outcome for each item, soon after it is known. Errors that are no SwiseError end the run;
        Ctrl-C does while an item is worked on.
    """
    source = iter(items)
    reading: deque[tuple[Item, Future[Read]]] = deque()
    writing: deque[tuple[Item, Future[None]]] = deque()
    with (
        HeldInterrupts() as interrupts,
        _pool(num_threads, "write") as writers,
        _pool(num_threads, "read") as readers,
    ):

        def read_ahead() -> None:
            for item in itertools.islice(source, num_threads - len(reading)):
                reading.append((item, readers.submit(read, item)))

        read_ahead()
        while reading:
            item, future = reading.popleft()
            try:
                was_read = future.result()
                with interrupts.let_through():
                    worked = work(item, was_read)
            except SwiseError as error:
                yield Outcome(item, error)
            else:
                writing.append((item, writers.submit(write, item, worked)))
            read_ahead()
            while len(writing) >= num_threads or (writing and writing[0][1].done()):
                yield _written(*writing.popleft())
        while writing:
            yield _written(*writing.popleft())


@contextlib.contextmanager
def _pool(num_threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads; on leaving what they are at is finished, and what only waits is dropped."""
    pool = ThreadPoolExecutor(num_threads, name)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _written(item: Item, future: "Future[None]") -> Outcome[Item]:
    try:
        future.result()
    except SwiseError as error:
        return Outcome(item, error)
    return Outcome(item)


class _Stopped(Exception):  # noqa: N818  # a signal between two threads, never seen outside
    """The consumer has gone."""


def prefetched(source: Iterable[Item], *, ahead: int) -> Generator[Item, None, None]:
    """Pass items on in order; a thread runs the iterable up to `ahead` items ahead.

    An error of the iterable is raised here, after the items before it.
    """
    items: queue.Queue[Item | _End] = queue.Queue(ahead)
    stop = threading.Event()

    def produce() -> None:
        end = _End()
        try:
            for item in source:
                _put(items, item, stop)
        except _Stopped:
            return
        except BaseException as error:  # noqa: BLE001  # raised again in the other thread
            end = _End(error)
        with contextlib.suppress(_Stopped):
            _put(items, end, stop)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


def _put(items: "queue.Queue[Item]", item: Item, stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            items.put(item, timeout=0.1)
            return
    raise _Stopped


@contextlib.contextmanager
def consuming(consume: Callable[[Item], None], *, behind: int) -> Iterator[Callable[[Item], None]]:
    """Give a function that hands items to `consume`, which runs in a thread, in order.

    At most `behind` items wait. Leaving the block waits until all are consumed; an error of
    `consume` is raised by the next item or on leaving.
    """
    items: queue.Queue[Item | _End] = queue.Queue(behind)
    failure: list[BaseException] = []

    def run() -> None:
        while not isinstance(item := items.get(), _End):
            if failure:
                continue
            try:
                consume(item)
            except BaseException as error:  # noqa: BLE001  # raised again in the other thread
                failure.append(error)

    def put(item: Item) -> None:
        if failure:
            raise failure[0]
        items.put(item)

    thread = threading.Thread(target=run, name="consume", daemon=True)
    thread.start()
    try:
        yield put
    finally:
        items.put(_End())
        thread.join()
    if failure:
        raise failure[0]
