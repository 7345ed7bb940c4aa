"""Emulation of a GPU's fp16 and bf16 on a CPU: outputs are rounded after every layer.

On x86, ONNX Runtime has no fp16 kernels. It casts each layer's inputs to fp32 and its output back,
and then removes the casts between two layers, so that the whole graph runs in fp32: nothing is
rounded and nothing overflows, and the drift would be that of rounded weights alone. A Reshape to
the same shape, which has an fp16 kernel, behind every fp16 layer prevents the removal. Of bf16 it
has casts alone, which it does not remove: bf16 layers become fp32 layers with two casts behind.
"""

from collections.abc import Collection

import onnx
from onnx import helper

from swise_deploy.precision import HalfPrecision
from swise_export.graph.number_formats import ONNX_TYPES, tensor_from_values, values_of_tensor

MOVES = frozenset(
    {"Concat", "Constant", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity"}
    | {"Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that copy values, which are rounded already."""

_FP16, _BF16, _FP32 = (ONNX_TYPES[name] for name in ("fp16", "bf16", "fp32"))


def has_halves(
    model: onnx.ModelProto, formats: Collection[HalfPrecision] = ("fp16", "bf16")
) -> bool:
    """True where a model stores weights in fp16 or bf16, or casts to it."""
    types = {ONNX_TYPES[name] for name in formats}
    return any(tensor.data_type in types for tensor in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i in types
        for node in model.graph.node
        for attribute in node.attribute
    )


def with_half_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model so that ONNX Runtime rounds behind every fp16 and bf16 layer on a CPU."""
    shaped = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in shaped.graph.value_info}
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    _widen_bf16(rounded)
    nodes = [*rounded.graph.node]
    del rounded.graph.node[:]
    renamed: dict[str, str] = {}
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        rounded.graph.node.append(node)
        if node.op_type in MOVES:
            continue
        for name in node.output:
            if types.get(name) in (_FP16, _BF16):
                renamed[name] = f"{name}/half"
                is_fp16 = types[name] == _FP16
                rounded.graph.node.extend((barrier if is_fp16 else rounding)(name, renamed[name]))
    return rounded


def barrier(half: str, kept: str) -> list[onnx.NodeProto]:
    """Nodes that copy an fp16 tensor and prevent ONNX Runtime from removing the casts around it."""
    shape = f"{half}/shape"
    return [
        helper.make_node("Shape", [half], [shape]),
        helper.make_node("Reshape", [half, shape], [kept]),
    ]


def rounding(wide: str, rounded: str, precision: HalfPrecision = "bf16") -> list[onnx.NodeProto]:
    """Nodes that round an fp32 tensor to a format and give it as fp32."""
    half = kept = f"{wide}/{precision}"
    nodes = [helper.make_node("Cast", [wide], [half], to=ONNX_TYPES[precision])]
    if precision == "fp16":
        kept = f"{half}/kept"
        nodes.extend(barrier(half, kept))
    return [*nodes, helper.make_node("Cast", [kept], [rounded], to=_FP32)]


def _widen_bf16(model: onnx.ModelProto) -> None:
    """Store and compute the bf16 values of a model in fp32."""
    attributes = [a for node in model.graph.node for a in node.attribute]
    for tensor in (*model.graph.initializer, *(a.t for a in attributes if a.HasField("t"))):
        if tensor.data_type == _BF16:
            tensor.CopyFrom(tensor_from_values(values_of_tensor(tensor), "fp32", tensor.name))
    for attribute in attributes:
        if attribute.name in ("to", "dtype") and attribute.i == _BF16:
            attribute.i = _FP32
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == _BF16:
            value.type.tensor_type.elem_type = _FP32
