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
        self.held[target.pointer][: source.nbytes] = source.view(np.uint8).reshape(-1)

    def download(self, stream, target, source):
        del stream
        target.view(np.uint8).reshape(-1)[:] = self.held[source.pointer][: target.nbytes]

    def capture(self, stream, enqueue):
        del stream, enqueue
        self.captured += 1
        _, release = self._hold(np.zeros(1))
        return Graph(launch=self.launched.append, release=release)


STREAM = Stream(0, None, lambda: None)
LR, SR = (1, 3, 4, 6), (1, 3, 8, 12)


def nothing() -> None:
    pass


def test_a_repeated_shape_takes_no_new_memory():
    memory, moves = HostMemory(), []
    pool = BufferPool(memory, lambda: moves.append(1))
    first = pool.fit(LR, SR, np.float32)
    for _ in range(100):
        assert pool.fit(LR, SR, np.float32) == first
    assert memory.num_taken == 4
    assert moves == []


def test_a_smaller_shape_keeps_memory_and_addresses():
    memory = HostMemory()
    pool = BufferPool(memory, nothing)
    large = pool.fit(LR, SR, np.float32)
    assert pool.fit((1, 3, 1, 1), (1, 3, 2, 2), np.float32) == large
    assert memory.num_taken == 4


def test_a_larger_shape_gives_the_old_memory_back_after_telling():
    memory, held_when_told = HostMemory(), []
    pool = BufferPool(memory, lambda: held_when_told.append(len(memory.held)))
    pool.fit((1, 3, 2, 2), (1, 3, 4, 4), np.float32)
    pool.fit(LR, SR, np.float32)
    assert held_when_told == [4]
    assert len(memory.held) == 4
    pool.release()
    pool.release()
    assert memory.held == {}


def test_alternating_shapes_settle_at_the_largest():
    memory = HostMemory()
    pool = BufferPool(memory, nothing)
    for step in range(1000):
        wide, high = 2 + step % 7, 2 + step % 5
        pool.fit((1, 3, high, wide), (1, 3, 2 * high, 2 * wide), np.float32)
    assert len(memory.held) == 4
    assert memory.num_taken <= 4 * 7 * 5
    held = sum(array.nbytes for array in memory.held.values())
    assert held == 2 * (1 + 4) * 3 * 8 * 6 * 4


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_picture_goes_there_and_comes_back(integrated, dtype):
    memory = HostMemory(integrated=integrated)
    pool = BufferPool(memory, nothing)
    pool.fit(SR, SR, dtype)
    lr, sr = pool.fit(LR, LR, dtype)
    picture = np.random.default_rng(0).integers(0, 256, LR).astype(dtype)
    lr.view(LR, dtype)[:] = picture
    pool.upload(STREAM, lr, lr.view(LR, dtype))
    memory.held[sr.pointer][:] = memory.held[lr.pointer]
    pool.download(STREAM, sr.view(LR, dtype), sr)
    np.testing.assert_array_equal(sr.view(LR, dtype), picture)


def test_on_an_integrated_gpu_there_is_one_memory_and_no_copy():
    memory = HostMemory(integrated=True)
    lr, sr = BufferPool(memory, nothing).fit(LR, SR, np.float32)
    assert lr.device is None
    assert sr.device is None
    assert memory.held[lr.pointer] is lr.host.array
    assert memory.num_taken == 2


def test_running_out_of_memory_gives_back_what_was_taken():
    memory = HostMemory(limit_bytes=2000)
    pool = BufferPool(memory, nothing)
    with pytest.raises(SwiseError, match="out of GPU memory"):
        pool.fit(LR, SR, np.float32)
    assert memory.held == {}
    pool.fit((1, 3, 1, 1), (1, 3, 2, 2), np.float32)
    assert len(memory.held) == 4


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
