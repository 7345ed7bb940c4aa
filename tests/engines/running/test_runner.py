"""EngineRunner without a GPU: its own logic, on an engine whose "kernel" repeats pixels on the CPU.

The double stands for TensorRT's context and the GPU's memory. It works only through addresses, so a
stale address, a missing copy or a graph replayed for another shape gives wrong pixels. The real
thing runs with `pytest -m gpu`.
"""

import numpy as np
import pytest

from swise_deploy.errors import InputError, SwiseError
from swise_engines.running import runner as engine_runner
from swise_engines.running.loaded_engine import EngineFacts
from swise_engines.running.runner import EngineRunner
from swise_engines.tensorrt.profiles import Extent, Profile, profile_from_sizes
from swise_export.interface.ports import Interface, Port

SMALL = Profile(Extent(1, 4, 4), Extent(1, 8, 8), Extent(2, 16, 16))
LARGE = Profile(Extent(1, 32, 32), Extent(1, 40, 40), Extent(1, 64, 64))


class HostContext:
    def __init__(self, engine):
        self.engine = engine
        self.profile = 0
        self.shape = None
        self.addresses = {}

    def set_optimization_profile_async(self, index, stream):
        del stream
        self.profile, self.shape = index, None
        return True

    def set_input_shape(self, name, shape):
        assert name == "lr"
        profile = self.engine.facts.profiles[self.profile]
        fits = profile.takes(Extent(shape[0], shape[3], shape[2])) and shape != self.engine.refused
        self.shape = shape if fits else None
        return fits

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        assert stream
        shape, lr, sr = self.shape, self.addresses["lr"], self.addresses["sr"]
        if shape is None or self.engine.broken:
            return False

        def kernel():
            held = self.engine.cuda.held
            source = held[lr].view(np.float32)[: int(np.prod(shape))].reshape(shape)
            result = source.repeat(2, 2).repeat(2, 3)
            held[sr].view(np.float32)[: result.size] = result.reshape(-1)

        if self.engine.cuda.capturing is None:
            kernel()
        else:
            self.engine.cuda.capturing.append(kernel)
        return True


class HostEngine:
    backend = "tensorrt"
    name = "a double"
    facts = EngineFacts(Interface(Port("lr", "float32"), Port("sr", "float32"), 2), (SMALL, LARGE))
    broken = False
    refused = None

    def __init__(self, cuda):
        self.cuda = cuda
        self.num_contexts = 0
        self.closed = 0

    def create_context(self):
        self.num_contexts += 1
        return HostContext(self)

    def explain(self):
        return "the double was told to fail"

    def close(self):
        self.closed += 1


@pytest.fixture(params=["discrete", "integrated"])
def loaded(request, host_cuda, monkeypatch):
    engine = HostEngine(host_cuda(integrated=request.param == "integrated"))
    monkeypatch.setattr(engine_runner, "LoadedEngine", lambda *_, **__: engine)
    return engine


def picture(height, width, batch=1, seed=0):
    return np.random.default_rng(seed).random((batch, 3, height, width), np.float32)


def repeated(lr):
    return lr.repeat(2, 2).repeat(2, 3)


@pytest.mark.parametrize("use_graphs", [False, True])
def test_any_order_of_shapes_profiles_and_repeats_is_right(loaded, tmp_path, use_graphs):
    sides = [(8, 8), (8, 8), (8, 8), (40, 33), (40, 33), (4, 16), (64, 64), (8, 8), (16, 16)]
    results = []
    with EngineRunner(tmp_path / "a.engine", use_graphs=use_graphs) as runner:
        for seed, (height, width) in enumerate(sides * 3):
            lr = picture(height, width, seed=seed)
            results.append((lr, runner.infer(lr)))
        assert runner.gpu_ms == 1.5
    for lr, sr in results:
        np.testing.assert_array_equal(sr, repeated(lr))
    assert bool(loaded.cuda.captured) is use_graphs


def test_a_repeated_shape_is_replayed(loaded, tmp_path):
    with EngineRunner(tmp_path / "a.engine") as runner:
        for seed in range(10):
            lr = picture(8, 8, seed=seed)
            np.testing.assert_array_equal(runner.infer(lr), repeated(lr))
    assert loaded.cuda.captured == 1
    assert len(loaded.cuda.launched) == 9


