"""Operators of ONNX and of ONNX Runtime, with the Mult-Adds of those that multiply.

Operators are named as `operator_of` names them. The Mult-Adds of an operator in none of the tables
are unknown, not 0.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from swise_export.graph.values import ValueType

Inputs = list[ValueType | None]
MultAdds = Callable[[onnx.NodeProto, Inputs, ValueType], int]


def operator_of(node: onnx.NodeProto) -> str:
    """The operator of a node: "Conv", "com.microsoft.FusedConv"."""
    standard = node.domain in ("", "ai.onnx")
    return node.op_type if standard else f"{node.domain}.{node.op_type}"


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node, or its default."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _present(value: ValueType | None) -> ValueType:
    assert value is not None, "the schema makes this input mandatory"
    return value


def _convolution(weight_at: int) -> MultAdds:
    """Mult-Adds of a convolution; the weights of a group convolution have C_in/groups channels."""

    def multiply(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
        del node
        return output.num_elements * math.prod(_present(inputs[weight_at]).shape[1:])

    return multiply


def _transposed_convolution(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    del node, output
    return _present(inputs[0]).num_elements * math.prod(_present(inputs[1]).shape[1:])


def _matrix_product(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    shape = _present(inputs[0]).shape
    is_transposed = attribute(node, "transA", 0) and len(shape) > 1
    return output.num_elements * shape[-2 if is_transposed else -1]


def _packed_matrix_product(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    del inputs
    return output.num_elements * int(attribute(node, "K", 0))


def _einsum(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    """Multiply two terms at a time, from the left, each product over all indices of both."""
    del output
    equation = attribute(node, "equation", b"").decode()
    present = [_present(value) for value in inputs]
    terms, result = einsum_terms(equation, [len(value.shape) for value in present])
    sizes: dict[str, int] = {}
    for term, value in zip(terms, present, strict=True):
        for index, size in zip(term, value.shape, strict=True):
            sizes[index] = max(sizes.get(index, 1), size)
    total, left = 0, set(terms[0])
    for at, term in enumerate(terms[1:], 2):
        total += math.prod(sizes[index] for index in left | set(term))
        left = (left | set(term)) & set(result).union(*terms[at:])
    return total


def einsum_terms(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """The indices of each operand and of the output; an ellipsis is expanded to indices.

    Args:
        equation: An equation of numpy.einsum; without "->" the output has the indices that occur
            once.
        ranks: Rank of each operand.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = [len(term.replace("...", "")) for term in terms]
    num_others = [
        rank - own if "..." in term else 0
        for term, rank, own in zip(terms, ranks, letters, strict=True)
    ]
    most = max(num_others)

    def indices(term: str, count: int) -> list[str]:
        before, _, after = term.partition("...")
        return [*before, *(f"...{i}" for i in range(most - count, most)), *after]

    operands = [indices(t, n) for t, n in zip(terms, num_others, strict=True)]
    if arrow:
        return operands, indices(right, most if "..." in right else 0)
    once = sorted(c for c in set(left) - {",", "."} if left.count(c) == 1)
    return operands, [*(f"...{i}" for i in range(most)), *once]


