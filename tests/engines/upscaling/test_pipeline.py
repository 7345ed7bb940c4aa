import os
import signal
import threading
import time
from collections.abc import Generator

import pytest

from swise_deploy.errors import InputError
from swise_engines.upscaling.pipeline import consuming, prefetched, run_overlapped


def test_reading_working_and_writing_overlap():
    barrier = threading.Barrier(3, timeout=10)  # passed only if all three run at once

    def step(item):
        if 4 <= item <= 6:
            barrier.wait()
        return item

    def read(item):
        return step(item) if item == 6 else item

    def work(item, _):
        return step(item) if item == 5 else item

    def write(item, _):
        if item == 4:
            step(item)

    outcomes = list(run_overlapped(range(12), read=read, work=work, write=write, num_threads=2))
    assert sorted(o.item for o in outcomes) == list(range(12))


@pytest.mark.parametrize("stage", ["read", "work", "write"])
def test_a_failure_stops_its_own_item_only(stage):
    written = []

    def failing(name):
        def run(item, *rest):
            if name == stage and item % 3 == 0:
                raise InputError(f"no {item}")
            if name == "write":
                written.append(item)
            return rest[0] if rest else item

        return run

    outcomes = list(
        run_overlapped(
            range(10), read=failing("read"), work=failing("work"), write=failing("write")
        )
    )
    assert sorted(o.item for o in outcomes) == list(range(10))
    assert sorted(o.item for o in outcomes if o.error) == [0, 3, 6, 9]
    assert sorted(written) == [1, 2, 4, 5, 7, 8]


def test_a_bug_is_not_swallowed():
    def work(item, _):
        raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        list(run_overlapped([1], read=lambda i: i, work=work, write=lambda *_: None))


def test_leaving_early_finishes_what_is_being_written():
    started, finished = [], []

    def write(item, _):
        started.append(item)
        time.sleep(0.02)
        finished.append(item)

    outcomes = run_overlapped(
        range(100), read=lambda i: i, work=lambda i, _: i, write=write, num_threads=2
    )
    next(outcomes)
    assert isinstance(outcomes, Generator)
    outcomes.close()
    assert sorted(started) == sorted(finished)
    assert len(started) < 20


def test_ctrl_c_waits_until_no_lock_can_be_held():
    """Raised inside a future's or a queue's lock it left the lock taken, and the run hung."""
    worked = []

    def read(item):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)  # the main thread waits for this, and hears it now
        return item

    def work(item, _was_read):
        worked.append(item)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            list(run_overlapped(range(1), read=read, work=work, write=lambda *_: None))
    finally:
        signal.signal(signal.SIGINT, before)
    assert worked == []
    assert caught.traceback[-1].name == "_deliver"


def test_prefetched_items_keep_their_order_and_the_error_comes_last():
    def source():
        yield from range(5)
        raise InputError("end")

    items = prefetched(source(), ahead=2)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="end"):
        next(items)


def test_prefetching_stops_when_its_consumer_leaves():
    produced = []

    def source():
        for i in range(1000):
            produced.append(i)
            yield i

    items = prefetched(source(), ahead=2)
    next(items)
    items.close()
    assert len(produced) <= 5


def test_consumed_items_keep_their_order_and_an_error_comes_out():
    seen: list[int] = []
    with consuming(seen.append, behind=1) as put:
        for i in range(20):
            put(i)
    assert seen == list(range(20))

    def fail(item):
        raise InputError(f"no {item}")

    with pytest.raises(InputError, match="no 1"), consuming(fail, behind=1) as put:
        put(1)
