"""A small network as an ONNX file, pictures, and one real benchmark of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from swise_bench.benchmark import Settings, run_benchmark
from swise_bench.results.values import Benchmark
from swise_bench.subjects.spec import parse_subject


def save_nearest(path: Path, *, blur: bool = False, size: tuple[int, int] | None = None) -> Path:
    """An x2 upscaler: each pixel four times, through a convolution and PixelShuffle.

    `size` is the only (width, height) that it takes; None for any.
    """
    width, height = size or ("w", "h")
    large = (size[1] * 2, size[0] * 2) if size else ("h2", "w2")
    weight = np.zeros((12, 3, 3, 3), np.float32)
    for channel in range(3):
        weight[4 * channel : 4 * channel + 4, channel, 1, 1] = 1
        if blur:
            weight[4 * channel : 4 * channel + 4, channel] = 1 / 9
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Conv", ["lr", "weight"], ["features"], name="conv", pads=[1, 1, 1, 1]),
            node("DepthToSpace", ["features"], ["sr"], name="up", blocksize=2, mode="CRD"),
        ],
        "nearest",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ("n", 3, height, width))],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ("n", 3, *large))],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two smooth pictures of odd sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(1)
    for name, size in (("first.png", (61, 45)), ("second.png", (50, 70))):
        noise = generator.integers(0, 256, (9, 8, 3), np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    return folder


@pytest.fixture
def make_nearest() -> Callable[..., Path]:
    """Writes the small network where and as a test wants it."""
    return save_nearest


@pytest.fixture(scope="session")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network's file."""
    return save_nearest(tmp_path_factory.mktemp("onnx") / "nearest.onnx")


@pytest.fixture(scope="session")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a worse result."""
    return save_nearest(tmp_path_factory.mktemp("onnx") / "blurred.onnx", blur=True)


@pytest.fixture(scope="session")
def benchmark_run(
    nearest: Path, blurred: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Benchmark:
    """Everything that can be measured of the two here."""
    return run_benchmark(
        Settings(
            subjects=(parse_subject(str(nearest)), parse_subject(str(blurred))),
            lr_sizes=((16, 12),),
            batches=(1, 2),
            min_runs=8,
            max_seconds=0.5,
            images=(pictures,),
            with_memory=True,
            with_energy=False,
            with_layers=True,
            cache=tmp_path_factory.mktemp("cache"),
        )
    )