def test_what_is_not_contiguous_is_taken_too(loaded, tmp_path):
    lr = picture(8, 12)[:, ::-1, :, ::2]
    with EngineRunner(tmp_path / "a.engine") as runner:
        np.testing.assert_array_equal(runner.infer(lr), repeated(lr))
    assert loaded.closed == 1


def test_everything_is_given_back(loaded, tmp_path):
    runner = EngineRunner(tmp_path / "a.engine")
    with runner:
        for side in (8, 16, 40, 8, 8):
            runner.infer(picture(side, side))
        assert loaded.cuda.held
    assert loaded.cuda.held == {}
    runner.deactivate()
    assert loaded.closed == 1


def test_an_engine_that_gives_no_context_is_unloaded(loaded, tmp_path, monkeypatch):
    def refuse():
        raise SwiseError("no execution context")

    monkeypatch.setattr(loaded, "create_context", refuse)
    with pytest.raises(SwiseError, match="no execution context"):
        EngineRunner(tmp_path / "a.engine").activate()
    assert loaded.closed == 1


def test_shared_runners_have_a_context_each_and_close_the_engine_once(loaded, tmp_path):
    with EngineRunner(tmp_path / "a.engine") as first:
        with first.share() as second:
            one, other = picture(8, 8, seed=1), picture(12, 8, seed=2)
            first_result, second_result = first.infer(one), second.infer(other)
            np.testing.assert_array_equal(first_result, repeated(one))
            np.testing.assert_array_equal(second_result, repeated(other))
        assert loaded.closed == 0
        np.testing.assert_array_equal(first.infer(one), repeated(one))
    assert loaded.num_contexts == 2
    assert loaded.closed == 1
    assert loaded.cuda.held == {}


@pytest.mark.parametrize(
    ("lr", "says"),
    [
        (picture(20, 20), "4x4 to 16x16"),
        (picture(8, 8, batch=3), "batch 3"),
        (picture(8, 8).astype(np.float64), "float64; this engine takes float32"),
        (picture(8, 8)[0], "expected"),
        (picture(8, 8).transpose(0, 2, 3, 1), "expected"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_next_run_is_right(loaded, tmp_path, lr, says):
    with EngineRunner(tmp_path / "a.engine") as runner:
        good = picture(8, 8)
        runner.infer(good)
        with pytest.raises(InputError, match=says):
            runner.infer(lr)
        np.testing.assert_array_equal(runner.infer(good), repeated(good))
    assert loaded.cuda.held == {}


def test_a_failing_run_is_an_error_with_tensorrt_s_words(loaded, tmp_path):
    loaded.broken = True
    with EngineRunner(tmp_path / "a.engine") as runner:
        with pytest.raises(SwiseError, match="the double was told to fail"):
            runner.infer(picture(8, 8))
        loaded.broken = False
        np.testing.assert_array_equal(runner.infer(picture(8, 8)), repeated(picture(8, 8)))


def test_a_shape_that_tensorrt_refuses_leaves_nothing_half_set(loaded, tmp_path):
    good, refused = picture(8, 8), picture(40, 40)
    loaded.refused = refused.shape
    with EngineRunner(tmp_path / "a.engine") as runner:
        runner.infer(good)
        with pytest.raises(SwiseError, match="refuses shape"):
            runner.infer(refused)
        np.testing.assert_array_equal(runner.infer(good), repeated(good))


@pytest.mark.parametrize("loaded", ["discrete"], indirect=True)
def test_too_large_for_the_memory_states_the_sizes(loaded, tmp_path):
    loaded.facts = EngineFacts(HostEngine.facts.interface, (profile_from_sizes([(640, 640)]),))
    runner = EngineRunner(tmp_path / "a.engine")
    with runner, pytest.raises(SwiseError, match="needs 5 MiB, but 1 of 1 MiB are free"):
        runner.infer(picture(640, 640))
    assert loaded.cuda.held == {}


def test_scale_and_io_are_known_from_the_manifest_before_it_is_active(engine):
    runner = EngineRunner(engine)
    assert (runner.scale, runner.io, runner.name) == (2, "float", "tiny.engine")
    engine.with_suffix(".json").unlink()
    with pytest.raises(InputError, match="no manifest"):
        assert runner.scale
