"""Parameters, Mult-Adds and memory traffic of an ONNX file, counted from its graph.

Conventions of the super-resolution literature: 1 Mult-Add is 1 multiply-accumulate (MAC) of a
convolution or matrix product; a bias, an activation, a normalisation and a resize count nothing.
fvcore counts alike; torch's FlopCounterMode counts 2 per MAC. Activations are the output elements
of convolutions and matrix products (NTIRE Efficient Super-Resolution). Any ONNX file can be
counted, without torch.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import get_args

import onnx

from swise_deploy.errors import InputError
from swise_deploy.precision import (
    FilePrecision,
    Precision,
    combined_precision,
    precision_of_type,
)
from swise_export.graph.loading import load_onnx, translated_damage
from swise_export.graph.number_formats import ONNX_TYPES
from swise_export.graph.operators import (
    CONVOLUTIONS,
    FREE,
    INT8_OPERATORS,
    KNOWN,
    MULT_ADDS,
    VIEWS,
    activations_of,
    operator_of,
)
from swise_export.graph.shapes import ShapedGraph, shape_graph
from swise_export.graph.values import ValueType
from swise_export.graph.weights import WeightRoots
from swise_export.interface.onnx_file import OnnxFile, read_onnx_file
from swise_export.interface.ports import CHANNELS, Interface
from swise_export.interface.stated import StatedInput, fixed_dims, picture_input, stated_input

HR_SIZE = (1280, 720)
"""Output size, (W, H), at which the literature states Mult-Adds."""

NTIRE_LR_SIZE = (256, 256)
"""Input size, (W, H), at which the NTIRE Efficient Super-Resolution challenge counts."""


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """Counts of one node.

    Attributes:
        name: The node's name, or that of its first output.
        op_type: ONNX operator.
        params: Stored weights that this node is the first to read, directly or through nodes that
            do not depend on the picture.
        mult_adds: MACs.
        activations: Output elements, for convolutions and matrix products only.
        traffic_bytes: Bytes of its inputs, weights and outputs, each moved once, nothing fused;
            0 for views such as Reshape.
        num_moved: Number of the same elements, whatever their type.
        precision: Type of the arithmetic: "int8" or "fp8" if the operands are outputs of
            DequantizeLinear, else the type of the first input.
    """

    name: str
    op_type: str
    params: int
    mult_adds: int
    activations: int
    traffic_bytes: int
    num_moved: int
    precision: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a graph for one picture of a given size.

    Attributes:
        lr_size: Input size, (W, H).
        sr_size: Output size, (W, H).
        layers: Nodes that compute on the picture, in order; arithmetic on shapes is left out.
        uncounted: Number of nodes by operator, of operators without Mult-Adds by the convention.
        unknown: Nodes that could not be counted, with the reason; the sums do not include them.
    """

    lr_size: tuple[int, int]
    sr_size: tuple[int, int]
    layers: tuple[LayerCounts, ...]
    uncounted: Mapping[str, int]
    unknown: Mapping[str, str]

    @property
    def params(self) -> int:
        """Number of stored weights: floats, and integers that are quantised numbers.

        Weights that the graph transforms first (weight normalisation, a joined kernel, fp32 weights
        before QuantizeLinear) count once, as they are stored; a sparse weight counts its stored
        elements. Rank-0 constants, scales and zero points do not count. A file does not state which
        constants were learned, so a fixed mean or a fixed filter counts as well.
        """
        return sum(layer.params for layer in self.layers)

    @property
    def mult_adds(self) -> int:
        """MACs of convolutions and matrix products."""
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def precision_shares(self) -> dict[str, float]:
        """Shares of the Mult-Adds by precision, the largest first."""
        found: Counter[str] = Counter()
        for layer in self.layers:
            found[layer.precision] += layer.mult_adds
        return {name: n / self.mult_adds for name, n in found.most_common() if n}

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
        """Bytes moved if every node reads its inputs and writes its outputs; fusion lowers it."""
        return sum(layer.traffic_bytes for layer in self.layers)


def lr_size_for_hr(scale: int, hr_size: tuple[int, int] = HR_SIZE) -> tuple[int, int]:
    """Input size, (W, H), for an output of `hr_size`; each side is rounded down.

    1280 is not a multiple of 3: at x3, 426x240 is counted, which gives 1278x720.
    """
    return hr_size[0] // scale, hr_size[1] // scale


def count_onnx(source: Path | onnx.ModelProto, *, lr_size: tuple[int, int] | None = None) -> Counts:
    """Count an ONNX file.

    Args:
        source: A file, or a model in memory.
        lr_size: Input size, (W, H); None for the size that gives a 1280x720 output. A file of fixed
            size is counted at that size, which the result states.

    Raises:
        InputError: The source is not an ONNX file with one picture input and one picture output.
    """
    if isinstance(source, Path):
        with translated_damage(source):
            return _count_source(source, lr_size)
    return _count_source(source, lr_size)


