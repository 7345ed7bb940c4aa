"""Memory and graphs of a runner, on a binding whose "GPU" is the CPU's own memory.

These tests cover when memory is allocated and freed, and when a graph is replayed. CUDA itself is
tested with `pytest -m gpu`.
"""

import numpy as np
import pytest

from swise_deploy.errors import SwiseError
from swise_engines.cuda.boundary import Stream
from swise_engines.cuda.buffers import BufferPool
from swise_engines.cuda.graphs import GraphOfShape

STREAM = Stream(0, None, lambda: None)
LR, SR = (1, 3, 4, 6), (1, 3, 8, 12)


def nothing() -> None:
    pass


def test_a_repeated_shape_allocates_no_memory(host_cuda):
    memory, moves = host_cuda(), []
    pool = BufferPool(memory, lambda: moves.append(1))
    first = pool.fit((LR, np.float32), (SR, np.float32))
    for _ in range(100):
        assert pool.fit((LR, np.float32), (SR, np.float32)) == first
    assert memory.num_taken == 4
    assert moves == []


def test_a_smaller_shape_keeps_memory_and_addresses(host_cuda):
    memory = host_cuda()
    pool = BufferPool(memory, nothing)
    large = pool.fit((LR, np.float32), (SR, np.float32))
    assert pool.fit(((1, 3, 1, 1), np.float32), ((1, 3, 2, 2), np.float32)) == large
    assert memory.num_taken == 4


def test_a_larger_shape_frees_the_old_memory_after_the_callback(host_cuda):
    memory, held_in_callback = host_cuda(), []
    pool = BufferPool(memory, lambda: held_in_callback.append(len(memory.held)))
    pool.fit(((1, 3, 2, 2), np.float32), ((1, 3, 4, 4), np.float32))
    pool.fit((LR, np.float32), (SR, np.float32))
    assert held_in_callback == [4]
    assert len(memory.held) == 4
    pool.release()
    pool.release()
    assert memory.held == {}


def test_alternating_shapes_settle_at_the_largest(host_cuda):
    memory = host_cuda()
    pool = BufferPool(memory, nothing)
    for step in range(1000):
        wide, high = 2 + step % 7, 2 + step % 5
        pool.fit(((1, 3, high, wide), np.float32), ((1, 3, 2 * high, 2 * wide), np.float32))
    assert len(memory.held) == 4
    assert memory.num_taken <= 4 * 7 * 5
    held = sum(array.nbytes for array in memory.held.values())
    assert held == 2 * (1 + 4) * 3 * 8 * 6 * 4


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_picture_goes_there_and_comes_back(integrated, dtype, host_cuda):
    memory = host_cuda(integrated=integrated)
    pool = BufferPool(memory, nothing)
    pool.fit((SR, dtype), (SR, dtype))
    lr, sr = pool.fit((LR, dtype), (LR, dtype))
    picture = np.random.default_rng(0).integers(0, 256, LR).astype(dtype)
    lr.view(LR, dtype)[:] = picture
    pool.upload(STREAM, lr, lr.view(LR, dtype))
    memory.held[sr.pointer][:] = memory.held[lr.pointer]
    pool.download(STREAM, sr.view(LR, dtype), sr)
    np.testing.assert_array_equal(sr.view(LR, dtype), picture)


def test_on_an_integrated_gpu_there_is_one_memory_and_no_copy(host_cuda):
    memory = host_cuda(integrated=True)
    lr, sr = BufferPool(memory, nothing).fit((LR, np.float32), (SR, np.float32))
    assert lr.device is None
    assert sr.device is None
    assert memory.held[lr.pointer] is lr.host.array
    assert memory.num_taken == 2


def test_running_out_of_memory_frees_what_was_allocated(host_cuda):
    memory = host_cuda(limit_bytes=1000)
    pool = BufferPool(memory, nothing)
    with pytest.raises(SwiseError, match="out of GPU memory"):
        pool.fit((LR, np.float32), (SR, np.float32))
    assert memory.held == {}
    pool.fit(((1, 3, 1, 1), np.float32), ((1, 3, 2, 2), np.float32))
    assert len(memory.held) == 4


class Runs:
    def __init__(self, memory) -> None:
        self.cuda = memory
        self.graphs = GraphOfShape(self.cuda)
        self.enqueued = 0

    def __call__(self, shape):
        self.graphs.run(STREAM, shape, self.enqueue)

    def enqueue(self):
        self.enqueued += 1


def test_a_shape_that_repeats_is_captured_once_and_then_replayed(host_cuda):
    runs = Runs(host_cuda())
    for _ in range(5):
        runs(LR)
    assert (runs.enqueued, runs.cuda.captured, len(runs.cuda.launched)) == (2, 1, 4)


def test_another_shape_is_never_replayed_from_the_graph_of_the_last(host_cuda):
    runs = Runs(host_cuda())
    for shape in (LR, LR, SR, LR):
        runs(shape)
    assert runs.cuda.captured == 1
    assert len(runs.cuda.launched) == 1
    assert runs.enqueued == 4
    assert runs.cuda.held == {}


def test_forgetting_frees_the_graph_and_starts_over(host_cuda):
    runs = Runs(host_cuda())
    runs(LR)
    runs(LR)
    assert len(runs.cuda.held) == 1
    runs.graphs.forget()
    assert runs.cuda.held == {}
    runs(LR)
    assert runs.enqueued == 3


def test_what_cannot_be_captured_runs_without_graphs_and_warns_once(host_cuda, monkeypatch, caplog):
    runs = Runs(host_cuda())

    def refuse(*_):
        raise SwiseError("operation not permitted when stream is capturing")

    monkeypatch.setattr(runs.cuda, "capture", refuse)
    for shape in (LR, LR, LR, SR, SR):
        runs(shape)
    assert runs.enqueued == 5
    assert [record.getMessage() for record in caplog.records] == [
        "runs without CUDA graphs: operation not permitted when stream is capturing"
    ]
