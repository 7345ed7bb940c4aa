"""Small ONNX networks that behave in a known way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

OPSET = helper.make_opsetid("", 17)


def _kernel(radius: int) -> np.ndarray:
    """3 to 12 channels: each channel by itself, blurred over (2*radius + 1)^2, four times."""
    size = 2 * radius + 1
    blur = np.random.default_rng(0).random((size, size), np.float32)
    blur[radius, radius] += blur.sum()
    kernel = np.zeros((12, 3, size, size), np.float32)
    for channel in range(12):
        kernel[channel, channel // 4] = blur / blur.sum()
    return kernel


def _save_network(
    path: Path,
    *,
    radius: int,
    uint8: bool,
    averages: bool,
    size: tuple[int, int] | None,
    batch: int | None,
) -> Path:
    weights = [
        numpy_helper.from_array(_kernel(radius), "kernel"),
        numpy_helper.from_array(np.array(255, np.float32), "peak"),
        numpy_helper.from_array(np.array(0.25, np.float32), "quarter"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
    ]
    nodes = []
    picture = "lr"
    if uint8:
        nodes += [
            helper.make_node("Cast", ["lr"], ["eight_bit"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["eight_bit", "peak"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        picture = "planes"
    nodes.append(helper.make_node("Conv", [picture, "kernel"], ["wide"], pads=[radius] * 4))
    features = "wide"
    if averages:
        nodes += [
            helper.make_node("GlobalAveragePool", ["wide"], ["mean"]),
            helper.make_node("Mul", ["mean", "quarter"], ["part"]),
            helper.make_node("Add", ["wide", "part"], ["shifted"]),
        ]
        features = "shifted"
    result = "up" if uint8 else "sr"
    nodes.append(helper.make_node("DepthToSpace", [features], [result], blocksize=2, mode="CRD"))
    if uint8:
        nodes += [
            helper.make_node("Clip", ["up", "zero", "one"], ["clipped"]),
            helper.make_node("Mul", ["clipped", "peak"], ["stretched"]),
            helper.make_node("Round", ["stretched"], ["rounded"]),
            helper.make_node("Cast", ["rounded"], ["cast"], to=TensorProto.UINT8),
            helper.make_node("Transpose", ["cast"], ["sr"], perm=[0, 2, 3, 1]),
        ]
    dtype = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    width, height = size or ("width", "height")
    wide, high = ("width_x2", "height_x2") if size is None else (2 * size[0], 2 * size[1])
    first = batch or "batch"
    shapes: list[tuple[int | str, ...]] = [(first, 3, height, width), (first, 3, high, wide)]
    if uint8:
        shapes = [(n, h, w, c) for n, c, h, w in shapes]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("lr", dtype, shapes[0])],
        [helper.make_tensor_value_info("sr", dtype, shapes[1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[OPSET], ir_version=9)
    helper.set_model_props(model, {"swise.scale": "2", "swise.io": "uint8" if uint8 else "float"})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def small_network(tmp_path: Path) -> Callable[..., Path]:
    """Write an x2 network: an enlargement by repetition after a blur of `radius` pixels.

    `averages` adds a quarter of the picture's mean to every pixel.
    """

    def save(
        *,
        radius: int = 2,
        uint8: bool = False,
        averages: bool = False,
        size: tuple[int, int] | None = None,
        batch: int | None = None,
    ) -> Path:
        name = f"small_{radius}_{uint8}_{averages}_{size}_{batch}.onnx"
        return _save_network(
            tmp_path / name, radius=radius, uint8=uint8, averages=averages, size=size, batch=batch
        )

    return save


@pytest.fixture(scope="session")
def _verdicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Which runner is fastest for each network: measured once in all tests."""
    return tmp_path_factory.mktemp("fastest")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, _verdicts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what one test measures from the user's cache and, but for verdicts, from other tests."""
    cache = tmp_path / "cache"
    (cache / "swise-deploy").mkdir(parents=True)
    (cache / "swise-deploy" / "fastest").symlink_to(_verdicts, target_is_directory=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
