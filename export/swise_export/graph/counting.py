"""What an ONNX file costs, counted from its graph: parameters, Mult-Adds, memory traffic.

Conventions of the super-resolution literature: 1 Mult-Add is 1 multiply-accumulate (MAC) of a
convolution or matrix product; a bias, an activation, a normalisation and a resize count nothing.
So do fvcore; torch's FlopCounterMode counts 2 per MAC. Activations are the output elements of
those same operators (NTIRE Efficient Super-Resolution). No torch, and the file does not have to be
this project's.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import onnx
from onnx import helper

from swise_deploy.errors import InputError
from swise_deploy.precision import (
    FilePrecision,
    Precision,
    combined_precision,
    precision_of_onnx_type,
)
from swise_export.graph.interface import CHANNELS
from swise_export.graph.loading import load_onnx
from swise_export.graph.model import OnnxFile, read_onnx_file
from swise_export.graph.shapes import ShapedGraph, ValueType, shape_graph
from swise_export.graph.stated import StatedInput, fixed_dims, picture_input, stated_input

HR_SIZE = (1280, 720)
"""Output size, (W, H), at which the literature states Mult-Adds."""

NTIRE_LR_SIZE = (256, 256)
"""Input size, (W, H), at which the NTIRE Efficient Super-Resolution challenge counts."""


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """What one node costs.

    Attributes:
        name: The node's name, or its first output's.
        op_type: ONNX operator.
        output_shape: Shape of the first output.
        params: Stored weights that this node is the first to read.
        mult_adds: MACs.
        activations: Output elements, for convolutions and matrix products only.
        traffic_bytes: Inputs read once and outputs written once, weights included, nothing fused.
            Views (Reshape and its like) move nothing.
        num_moved: Elements of the same, whatever their type.
        precision: Type of the arithmetic: "int8" where the operands come out of DequantizeLinear,
            else the type of the first input.
    """

    name: str
    op_type: str
    output_shape: tuple[int, ...]
    params: int
    mult_adds: int
    activations: int
    traffic_bytes: int
    num_moved: int
    precision: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a graph costs at one input size, batch 1.

    Attributes:
        lr_size: Input size, (W, H), that was counted.
        sr_size: Output size, (W, H).
        layers: The nodes that run on data, in order; arithmetic on shapes is left out.
        uncounted: Operators that compute but have no Mult-Adds by the convention, and how many of
            each.
        unknown: Nodes that could not be counted, with the reason; the sums miss them.
    """

    lr_size: tuple[int, int]
    sr_size: tuple[int, int]
    layers: tuple[LayerCounts, ...]
    uncounted: Mapping[str, int]
    unknown: Mapping[str, str]

    @property
    def params(self) -> int:
        """Stored weights: floats, or integers that are dequantised.

        Rank-0 constants are literals, not weights. A file does not say which constants were
        learned: a fixed mean or a fixed filter counts too.
        """
        return sum(layer.params for layer in self.layers)

    @property
    def mult_adds(self) -> int:
        """MACs of convolutions and matrix products."""
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def activations(self) -> int:
        """Output elements of convolutions and matrix products."""
        return sum(layer.activations for layer in self.layers)

    @property
    def num_convolutions(self) -> int:
        """Number of convolution nodes."""
        return sum(layer.op_type in CONVOLUTIONS for layer in self.layers)

    @property
    def traffic_bytes(self) -> int:
        """Bytes moved if every node read its inputs and wrote its outputs; fusion lowers it."""
        return sum(layer.traffic_bytes for layer in self.layers)


def lr_size_for_hr(scale: int, hr_size: tuple[int, int] = HR_SIZE) -> tuple[int, int]:
    """Input size, (W, H), for an output of `hr_size`; each side is rounded down.

    For 1280x720, x3 is no integer: 426x240 is counted, which gives 1278x720.
    """
    return hr_size[0] // scale, hr_size[1] // scale


