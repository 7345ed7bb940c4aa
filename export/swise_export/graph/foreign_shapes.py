"""Shape rules of ONNX Runtime's own operators, and of standard ones without a rule in ONNX.

ONNX Runtime's ContribOperators.md describes the operators. Most of them are a standard operator
with more attributes, or keep the shape of an input.
"""

from collections.abc import Mapping

import onnx
from onnx import helper, shape_inference

from swise_export.graph.operators import attribute, operator_of
from swise_export.graph.values import ValueType, type_proto

_ORT = "com.microsoft"
_NCHWC = "com.microsoft.nchwc"

# By operator: the standard operator, the positions of its inputs, and its attributes.
_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads")
_EQUIVALENTS: Mapping[str, tuple[str, tuple[int, ...], tuple[str, ...]]] = {
    f"{_ORT}.FusedConv": ("Conv", (0, 1, 2), _WINDOW),
    f"{_ORT}.FusedGemm": ("Gemm", (0, 1, 2), ("transA", "transB")),
    f"{_ORT}.QLinearConv": ("Conv", (0, 3), _WINDOW),
    f"{_ORT}.NhwcFusedConv": ("Conv", (0, 1, 2), _WINDOW),
    f"{_ORT}.QLinearAveragePool": ("AveragePool", (0,), (*_POOL, "strides")),
    f"{_ORT}.NhwcMaxPool": ("MaxPool", (0,), (*_POOL, "strides", "storage_order")),
    f"{_ORT}.QGemm": ("Gemm", (0, 3), ("transA", "transB")),
    f"{_ORT}.MatMulIntegerToFloat": ("MatMul", (0, 1), ()),
    f"{_ORT}.DynamicQuantizeMatMul": ("MatMul", (0, 1), ()),
    f"{_NCHWC}.Conv": ("Conv", (0, 1, 2), _WINDOW),
    f"{_NCHWC}.MaxPool": ("MaxPool", (0,), (*_POOL, "strides", "storage_order")),
    f"{_NCHWC}.AveragePool": ("AveragePool", (0,), (*_POOL, "strides")),
}
# Standard operators that ONNX defines by a function alone, without shape inference.
_WITHOUT_INFERENCE = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
_KEEP_FIRST = _WITHOUT_INFERENCE | frozenset(
    f"{_ORT}.{name}"
    for name in [
        "BiasAdd",
        "BiasGelu",
        "BiasSoftmax",
        "FastGelu",
        "Gelu",
        "GroupNorm",
        "QLinearLeakyRelu",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuickGelu",
        "SkipGroupNorm",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    ]
)
_BROADCAST = {
    f"{_ORT}.QLinearAdd": (0, 3),
    f"{_ORT}.QLinearMul": (0, 3),
    f"{_ORT}.QLinearWhere": (0, 1, 4),
}
# Input whose element type the output has.
_TYPE_OF = {
    f"{_ORT}.QLinearWhere": 1,
    f"{_ORT}.DynamicQuantizeMatMul": 0,
    f"{_ORT}.MatMulIntegerToFloat": 2,
}
_CHANNELS_LAST = frozenset({f"{_ORT}.NhwcFusedConv", f"{_ORT}.NhwcMaxPool"})

Types = list[ValueType | None]


def infer_foreign(node: onnx.NodeProto, inputs: Types, opset: int) -> ValueType | None:
    """Infer the type of a node's first output; None for an operator without a rule here.

    Args:
        node: The node.
        inputs: Types of its inputs; None for an omitted input.
        opset: Version of the standard operators.
    """
    name = operator_of(node)
    first = inputs[0] if inputs else None
    if first is None:
        return None
    dtype = (inputs[_TYPE_OF[name]] or first).dtype if name in _TYPE_OF else first.dtype
    if name in _KEEP_FIRST:
        return first
    if name in _BROADCAST:
        present = [inputs[at] for at in _BROADCAST[name]]
        shapes = [value.shape for value in present if value is not None]
        return ValueType(dtype, _broadcast(shapes))
    if name in _EQUIVALENTS:
        shape = _equivalent(node, inputs, opset)
        return None if shape is None else ValueType(dtype, shape)
    rule = _RULES.get(name)
    return None if rule is None else rule(node, inputs)


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sides) for sides in zip(*padded, strict=True))


def _equivalent(node: onnx.NodeProto, inputs: Types, opset: int) -> tuple[int, ...] | None:
    op_type, taken, attributes = _EQUIVALENTS[operator_of(node)]
    values = [inputs[at] if at < len(inputs) else None for at in taken]
    present = [value for value in values if value is not None]
    is_last = operator_of(node) in _CHANNELS_LAST or attribute(node, "channels_last", 0)
    floats = [ValueType(onnx.TensorProto.FLOAT, value.shape) for value in present]
    if is_last:
        floats[0] = ValueType(floats[0].dtype, _channels_second(floats[0].shape))
    shape = _standard_shape(op_type, floats, node, attributes, opset)
    return _channels_last(shape) if is_last and shape is not None else shape


