"""Memory and graphs of a runner, on a binding whose "GPU" is the CPU's own memory.

What is under test is when memory is taken, kept and given back, and when a graph may be replayed:
logic of this project. CUDA itself is tested with `pytest -m gpu`.
"""

import contextlib

import numpy as np
import pytest

from swise_deploy.errors import SwiseError
from swise_engines.buffers import BufferPool
from swise_engines.cuda import Device, DeviceBuffer, Graph, HostBuffer, Stream, out_of_memory
from swise_engines.graphs import GraphOfShape


class HostMemory:
    """The boundary of CUDA over plain memory; counts what is taken and not given back."""

    name = "host memory"
    has_graphs = True

    def __init__(self, *, integrated: bool = False, limit_bytes: int = 1 << 20) -> None:
        self.device = Device("host", "0.0", limit_bytes, integrated, "0.0")
        self.held: dict[int, np.ndarray] = {}
        self.num_taken = 0
        self.captured = 0
        self.launched: list[Stream] = []

    @contextlib.contextmanager
    def use(self):
        yield

    def free_memory(self):
        used = sum(array.nbytes for array in self.held.values())
        return self.device.memory_bytes - used, self.device.memory_bytes

    def allocate(self, size_bytes):
        free, total = self.free_memory()
        if size_bytes > free:
            raise out_of_memory(size_bytes, free, total, "a device buffer")
        pointer, release = self._hold(np.zeros(size_bytes, np.uint8))
        return DeviceBuffer(pointer, size_bytes, release)

    def allocate_host(self, shape, dtype, *, mapped):
        array = np.zeros(shape, dtype)
        pointer, release = self._hold(array)
        return HostBuffer(array, pointer if mapped else 0, release)

    def _hold(self, array):
        self.num_taken += 1
        pointer = self.num_taken
        self.held[pointer] = array
        return pointer, lambda: self.held.pop(pointer)

    def upload(self, stream, target, source):
        del stream
        self.held[target.pointer][:] = source.array.view(np.uint8).reshape(-1)

    def download(self, stream, target, source):
        del stream
        target.array.view(np.uint8).reshape(-1)[:] = self.held[source.pointer]

    def capture(self, stream, enqueue):
        del stream, enqueue
        self.captured += 1
        _, release = self._hold(np.zeros(1))
        return Graph(launch=self.launched.append, release=release)


STREAM = Stream(0, None, lambda: None)
LR, SR = (1, 3, 4, 6), (1, 3, 8, 12)


def fit(pool, lr=LR, sr=SR, changes=None):
    changes = [] if changes is None else changes
    return pool.fit(lr, sr, np.float32, on_change=lambda: changes.append(1))


def test_a_repeated_shape_takes_no_new_memory():
    memory = HostMemory()
    pool, changes = BufferPool(memory), []
    first = fit(pool, changes=changes)
    for _ in range(100):
        assert fit(pool, changes=changes) == first
    assert memory.num_taken == 4
    assert len(changes) == 1


def test_another_shape_gives_the_old_memory_back_after_telling():
    memory = HostMemory()
    pool = BufferPool(memory)
    fit(pool)
    held_when_told = []
    pool.fit(
        (1, 3, 2, 2),
        (1, 3, 4, 4),
        np.float32,
        on_change=lambda: held_when_told.append(len(memory.held)),
    )
    assert held_when_told == [4]
    assert len(memory.held) == 4
    pool.release()
    pool.release()
    assert memory.held == {}


def test_alternating_shapes_leak_nothing():
    memory = HostMemory()
    pool = BufferPool(memory)
    for step in range(1000):
        side = 2 + step % 7
        fit(pool, (1, 3, side, side), (1, 3, 2 * side, 2 * side))
    assert len(memory.held) == 4


def test_the_picture_goes_there_and_comes_back():
    memory = HostMemory()
    pool = BufferPool(memory)
    lr, sr = fit(pool, LR, LR)
    lr.host.array[:] = np.random.default_rng(0).random(LR)
    pool.upload(STREAM)
    memory.held[sr.pointer][:] = memory.held[lr.pointer]
    pool.download(STREAM)
    np.testing.assert_array_equal(sr.host.array, lr.host.array)


def test_on_an_integrated_gpu_nothing_is_copied():
    memory = HostMemory(integrated=True)
    pool = BufferPool(memory)
    lr, sr = fit(pool)
    assert lr.device is None
    assert sr.device is None
    assert memory.held[lr.pointer] is lr.host.array
    assert memory.num_taken == 2
    pool.upload(STREAM)
    pool.download(STREAM)


def test_running_out_of_memory_gives_back_what_was_taken():
    memory = HostMemory(limit_bytes=2000)
    pool = BufferPool(memory)
    with pytest.raises(SwiseError, match="out of GPU memory"):
        fit(pool)
    pool.release()
    assert memory.held == {}


class Runs:
    def __init__(self) -> None:
        self.cuda = HostMemory()
        self.graphs = GraphOfShape(self.cuda)
        self.enqueued = 0

    def __call__(self, shape):
        self.graphs.run(STREAM, shape, self.enqueue)

    def enqueue(self):
        self.enqueued += 1


def test_a_shape_is_recorded_once_it_repeats_and_then_replayed():
    runs = Runs()
    for _ in range(5):
        runs(LR)
    assert (runs.enqueued, runs.cuda.captured, len(runs.cuda.launched)) == (1, 1, 4)


def test_another_shape_is_never_replayed_from_the_graph_of_the_last():
    runs = Runs()
    for shape in (LR, LR, SR, LR):
        runs(shape)
    assert runs.cuda.captured == 1
    assert len(runs.cuda.launched) == 1
    assert runs.enqueued == 3
    assert runs.cuda.held == {}


def test_forgetting_gives_the_graph_back_and_starts_over():
    runs = Runs()
    runs(LR)
    runs(LR)
    assert len(runs.cuda.held) == 1
    runs.graphs.forget()
    assert runs.cuda.held == {}
    runs(LR)
    assert runs.enqueued == 2
