"""Emulation of a GPU's fp16 and bf16 on a CPU: outputs are rounded after every layer.

On x86, ONNX Runtime has no fp16 kernels. It casts each layer's inputs to fp32 and its output back,
and then removes casts between two layers: nothing is rounded and nothing overflows there, and the
drift would be that of rounded weights alone. Of bf16 it has casts and nothing else. So the graph is
computed in fp32, and what a layer gives in fp16 or bf16 is rounded by casts that stay: of fp16 with
a Reshape to the same shape between them, without which they would be removed. A Reshape behind
layers that are fp16 themselves is not enough: some of them become fp32 with it (1.32.0).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import onnx
from onnx import helper

from swise_deploy.precision import HalfPrecision
from swise_export.graph.number_formats import ONNX_TYPES, tensor_from_values, values_of_tensor

MOVES = frozenset(
    {"Concat", "Constant", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity"}
    | {"Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that copy values, which are rounded already."""

_FORMATS: Sequence[HalfPrecision] = get_args(HalfPrecision)
_BY_TYPE: Mapping[int, HalfPrecision] = {ONNX_TYPES[name]: name for name in _FORMATS}
_FP32 = ONNX_TYPES["fp32"]


def with_half_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model so that ONNX Runtime rounds behind every fp16 and bf16 layer on a CPU.

    The types of its inputs and outputs do not change.
    """
    shaped = onnx.shape_inference.infer_shapes(model)
    values = (*shaped.graph.value_info, *model.graph.output)
    formats = {v.name: _BY_TYPE.get(v.type.tensor_type.elem_type) for v in values}
    outputs = {value.name for value in model.graph.output}
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    _widen(rounded.graph)
    nodes = [*rounded.graph.node]
    del rounded.graph.node[:]
    renamed: dict[str, str] = {}
    for value in model.graph.input:
        if value.type.tensor_type.elem_type in _BY_TYPE:
            renamed[value.name] = f"{value.name}/wide"
            rounded.graph.node.append(_cast(value.name, renamed[value.name], _FP32))
    for node in nodes:
        _rename_inputs(node, renamed)
        behind: list[onnx.NodeProto] = []
        for i, name in enumerate(node.output):
            precision = formats.get(name)
            if precision is None or (node.op_type in MOVES and name not in outputs):
                continue
            node.output[i] = f"{name}/exact" if name in outputs else name
            renamed[name] = f"{name}/half"
            behind += rounding(node.output[i], renamed[name], precision)
            if name in outputs:
                behind.append(_cast(renamed[name], name, ONNX_TYPES[precision]))
        rounded.graph.node.extend([node, *behind])
    return rounded


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], to=to)


def rounding(
    wide: str, rounded: str, precision: HalfPrecision, *, prefix: str = ""
) -> list[onnx.NodeProto]:
    """Nodes that round an fp32 tensor to a format and give it as fp32.

    Args:
        wide: The tensor.
        rounded: Name of the result.
        precision: The format.
        prefix: Begins the names between; `wide` where it is empty.
    """
    half = kept = f"{prefix or wide}/{precision}"
    nodes = [_cast(wide, half, ONNX_TYPES[precision])]
    if precision == "fp16":
        shape, kept = f"{half}/shape", f"{half}/kept"
        nodes.append(helper.make_node("Shape", [half], [shape]))
        nodes.append(helper.make_node("Reshape", [half, shape], [kept]))
    return [*nodes, _cast(kept, rounded, _FP32)]


def _rename_inputs(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and the graphs inside it, read other tensors."""
    for i, name in enumerate(node.input):
        node.input[i] = names.get(name, name)
    for graph in _graphs_inside(node):
        for inner in graph.node:
            _rename_inputs(inner, names)


def _graphs_inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _widen(graph: onnx.GraphProto) -> None:
    """Store and compute the fp16 and bf16 values of a graph in fp32."""
    attributes = [a for node in graph.node for a in node.attribute]
    for tensor in (*graph.initializer, *(a.t for a in attributes if a.HasField("t"))):
        if tensor.data_type in _BY_TYPE:
            tensor.CopyFrom(tensor_from_values(values_of_tensor(tensor), "fp32", tensor.name))
    for attribute in attributes:
        if attribute.name in ("to", "dtype") and attribute.i in _BY_TYPE:
            attribute.i = _FP32
    for value in graph.value_info:
        if value.type.tensor_type.elem_type in _BY_TYPE:
            value.type.tensor_type.elem_type = _FP32
    for node in graph.node:
        for inner in _graphs_inside(node):
            _widen(inner)
            for value in inner.output:
                if value.type.tensor_type.elem_type in _BY_TYPE:
                    value.type.tensor_type.elem_type = _FP32