def _standard_shape(
    op_type: str,
    inputs: list[ValueType],
    node: onnx.NodeProto,
    attributes: tuple[str, ...],
    opset: int,
) -> tuple[int, ...] | None:
    names = [f"input{at}" for at in range(len(inputs))]
    standard = helper.make_node(op_type, names, ["output"])
    standard.attribute.extend(a for a in node.attribute if a.name in attributes)
    inferred = shape_inference.infer_node_outputs(
        onnx.defs.get_schema(op_type, opset, ""),
        standard,
        {name: type_proto(value) for name, value in zip(names, inputs, strict=True)},
        opset_imports=[helper.make_opsetid("", opset)],
    )
    dims = inferred["output"].tensor_type.shape.dim if "output" in inferred else []
    if not dims or not all(d.HasField("dim_value") for d in dims):
        return None
    return tuple(d.dim_value for d in dims)


def _channels_second(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[-1], *shape[1:-1])


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1])


def _fused_matmul(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    a, b = inputs[0], inputs[1]
    if a is None or b is None or attribute(node, "transBatchA", 0):
        return None
    left, right = list(a.shape), list(b.shape)
    if attribute(node, "transA", 0):
        left[-2:] = left[:-3:-1]
    if attribute(node, "transB", 0):
        right[-2:] = right[:-3:-1]
    batch = _broadcast([tuple(left[:-2]), tuple(right[:-2])])
    return ValueType(a.dtype, (*batch, left[-2], right[-1]))


def _concat(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    """QLinearConcat: scale and zero point of the output, then value, scale, zero point of each."""
    parts = [value for value in inputs[2::3] if value is not None]
    axis = int(attribute(node, "axis", 0)) % len(parts[0].shape)
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return ValueType(parts[0].dtype, tuple(shape))


def _global_pool(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    value = inputs[0]
    if value is None:
        return None
    if attribute(node, "channels_last", 0):
        return ValueType(value.dtype, (value.shape[0], 1, 1, value.shape[-1]))
    return ValueType(value.dtype, (*value.shape[:2], *[1] * (len(value.shape) - 2)))


def _quantized(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    del node
    zero = inputs[2] if len(inputs) > 2 else None
    assert inputs[0] is not None, "checked by the caller"
    return ValueType(onnx.TensorProto.UINT8 if zero is None else zero.dtype, inputs[0].shape)


def _dequantized(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    del node
    assert inputs[0] is not None, "checked by the caller"
    return None if inputs[1] is None else ValueType(inputs[1].dtype, inputs[0].shape)


def _packed_product(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    assert inputs[0] is not None, "checked by the caller"
    return ValueType(inputs[0].dtype, (*inputs[0].shape[:-1], int(attribute(node, "N", 0))))


def _joint_attention(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    value, weight = inputs[0], inputs[1]
    if value is None or weight is None:
        return None
    widths = attribute(node, "qkv_hidden_sizes", None)
    width = widths[2] if widths else weight.shape[-1] // 3
    dtype = value.dtype if operator_of(node).endswith(".Attention") else onnx.TensorProto.FLOAT
    return ValueType(dtype, (*value.shape[:2], width))


def _reordered_output(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    value = inputs[0]
    if value is None:
        return None
    shape = (value.shape[0], int(attribute(node, "channels", value.shape[1])), *value.shape[2:])
    return ValueType(
        value.dtype, _channels_last(shape) if attribute(node, "channels_last", 0) else shape
    )


def _reordered_input(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    value = inputs[0]
    if value is None:
        return None
    shape = _channels_second(value.shape) if attribute(node, "channels_last", 0) else value.shape
    return ValueType(value.dtype, shape)


def _enlarged(node: onnx.NodeProto, inputs: Types) -> ValueType | None:
    value = inputs[0]
    scales = attribute(node, "scales", None)
    if value is None or scales is None:
        return None
    return ValueType(value.dtype, tuple(s * f for s, f in zip(value.shape, scales, strict=True)))


_RULES = {
    f"{_ORT}.FusedMatMul": _fused_matmul,
    f"{_ORT}.QLinearConcat": _concat,
    f"{_ORT}.QLinearGlobalAveragePool": _global_pool,
    f"{_ORT}.QuantizeLinear": _quantized,
    f"{_ORT}.DequantizeLinear": _dequantized,
    f"{_ORT}.MatMulNBits": _packed_product,
    f"{_ORT}.Attention": _joint_attention,
    f"{_ORT}.QAttention": _joint_attention,
    f"{_NCHWC}.ReorderInput": _reordered_input,
    f"{_NCHWC}.ReorderOutput": _reordered_output,
    f"{_NCHWC}.Upsample": _enlarged,
    f"{_NCHWC}.GlobalAveragePool": _global_pool,
    f"{_NCHWC}.GlobalMaxPool": _global_pool,
}
