"""What every runner owes to its callers, on a network that repeats pixels: the answer is known."""

import functools

import numpy as np
import onnxruntime
import pytest

from swise_deploy.runner import Runner, upscale
from swise_engines.running.runner import EngineRunner
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.runtimes.onnxruntime import PROVIDERS, OnnxRunner

RANGE = Profile(Extent(1, 1, 1), Extent(1, 9, 7), Extent(3, 40, 40))


def torch_runner(device):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that torch can use")
    from swise_deploy.checkpoints.load import LoadedNetwork
    from swise_deploy.runners.torch_cpu import TorchRunner

    module = torch.nn.Upsample(scale_factor=2, mode="nearest")
    return TorchRunner(LoadedNetwork(module, "repeat", 2, "nowhere", "0" * 64), device=device)


@pytest.fixture(scope="session")
def engine_of(build_here, make_onnx):
    """Engines by what they compute in or take; each is built once."""
    return functools.cache(lambda which: build_here(file_of(make_onnx, which), RANGE))


def file_of(make_onnx, which):
    return make_onnx("fp32", io="uint8") if which == "uint8" else make_onnx(which)


@pytest.fixture(
    params=[
        "torch",
        "onnx fp32",
        "onnx fp16",
        "onnx uint8",
        *(
            pytest.param(name, marks=pytest.mark.gpu)
            for name in (
                "torch cuda",
                "cuda uint8",
                "engine fp32",
                "engine fp16",
                "engine uint8",
            )
        ),
    ]
)
def runner(request, make_onnx) -> Runner:
    kind, _, which = request.param.partition(" ")
    if kind == "torch":
        return torch_runner(which or "cpu")
    if kind == "onnx":
        return OnnxRunner(file_of(make_onnx, which), threads=1)
    request.getfixturevalue("cuda")
    if kind == "engine":
        return EngineRunner(request.getfixturevalue("engine_of")(which))
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    return OnnxRunner(file_of(make_onnx, which), provider="cuda")


def batch(runner: Runner, batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Levels that fp16 holds exactly, so that every precision gives the same answer."""
    levels = np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)
    if runner.io == "uint8":
        return levels
    return np.ascontiguousarray(levels.transpose(0, 3, 1, 2), np.float32) / np.float32(256)


def repeated(runner: Runner, lr: np.ndarray) -> np.ndarray:
    rows, columns = (1, 2) if runner.io == "uint8" else (2, 3)
    return lr.repeat(runner.scale, rows).repeat(runner.scale, columns)


def test_it_is_a_runner(runner):
    assert isinstance(runner, Runner)
    assert runner.scale == 2
    assert runner.io in ("float", "uint8")


@pytest.mark.parametrize(("n", "height", "width"), [(1, 1, 1), (1, 7, 9), (3, 8, 5), (1, 40, 1)])
def test_any_size_and_batch_gives_the_known_answer(runner, n, height, width):
    with runner:
        lr = batch(runner, n, height, width)
        sr = runner.infer(lr)
        assert sr.dtype == lr.dtype
        np.testing.assert_array_equal(sr, repeated(runner, lr))


def test_runs_do_not_disturb_each_other_or_their_inputs(runner):
    with runner:
        pictures = [batch(runner, 1, 6 + i % 3, 7, seed=i) for i in range(6)]
        copies = [picture.copy() for picture in pictures]
        results = [runner.infer(picture) for picture in pictures]
        for picture, copy, result in zip(pictures, copies, results, strict=True):
            np.testing.assert_array_equal(picture, copy)
            np.testing.assert_array_equal(result, repeated(runner, copy))


def test_the_same_shape_again_and_again_stays_right(runner):
    with runner:
        for seed in range(5):
            lr = batch(runner, 1, 8, 8, seed=seed)
            np.testing.assert_array_equal(runner.infer(lr), repeated(runner, lr))


def test_it_can_be_closed_twice_and_opened_again(runner):
    runner.deactivate()
    with runner:
        pass
    runner.deactivate()
    with runner:
        lr = batch(runner, 1, 4, 4)
        np.testing.assert_array_equal(runner.infer(lr), repeated(runner, lr))


def test_pictures_go_through_it(runner):
    picture = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
    with runner:
        sr = upscale(runner, picture)
    # fp16 holds k/255 to within 2**-12, an eighth of a level after rounding: it stays exact.
    np.testing.assert_array_equal(sr, picture.repeat(2, 0).repeat(2, 1))


def test_its_name_has_runtime_and_device(runner):
    with runner:
        assert len(runner.name) > 3