def count_onnx(source: Path | onnx.ModelProto, *, lr_size: tuple[int, int] | None = None) -> Counts:
    """Count an ONNX file.

    Args:
        source: A file, or a model in memory.
        lr_size: Input size, (W, H). None takes the size that gives a 1280x720 output. A file of
            fixed size is counted at its own, which the result states.

    Raises:
        InputError: No ONNX file, or not one picture in and one picture out.
    """
    model = source if isinstance(source, onnx.ModelProto) else load_onnx(source)
    name = "the ONNX model" if isinstance(source, onnx.ModelProto) else str(source)
    info = picture_input(model, name)
    stated = stated_input(model, name)
    if stated is None and isinstance(source, Path):  # its layout shows in a run alone
        interface = read_onnx_file(source).interface
        stated = StatedInput(interface.input, interface.size, interface.batch)
    if stated is not None and stated.size is not None:
        lr_size = stated.size

    def count(size: tuple[int, int]) -> Counts:
        # Features of any number of channels can be counted, too.
        shape = (1, fixed_dims(info)[1] or 3, size[1], size[0])
        return _count(model, info.name, stated.port.shape(1, *size) if stated else shape)

    if lr_size is None:
        probe = count((64, 64))
        lr_size = lr_size_for_hr(max(1, round(probe.sr_size[0] / 64)))
    return count(lr_size)


@functools.lru_cache(maxsize=64)
def precision_of_file(file: OnnxFile) -> FilePrecision | None:
    """Precision of a file's convolutions and matrix products; what the file states goes first.

    None where the file states nothing and its layers cannot be counted.
    """
    if file.precision:
        return file.precision
    try:
        layers = count_onnx(file.path, lr_size=file.interface.size or (64, 64)).layers
    except InputError:
        return None
    found = {layer.precision for layer in layers if layer.mult_adds}
    known = {p for p in get_args(Precision) if p in found}
    return combined_precision(known) if found == known else None


def _count(model: onnx.ModelProto, picture: str, shape: tuple[int, int, int, int]) -> Counts:
    """Count at one shape of the input called `picture`."""
    channels_last = shape[3] in CHANNELS and shape[1] not in CHANNELS
    height, width = shape[1:3] if channels_last else shape[2:4]
    graph = shape_graph(model, {picture: shape})
    outputs = [graph.types.get(info.name) for info in model.graph.output]
    output = next((value for value in outputs if value and len(value.shape) == 4), None)
    if output is None:
        reason = next(iter(graph.unknown.items()), ("its output", "is not a picture"))
        raise InputError(
            f"the output size at LR {width}x{height} cannot be inferred: {reason[0]}: {reason[1]}"
        )
    nhwc = channels_last and output.shape[3] in CHANNELS
    sr_height, sr_width = output.shape[1:3] if nhwc else output.shape[2:4]
    layers = _count_layers(graph, picture)
    uncounted = Counter(
        layer.op_type
        for layer in layers
        if layer.op_type not in MULT_ADDS and layer.op_type not in MOVERS
    )
    return Counts((width, height), (sr_width, sr_height), layers, dict(uncounted), graph.unknown)


def _count_layers(graph: ShapedGraph, picture: str) -> tuple[LayerCounts, ...]:
    on_data = {picture}
    origin: dict[str, str] = {name: name for name in graph.weights}
    dequantised: dict[str, ValueType] = {}
    read: set[str] = set()
    layers = []
    for node in graph.nodes:
        known = all(name in graph.types for name in (*node.input, *node.output) if name)
        if node.op_type in _WEIGHT_CARRIERS and node.input and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        if node.op_type == "DequantizeLinear" and known:
            dequantised[node.output[0]] = graph.types[node.input[0]]
        if on_data.isdisjoint(node.input) or node.op_type in ("Shape", "Size"):
            continue
        on_data.update(node.output)
        if known:
            layers.append(_count_node(node, graph, origin, dequantised, read))
    return tuple(layers)


