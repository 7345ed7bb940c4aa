"""Makes ONNX Runtime's CPU compute an fp16 graph as a GPU does: rounded to half after every layer.

On x86, ONNX Runtime has no fp16 kernels. It casts each layer's inputs to fp32 and its output back,
and then removes the casts between two layers, so that the whole graph runs in fp32: nothing is
rounded and nothing overflows. Drift measured that way would be that of the weights alone. Here a
Reshape to the same shape, which has an fp16 kernel, stands behind every fp16 layer and keeps the
casts apart.
"""

import onnx
from onnx import helper

MOVES = frozenset(
    {"Concat", "Constant", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity"}
    | {"Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that pass values on as they are: what they give was rounded before."""


def with_half_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with a barrier behind every fp16 layer; the copy is for the CPU only."""
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
    """Nodes that pass an fp16 tensor on in a way that keeps ONNX Runtime's casts apart."""
    shape = f"{half}/shape"
    return [
        helper.make_node("Shape", [half], [shape]),
        helper.make_node("Reshape", [half, shape], [kept]),
    ]
