"""The stored weights from which each value of a graph is computed."""

from collections.abc import Mapping, Sequence

import onnx

from swise_export.graph.operators import MULT_ADDS, operator_of
from swise_export.graph.shapes import ShapedGraph
from swise_export.graph.values import ValueType

FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    | {onnx.TensorProto.DOUBLE}
)

_ORT = "com.microsoft"
_FIRST_ALONE = [
    "Cast",
    "CastLike",
    "Clip",
    "CumSum",
    "DequantizeLinear",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "OneHot",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
]
_VALUE_INPUTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(_FIRST_ALONE, (0,)),
    **{f"{_ORT}.{name}": (0,) for name in ("QuantizeLinear", "DequantizeLinear")},
    "Where": (0,),
    "ScatterND": (0, 2),
    "ScatterElements": (0, 2),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    f"{_ORT}.QLinearConv": (0, 3, 8),
    f"{_ORT}.QGemm": (0, 3, 6),
    f"{_ORT}.QLinearAdd": (0, 3),
    f"{_ORT}.QLinearMul": (0, 3),
    f"{_ORT}.MatMulIntegerToFloat": (0, 1, 6),
    f"{_ORT}.DynamicQuantizeMatMul": (0, 1, 4),
    f"{_ORT}.MatMulNBits": (0, 1),
    f"{_ORT}.QAttention": (0, 1, 2),
}
"""Positions of the inputs with values; the other inputs are settings: sizes, axes, scales."""

_ON_INTEGERS = frozenset({f"{_ORT}.QLinearAdd", f"{_ORT}.QLinearMul"})


class WeightRoots:
    """Finds the stored tensors from which a value that is independent of the picture is computed.

    Args:
        graph: The graph; its nodes are passed to `follow` in their order.
    """

    def __init__(self, graph: ShapedGraph) -> None:
        self._types = graph.types
        self._roots: dict[str, frozenset[str]] = {
            name: frozenset({graph.stored_before.get(name, name)}) for name in graph.weights
        }

    def follow(self, node: onnx.NodeProto) -> None:
        """Pass the roots of a node's inputs to its outputs; the node is independent of pictures."""
        if node.op_type in ("Shape", "Size", "Constant"):
            return
        found = frozenset[str]().union(
            *(self._roots.get(name, frozenset()) for _, name in value_inputs(node))
        )
        if found:
            self._roots.update((name, found) for name in node.output if name)

    def read_by(self, node: onnx.NodeProto) -> frozenset[str]:
        """The stored weights that a node reads: floats, and integers that are quantised numbers.

        Rank-0 constants, indices and sizes are not weights.
        """
        multiplies = operator_of(node) in MULT_ADDS
        found: set[str] = set()
        for _, name in value_inputs(node):
            is_float = name in self._types and self._types[name].dtype in FLOATS
            if not (is_float or multiplies or operator_of(node) in _ON_INTEGERS):
                continue
            found.update(
                root
                for root in self._roots.get(name, frozenset())
                if _is_number(self._types[root], may_be_integer=multiplies or not is_float)
            )
        return frozenset(found)


def value_inputs(node: onnx.NodeProto) -> Sequence[tuple[int, str]]:
    """Position and name of the inputs with values; settings are left out."""
    wanted = _VALUE_INPUTS.get(operator_of(node))
    return [
        (at, name)
        for at, name in enumerate(node.input)
        if name and (wanted is None or at in wanted)
    ]


def _is_number(stored: ValueType, *, may_be_integer: bool) -> bool:
    return bool(stored.shape) and (stored.dtype in FLOATS or may_be_integer)
