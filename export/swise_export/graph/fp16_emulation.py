"""Emulation of a GPU's fp16 on a CPU: outputs are rounded to half precision after every layer.

On x86, ONNX Runtime has no fp16 kernels. It casts each layer's inputs to fp32 and its output back,
and then removes the casts between two layers, so that the whole graph runs in fp32: nothing is
rounded and nothing overflows, and the drift would be that of rounded weights alone. A Reshape to
the same shape, which has an fp16 kernel, behind every fp16 layer prevents the removal.
"""

import onnx
from onnx import helper

MOVES = frozenset(
    {"Concat", "Constant", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity"}
    | {"Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that copy values, which are rounded already."""


def has_halves(model: onnx.ModelProto) -> bool:
    """True where a model stores weights in fp16 or casts to fp16."""
    half = onnx.TensorProto.FLOAT16
    return any(tensor.data_type == half for tensor in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i == half
        for node in model.graph.node
        for attribute in node.attribute
    )


def with_half_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model and add a barrier behind every fp16 layer, for ONNX Runtime on a CPU."""
    shaped = onnx.shape_inference.infer_shapes(model)
    halves = {
        value.name
        for value in shaped.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    }
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    del rounded.graph.node[:]
    renamed: dict[str, str] = {}
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        rounded.graph.node.append(node)
        if node.op_type in MOVES:
            continue
        for name in node.output:
            if name in halves:
                renamed[name] = f"{name}/half"
                rounded.graph.node.extend(barrier(name, renamed[name]))
    return rounded


def barrier(half: str, kept: str) -> list[onnx.NodeProto]:
    """Nodes that copy an fp16 tensor and prevent ONNX Runtime from removing the casts around it."""
    shape = f"{half}/shape"
    return [
        helper.make_node("Shape", [half], [shape]),
        helper.make_node("Reshape", [half, shape], [kept]),
    ]
