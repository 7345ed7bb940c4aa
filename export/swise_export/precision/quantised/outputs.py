"""INT8 between layers, for runtimes with kernels only for layers whose output is quantised too.

ONNX Runtime's QLinearConv is such a kernel: behind a convolution without a quantised output it
computes in fp32. So outputs of layers are quantised, and what multiplies, activates, joins or
rearranges them computes in INT8 as well. Sums stay in fp32, since the features to which block after
block is added collect the rounding of each, and so does what the picture is made of.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

import onnx

from swise_deploy.evaluation.pairs import Pair
from swise_export.graph.activations import tensors_on_pictures
from swise_export.precision.quantised.qdq import CHANNEL_AXIS, Layer

# Operators that ONNX Runtime's CPU computes in INT8 (QLinear...), or that move values alone.
_BETWEEN = frozenset(
    {"Concat", "DepthToSpace", "GlobalAveragePool", "LeakyRelu", "Mul", "Pad", "Relu", "Slice"}
)

Span = tuple[float, float]
"""Lowest and highest value of a tensor."""


def with_int8_kernels(model: onnx.ModelProto, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers for which ONNX Runtime's CPU has INT8 kernels.

    They are matrix products, and convolutions whose output is not what the picture is made of.
    There is none for transposed convolutions.
    """
    last = _in_front_of_picture(model)
    return tuple(
        layer
        for layer in layers
        if layer.op_type == "MatMul" or (layer.op_type == "Conv" and layer.name not in last)
    )


def nodes_between(model: onnx.ModelProto, layers: Collection[Layer]) -> tuple[str, ...]:
    """Nodes that read nothing but quantised tensors and that can be quantised themselves.

    A Concat is one too if layers alone read it; its parts are then quantised one by one.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    constant = stored | {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    outputs = {value.name for value in model.graph.output}
    names = {layer.name for layer in layers}
    read_by_layers = {layer.input for layer in layers}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    quantised = {
        node.output[0] for node in model.graph.node if node.name in names and node.op_type == "Conv"
    }
    found = []
    for node in model.graph.node:
        output = node.output[0] if node.output else ""
        if node.op_type not in _BETWEEN or not node.name or output in outputs:
            continue
        parts = _data_inputs(node)
        joins_for_layers = (
            node.op_type == "Concat"
            and output in read_by_layers
            and names.issuperset(readers.get(output, ()))
            and constant.isdisjoint(parts)
        )
        if quantised.issuperset(parts) or joins_for_layers:
            found.append(node.name)
            quantised.add(output)
    return tuple(found)


def quantised_outputs(model: onnx.ModelProto, layers: Collection[Layer]) -> set[str]:
    """Tensors that kernels of INT8 write; a Concat of sums is joined in front of them."""
    names = {layer.name for layer in layers if layer.op_type == "Conv"}
    names |= set(nodes_between(model, layers))
    return {
        node.output[0]
        for node in model.graph.node
        if node.name in names and node.op_type != "Concat"
    }


def measure_spans(
    model: onnx.ModelProto, layers: Collection[Layer], pairs: Sequence[Pair]
) -> dict[str, Span]:
    """Spans of the tensors around some layers and the nodes between them, on LR pictures."""
    names = {layer.name for layer in layers} | set(nodes_between(model, layers))
    stored = {tensor.name for tensor in model.graph.initializer}
    tensors = [
        name
        for name in dict.fromkeys(
            name
            for node in model.graph.node
            if node.name in names
            for name in (*_data_inputs(node), node.output[0])
        )
        if name not in stored
    ]
    spans: dict[str, Span] = {}
    for values in tensors_on_pictures(model, tensors, [pair.lr for pair in pairs]):
        for name, value in values.items():
            lowest, highest = spans.get(name, (0.0, 0.0))
            spans[name] = min(lowest, float(value.min())), max(highest, float(value.max()))
    return spans


def _data_inputs(node: onnx.NodeProto) -> list[str]:
    return list(node.input) if node.op_type in ("Concat", "Mul") else [node.input[0]]


def _in_front_of_picture(model: onnx.ModelProto) -> set[str]:
    """Layers between which and the output of the model there is no other layer."""
    producers = {name: node for node in model.graph.node for name in node.output}
    pending = [value.name for value in model.graph.output]
    seen: set[str] = set()
    found: set[str] = set()
    while pending:
        name = pending.pop()
        node = producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in CHANNEL_AXIS:
            found.add(node.name)
        else:
            pending.extend(node.input)
    return found


class Outputs(TypedDict):
    """Arguments of `quantised_from_fp32` that quantise outputs of layers."""

    between: Collection[str]
    spans: Mapping[str, Span] | None


def outputs_of(
    model: onnx.ModelProto, layers: Collection[Layer], spans: Mapping[str, Span]
) -> Outputs:
    """Those arguments; none where a plan has no spans."""
    return Outputs(between=nodes_between(model, layers) if spans else (), spans=spans or None)