def _count_node(
    node: onnx.NodeProto,
    graph: ShapedGraph,
    origin: Mapping[str, str],
    dequantised: Mapping[str, ValueType],
    read: set[str],
) -> LayerCounts:
    inputs = [graph.types[name] if name else None for name in node.input]
    outputs = [graph.types[name] for name in node.output if name]
    params = 0
    for index, name in enumerate(node.input):
        root = origin.get(name, "")
        if root and root not in read and _holds_weights(node, index, graph.types[root]):
            read.add(root)
            params += graph.types[root].num_elements
    multiplies = MULT_ADDS.get(node.op_type)
    operands = [name for name in node.input[:2] if name]
    is_int8 = bool(multiplies) and all(name in dequantised for name in operands)
    moved = [] if node.op_type in VIEWS else [t for t in (*inputs, *outputs) if t is not None]
    return LayerCounts(
        name=node.name or node.output[0],
        op_type=node.op_type,
        output_shape=outputs[0].shape,
        params=params,
        mult_adds=multiplies(node, inputs, outputs[0]) if multiplies else 0,
        activations=outputs[0].num_elements if multiplies else 0,
        traffic_bytes=sum(t.size_bytes for t in moved),
        num_moved=sum(t.num_elements for t in moved),
        precision="int8" if is_int8 else _precision(node, inputs),
    )


def _precision(node: onnx.NodeProto, inputs: list[ValueType | None]) -> str:
    if node.op_type in ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"):
        return "int8"
    if not inputs or inputs[0] is None:
        return "unknown"
    name: str = onnx.TensorProto.DataType.Name(inputs[0].dtype)
    return precision_of_onnx_type(name) or name.lower()


_WEIGHT_CARRIERS = frozenset(
    {"Cast", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "DequantizeLinear"}
)
_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    | {onnx.TensorProto.DOUBLE}
)
# Operators whose further inputs are settings, not weights.
_SETTINGS_AFTER_FIRST = frozenset(
    {"Resize", "Upsample", "QuantizeLinear", "DequantizeLinear", "Clip", "Pad", "Pow", "Where"}
)
_WEIGHT_INPUTS = {"QLinearConv": (3, 8), "QLinearMatMul": (3,), "ConvInteger": (1,)}


def _holds_weights(node: onnx.NodeProto, index: int, stored: ValueType) -> bool:
    if node.op_type in _WEIGHT_INPUTS:
        return index in _WEIGHT_INPUTS[node.op_type]
    if node.op_type in _SETTINGS_AFTER_FIRST and index > 0:
        return False
    # Integers reach float arithmetic only through DequantizeLinear; indices and sizes stay
    # integers.
    is_number = stored.dtype in _FLOATS or node.op_type in MULT_ADDS
    return is_number and bool(stored.shape)


_MultAdds = Callable[[onnx.NodeProto, "list[ValueType | None]", ValueType], int]


def _convolution(node: onnx.NodeProto, inputs: list[ValueType | None], output: ValueType) -> int:
    weight = _present(inputs[3 if node.op_type == "QLinearConv" else 1])
    return output.num_elements * math.prod(weight.shape[1:])


def _transposed_convolution(
    node: onnx.NodeProto, inputs: list[ValueType | None], output: ValueType
) -> int:
    del node, output
    return _present(inputs[0]).num_elements * math.prod(_present(inputs[1]).shape[1:])


def _matrix_product(node: onnx.NodeProto, inputs: list[ValueType | None], output: ValueType) -> int:
    del node
    return output.num_elements * _present(inputs[0]).shape[-1]


def _gemm(node: onnx.NodeProto, inputs: list[ValueType | None], output: ValueType) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return output.num_elements * _present(inputs[0]).shape[0 if transposed else 1]


def _einsum(node: onnx.NodeProto, inputs: list[ValueType | None], output: ValueType) -> int:
    del output
    equation = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "equation")
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, value in zip(terms, inputs, strict=True):
        sizes.update(zip(term, _present(value).shape, strict=True))
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _present(value: ValueType | None) -> ValueType:
    assert value is not None, "the schema makes this input mandatory"
    return value


MULT_ADDS: Mapping[str, _MultAdds] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "QLinearMatMul": _matrix_product,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
"""How many MACs a node does. Group convolution divides by itself: the weight holds C_in/groups."""

CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "ConvTranspose"})

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Operators that only look at memory differently."""

MOVERS = VIEWS | frozenset(
    {
        "Concat",
        "Split",
        "Slice",
        "Transpose",
        "DepthToSpace",
        "SpaceToDepth",
        "Pad",
        "Expand",
        "Tile",
    }
    | {"Gather", "Cast", "QuantizeLinear", "DequantizeLinear"}
)
"""Operators that move or convert data and compute nothing."""