def _count_source(source: Path | onnx.ModelProto, lr_size: tuple[int, int] | None) -> Counts:
    model = source if isinstance(source, onnx.ModelProto) else load_onnx(source)
    name = "the ONNX model" if isinstance(source, onnx.ModelProto) else str(source)
    info = picture_input(model, name)
    stated, multiple = stated_input(model, name), 1
    interface = _interface_of(source) if isinstance(source, Path) else None
    if interface is not None:
        # A run shows more than the graph states: layout, the only size, the multiple.
        stated = StatedInput(interface.input, interface.size, interface.batch)
        multiple = interface.multiple
    if stated is not None and stated.size is not None:
        lr_size = stated.size

    def count(size: tuple[int, int]) -> Counts:
        # A graph of features, with any number of channels, can be counted as well.
        batch = (stated.batch if stated else fixed_dims(info)[0]) or 1
        width, height = (-(-side // multiple) * multiple for side in size)
        shape = (batch, fixed_dims(info)[1] or 3, height, width)
        return _count(
            model, info.name, stated.port.shape(batch, width, height) if stated else shape
        )

    if lr_size is None:
        probe = count((64, 64))
        lr_size = lr_size_for_hr(max(1, round(probe.sr_size[0] / probe.lr_size[0])))
    return count(lr_size)


def _interface_of(path: Path) -> Interface | None:
    """The interface of a file; None where it is not a picture network."""
    try:
        return read_onnx_file(path).interface
    except InputError:
        return None


@functools.lru_cache(maxsize=64)
def precision_of_file(file: OnnxFile) -> FilePrecision | None:
    """Precision of a file's convolutions and matrix products: stated in the file, or counted.

    None where the file does not state it and its layers cannot be counted.
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
    """Count a model for one shape of its input `picture`."""
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
    layers, unknown = _count_layers(graph, picture, batch=shape[0])
    uncounted = Counter(layer.op_type for layer in layers if layer.op_type in FREE)
    return Counts(
        (width, height),
        (sr_width, sr_height),
        layers,
        dict(uncounted),
        {**graph.unknown, **unknown},
    )


def _count_layers(
    graph: ShapedGraph, picture: str, *, batch: int
) -> tuple[tuple[LayerCounts, ...], dict[str, str]]:
    """The nodes that compute on the picture, and those of unknown Mult-Adds, with the reason.

    Of a graph with a fixed batch, one picture's share is counted.
    """
    on_data = {picture}
    roots = WeightRoots(graph)
    dequantised: dict[str, Precision] = {}
    read: set[str] = set()
    layers, unknown = [], {}
    for node, repeat in zip(graph.nodes, graph.repeats, strict=True):
        if node.op_type == "DequantizeLinear":
            dequantised.update(dict.fromkeys(node.output, _stored_precision(node, graph)))
        if on_data.isdisjoint(node.input):
            roots.follow(node)
            continue
        if node.op_type in ("Shape", "Size"):
            continue
        on_data.update(node.output)
        if not all(name in graph.types for name in (*node.input, *node.output) if name):
            continue
        weights = roots.read_by(node) - read
        read |= weights
        params = sum(
            graph.stored_elements.get(name, graph.types[name].num_elements) for name in weights
        )
        share = Fraction(repeat, batch)
        layer = _count_node(node, graph, share=share, params=params, dequantised=dequantised)
        layers.append(layer)
        if layer.op_type not in KNOWN:
            unknown[layer.name] = f"the Mult-Adds of {layer.op_type} are unknown"
    return tuple(layers), unknown


def _count_node(
    node: onnx.NodeProto,
    graph: ShapedGraph,
    *,
    share: Fraction,
    params: int,
    dequantised: Mapping[str, Precision],
) -> LayerCounts:
    inputs = [graph.types[name] if name else None for name in node.input]
    outputs = [graph.types[name] for name in node.output if name]
    op_type = operator_of(node)
    multiplies = MULT_ADDS.get(op_type)
    operands = [name for name in node.input[:2] if name]
    stored = {dequantised.get(name) for name in operands} if multiplies else {None}
    quantised = next(iter(stored)) if len(stored) == 1 else None
    moved = [] if op_type in VIEWS else [t for t in (*inputs, *outputs) if t is not None]
    return LayerCounts(
        name=node.name or next(name for name in node.output if name),
        op_type=op_type,
        params=params,
        mult_adds=int(share * multiplies(node, inputs, outputs[0])) if multiplies else 0,
        activations=int(share * activations_of(node, inputs, outputs[0])) if multiplies else 0,
        traffic_bytes=int(share * sum(t.size_bytes for t in moved)),
        num_moved=int(share * sum(t.num_elements for t in moved)),
        precision=quantised or _precision(op_type, inputs),
    )


def _stored_precision(node: onnx.NodeProto, graph: ShapedGraph) -> Precision:
    """The precision of a DequantizeLinear's stored numbers; integers of any kind are INT8."""
    stored = graph.types.get(node.input[0])
    is_fp8 = stored is not None and stored.dtype == ONNX_TYPES["fp8"]
    return "fp8" if is_fp8 else "int8"


def _precision(op_type: str, inputs: list[ValueType | None]) -> str:
    if op_type in INT8_OPERATORS:
        return "int8"
    if not inputs or inputs[0] is None:
        return "unknown"
    name: str = onnx.TensorProto.DataType.Name(inputs[0].dtype)
    return precision_of_type(name) or name.lower()