def _recurrent(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    """Mult-Adds of steps that multiply the input by W and the state by R, in every direction."""
    del node, output
    steps = math.prod(_present(inputs[0]).shape[:2])
    return steps * (_present(inputs[1]).num_elements + _present(inputs[2]).num_elements)


@dataclass(frozen=True, slots=True)
class _Heads:
    """Sizes of an attention: queries (B, H, L, E), keys (B, H, S, E), values (B, H, S, V)."""

    batch: int
    heads: int
    queries: int
    keys: int
    width: int
    value_width: int

    @property
    def mult_adds(self) -> int:
        """MACs of queries by keys and of scores by values."""
        return self.num_scores * (self.width + self.value_width)

    @property
    def num_scores(self) -> int:
        """Elements of the product of queries and keys."""
        return self.batch * self.heads * self.queries * self.keys


def _heads(node: onnx.NodeProto, inputs: Inputs) -> _Heads:
    query, key, value = (_present(v).shape for v in inputs[:3])
    past = inputs[4].shape[2] if len(inputs) > 4 and inputs[4] is not None else 0
    if len(query) == 4:
        return _Heads(query[0], query[1], query[2], key[2] + past, query[3], value[3])
    heads = int(attribute(node, "q_num_heads", 1))
    key_heads = int(attribute(node, "kv_num_heads", heads))
    widths = query[2] // heads, value[2] // key_heads
    return _Heads(query[0], heads, query[1], key[1] + past, *widths)


def _attention(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    del output
    return _heads(node, inputs).mult_adds


def _joint_attention(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    """Mult-Adds of ONNX Runtime's Attention, which computes Q, K and V in one product."""
    del node
    pictures, weight = _present(inputs[0]).shape, _present(inputs[1])
    batch, length, _ = pictures
    values = output.shape[-1]
    queries = (weight.shape[-1] - values) // 2
    return batch * length * (weight.num_elements + length * (queries + values))


def _grid(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    """Mult-Adds of coordinates: each is the product of a row of theta with a position and 1."""
    del node
    return output.num_elements * _present(inputs[0]).shape[-1]


_ORT = "com.microsoft"
_NCHWC = "com.microsoft.nchwc"

MULT_ADDS: Mapping[str, MultAdds] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "DeformConv": _convolution(1),  # sampling counts nothing, as in a resize
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "QLinearMatMul": _matrix_product,
    "Gemm": _matrix_product,
    "Einsum": _einsum,
    "Attention": _attention,
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "AffineGrid": _grid,
    f"{_ORT}.FusedConv": _convolution(1),
    f"{_ORT}.NhwcFusedConv": _convolution(1),
    f"{_ORT}.QLinearConv": _convolution(3),
    f"{_ORT}.FusedMatMul": _matrix_product,
    f"{_ORT}.FusedGemm": _matrix_product,
    f"{_ORT}.QGemm": _matrix_product,
    f"{_ORT}.MatMulIntegerToFloat": _matrix_product,
    f"{_ORT}.DynamicQuantizeMatMul": _matrix_product,
    f"{_ORT}.MatMulNBits": _packed_matrix_product,
    f"{_ORT}.Attention": _joint_attention,
    f"{_ORT}.QAttention": _joint_attention,
    f"{_NCHWC}.Conv": _convolution(1),
}
"""Mult-Adds of a node by its operator."""

CONVOLUTIONS = frozenset(
    {"Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "DeformConv"}
    | {f"{_ORT}.FusedConv", f"{_ORT}.NhwcFusedConv", f"{_ORT}.QLinearConv", f"{_NCHWC}.Conv"}
)

INT8_OPERATORS = frozenset(
    {"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"}
    | {f"{_ORT}.QLinearConv", f"{_ORT}.QGemm", f"{_ORT}.QAttention"}
    | {f"{_ORT}.MatMulIntegerToFloat", f"{_ORT}.DynamicQuantizeMatMul"}
)
"""Operators that multiply 8-bit integers."""

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Operators that reinterpret memory and move nothing."""

MOVERS = VIEWS | frozenset(
    {"Concat", "Split", "Slice", "Transpose", "DepthToSpace", "SpaceToDepth", "Pad", "Expand"}
    | {"Tile", "Gather", "Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    | {f"{_ORT}.QuantizeLinear", f"{_ORT}.DequantizeLinear", f"{_ORT}.QLinearConcat"}
    | {f"{_NCHWC}.ReorderInput", f"{_NCHWC}.ReorderOutput"}
)
"""Operators that move or convert data and compute nothing."""

FREE = frozenset(
    # Pointwise, of one value or several.
    {"Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift"}
    | {"BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CastLike", "Ceil", "Celu", "Clip"}
    | {"Cos", "Cosh", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater"}
    | {"GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less"}
    | {"LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or"}
    | {"PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin"}
    | {"Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "SwiGLU", "Tan", "Tanh"}
    | {"ThresholdedRelu", "Where", "Xor", "RotaryEmbedding"}
    # Normalisations, soft choices, sums along an axis.
    | {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
    | {"LpNormalization", "LRN", "MeanVarianceNormalization", "RMSNormalization"}
    | {"SimplifiedLayerNormalization", "Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin"}
    | {"CumProd", "CumSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"}
    | {"ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "TopK"}
    # Pooling and interpolation.
    | {"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GridSample", "LpPool"}
    | {"MaxPool", "MaxRoiPool", "MaxUnpool", "Resize", "RoiAlign", "Upsample"}
    # Indices, masks and data that does not depend on the picture.
    | {"CenterCropPad", "Col2Im", "Compress", "Constant", "ConstantOfShape", "EyeLike"}
    | {"GatherElements", "GatherND", "NonMaxSuppression", "NonZero", "OneHot", "Range"}
    | {"RandomNormalLike", "RandomUniformLike", "ReverseSequence", "Scatter", "ScatterElements"}
    | {"ScatterND", "TensorScatter", "Trilu", "Unique"}
    # ONNX Runtime's own.
    | {
        f"{_ORT}.{name}"
        for name in [
            "BiasAdd",
            "BiasGelu",
            "BiasSoftmax",
            "BiasSplitGelu",
            "FastGelu",
            "Gelu",
            "GroupNorm",
            "NhwcMaxPool",
            "QLinearAdd",
            "QLinearAveragePool",
            "QLinearGlobalAveragePool",
            "QLinearLeakyRelu",
            "QLinearMul",
            "QLinearReduceMean",
            "QLinearSigmoid",
            "QLinearSoftmax",
            "QLinearWhere",
            "QuickGelu",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
            "SkipGroupNorm",
        ]
    }
    | {f"{_NCHWC}.{name}" for name in ("MaxPool", "AveragePool", "GlobalAveragePool", "Upsample")}
    | {f"{_NCHWC}.GlobalMaxPool"}
)
"""Operators without Mult-Adds by the convention: pointwise, normalisation, pooling, resizing."""

KNOWN = frozenset(MULT_ADDS) | MOVERS | FREE
"""Operators whose Mult-Adds are known."""


def activations_of(node: onnx.NodeProto, inputs: Inputs, output: ValueType) -> int:
    """Output elements of the products inside an operator that multiplies."""
    scores = _heads(node, inputs).num_scores if operator_of(node) == "Attention" else 0
    return scores + output.num_elements
