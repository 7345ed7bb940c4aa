"""An ONNX graph split at its averages over the picture.

Each average becomes two products with weights along H and W, which the caller gives: those of the
part of a tile that counts sum to 1, the others are 0, so that neither margins nor padding count.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.errors import InputError, first_line
from swise_engines.upscaling.tiles.tiling import Span
from swise_export.graph.loading import load_onnx
from swise_export.graph.shapes import shape_graph
from swise_export.graph.values import ValueType
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.interface.ports import Port

Grid: TypeAlias = tuple[int, int]
"""Picture pixels for each pixel of a map of features, along H and W."""

_SPATIAL_AXES = ([2, 3], [-2, -1])
_PROBE_SIDE = 64


@dataclass(frozen=True, slots=True)
class Average:
    """One average over the picture.

    Attributes:
        name: Value in the graph: an input of the parts that are fed.
        found: Output with the weighted average of a tile, (N, C, 1, 1) float32.
        source: The map of features that is averaged, (N, C, h, w).
        grid: Picture pixels for each pixel of that map.
        dtype: Type of the fed value.
        shape: Its shape without the batch.
    """

    name: str
    found: str
    source: str
    grid: Grid
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def weights(self) -> tuple[str, str]:
        """Inputs with the weights along H, (N, 1, 1, h), and W, (N, 1, w, 1), float32."""
        return weight_names(self.grid)


def weight_names(grid: Grid) -> tuple[str, str]:
    """Names of the inputs with the weights along H and W of maps of one grid."""
    return f"swise_rows_{grid[0]}", f"swise_columns_{grid[1]}"


@dataclass(frozen=True, slots=True)
class SplitNetwork:
    """A network in parts.

    Attributes:
        plain: Picture to averages, as the file computes them: for sizes and memory.
        own: Picture and weights to averages; uses the averages of the same picture.
        fed: Picture, weights and averages to use, to averages.
        picture: Picture, weights and averages to use, to the upscaled picture and averages.
        port: The picture input.
        averages: In the order of the graph.
    """

    plain: onnx.ModelProto
    own: onnx.ModelProto
    fed: onnx.ModelProto
    picture: onnx.ModelProto
    port: Port
    averages: tuple[Average, ...]

    @property
    def step(self) -> int:
        """Tiles start at multiples of it, so that maps of every grid are cut between pixels."""
        return math.lcm(*(ratio for average in self.averages for ratio in average.grid))

    def map_sizes(self, width: int, height: int) -> dict[Grid, tuple[int, int]]:
        """(height, width) of the maps of each grid for a picture of that size."""
        shape = self.port.shape(1, width, height)
        types = shape_graph(self.plain, {self.port.name: shape}).types
        return {a.grid: _map_size(types[a.source]) for a in self.averages}


def split_network(path: Path) -> SplitNetwork | None:
    """Split an ONNX file at its averages over the picture; None where it has none.

    Raises:
        InputError: The file cannot be read, or cannot be split.
    """
    model = load_onnx(path)
    interface = read_onnx_file(path).interface
    port, result = interface.input, interface.output.name
    shape = port.shape(1, _PROBE_SIDE, _PROBE_SIDE)
    types = shape_graph(model, {port.name: shape}).types
    constants = {value.name: value for value in model.graph.initializer}
    averages = tuple(
        _described(node, types, path)
        for node in model.graph.node
        if _is_average(node, constants, types)
    )
    if not averages:
        return None
    weights = sorted({name for average in averages for name in average.weights})
    names, found = [a.name for a in averages], [a.found for a in averages]
    try:
        plain = _extracted(model, [port.name], names)
        weighted = _with_weights(model, averages, types)
        own = _extracted(weighted, [port.name, *weights], found)
        fed = _extracted(weighted, [port.name, *weights, *names], found)
        picture = _extracted(weighted, [port.name, *weights, *names], [result, *found])
    except Exception as error:  # onnx raises several kinds
        raise InputError(
            f"{path} cannot be split at its averages: {first_line(error)}. Leave --exact out"
        ) from error
    return SplitNetwork(plain, own, fed, picture, port, averages)


def _is_average(
    node: onnx.NodeProto,
    constants: Mapping[str, onnx.TensorProto],
    types: Mapping[str, ValueType],
) -> bool:
    if node.op_type not in ("GlobalAveragePool", "ReduceMean"):
        return False
    if node.input[0] not in types or len(types[node.input[0]].shape) != 4:
        return False
    if node.op_type == "GlobalAveragePool":
        return True
    axes = [list(a.ints) for a in node.attribute if a.name == "axes"]
    if len(node.input) > 1 and node.input[1] in constants:
        axes = [numpy_helper.to_array(constants[node.input[1]]).tolist()]
    return bool(axes) and axes[0] in _SPATIAL_AXES


def _described(node: onnx.NodeProto, types: Mapping[str, ValueType], path: Path) -> Average:
    source, (name,) = node.input[0], node.output
    height, width = _map_size(types[source])
    if _PROBE_SIDE % height or _PROBE_SIDE % width or name not in types:
        raise InputError(
            f"{path} cannot be split at its averages: {node.name or name} averages {height}x{width}"
            f" features of a picture of {_PROBE_SIDE}x{_PROBE_SIDE}. Leave --exact out"
        )
    dtype = helper.tensor_dtype_to_np_dtype(types[name].dtype)
    grid = _PROBE_SIDE // height, _PROBE_SIDE // width
    return Average(name, f"{name}:found", source, grid, dtype, tuple(types[name].shape[1:]))


def _map_size(value: ValueType) -> tuple[int, int]:
    return value.shape[2], value.shape[3]


def _with_weights(
    model: onnx.ModelProto, averages: tuple[Average, ...], types: Mapping[str, ValueType]
) -> onnx.ModelProto:
    """Replace each average by products with the weights."""
    weighted = onnx.ModelProto()
    weighted.CopyFrom(onnx.shape_inference.infer_shapes(model))
    graph, by_name = weighted.graph, {average.name: average for average in averages}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        average = by_name.get(node.output[0]) if node.output else None
        nodes += [node] if average is None else _products(average, types[average.source].dtype)
    del graph.node[:]
    graph.node.extend(nodes)
    infos = {info.name: info for info in graph.value_info}
    for average in averages:
        rows, columns = average.weights
        channels = types[average.source].shape[1]
        for name, dtype, shape in (
            (average.found, TensorProto.FLOAT, [None, channels, 1, 1]),
            (rows, TensorProto.FLOAT, [None, 1, 1, None]),
            (columns, TensorProto.FLOAT, [None, 1, None, 1]),
            (average.name, types[average.name].dtype, [None, *average.shape]),
        ):
            infos[name] = helper.make_tensor_value_info(name, dtype, shape)
        sizes = np.array([0, *average.shape], np.int64)
        graph.initializer.append(numpy_helper.from_array(sizes, f"{average.name}:shape"))
    del graph.value_info[:]
    graph.value_info.extend(infos.values())
    return weighted


def _products(average: Average, dtype: int) -> list[onnx.NodeProto]:
    rows, columns = average.weights
    name = average.name
    to_float = helper.make_node("Cast", [average.source], [f"{name}:map"], to=TensorProto.FLOAT)
    back = helper.make_node("Cast", [f"{name}:flat"], [name], to=dtype)
    return [
        to_float,
        helper.make_node("MatMul", [rows, f"{name}:map"], [f"{name}:line"]),
        helper.make_node("MatMul", [f"{name}:line", columns], [average.found]),
        helper.make_node("Reshape", [average.found, f"{name}:shape"], [f"{name}:flat"]),
        back,
    ]


def _extracted(model: onnx.ModelProto, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    extracted: onnx.ModelProto = extractor.extract_model(inputs, outputs)
    return extracted


def core_weights(
    span: Span, ratio: int, length: int, *, is_last: bool
) -> tuple[NDArray[np.float32], int]:
    """Weights along one axis of a tile's map, and the number of pixels that count.

    Args:
        span: The tile; what it contributes to the result counts.
        ratio: Picture pixels for each pixel of the map.
        length: Pixels of the map, padding included.
        is_last: Whether the tile ends with the picture, so that all of the rest counts.
    """
    first = (span.fade_in[0] - span.start) // ratio
    end = length if is_last else (span.fade_out[0] - span.start) // ratio
    weights = np.zeros(length, np.float32)
    weights[first:end] = 1 / (end - first)
    return weights, end - first
