"""Shapes, types and small constants of every value in an ONNX graph, for one given input size.

Exporters write sizes as arithmetic inside the graph (Shape, Gather, Mul, Concat, then Resize).
ONNX's own inference stops at some of that arithmetic, so here it is computed: node by node, shapes
follow from the operator's schema, and what is small and known is evaluated.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.inliner import inline_local_functions

from swise_deploy.errors import first_line

logger = logging.getLogger(__name__)

# Larger constants are weights: their shape matters here, their values do not.
MAX_EVALUATED_ELEMENTS = 4096


@dataclass(frozen=True, slots=True)
class ValueType:
    """Element type (a TensorProto.DataType) and shape of one value."""

    dtype: int
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def size_bytes(self) -> int:
        """Bytes in memory; types under 8 bits are packed."""
        if self.dtype in _PACKED_BITS:
            return -(-self.num_elements * _PACKED_BITS[self.dtype] // 8)
        return self.num_elements * helper.tensor_dtype_to_np_dtype(self.dtype).itemsize


_PACKED_BITS = {
    onnx.TensorProto.DataType.Value(name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4))
    if name in onnx.TensorProto.DataType.keys()  # noqa: SIM118  # a protobuf enum, not a dict
}


@dataclass(frozen=True, slots=True)
class ShapedGraph:
    """What is known of a graph once its input sizes are fixed.

    Attributes:
        nodes: The nodes that run, in order; the branches of an `If` with a known condition are
            inlined.
        types: Type of every value that could be inferred.
        weights: Names of the values that are stored in the file: initializers and Constant nodes.
        unknown: Nodes whose outputs could not be inferred, with the reason.
    """

    nodes: tuple[onnx.NodeProto, ...]
    types: Mapping[str, ValueType]
    weights: frozenset[str]
    unknown: Mapping[str, str]


@dataclass(slots=True)
class _State:
    opsets: dict[str, int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    types: dict[str, ValueType] = field(default_factory=dict)
    data: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)


def shape_graph(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> ShapedGraph:
    """Infer every value of `model` with its inputs fixed to the given shapes."""
    if model.functions:
        model = inline_local_functions(model)
    state = _State({opset.domain: opset.version for opset in model.opset_import})
    for info in model.graph.input:
        if info.name in inputs:
            dtype = info.type.tensor_type.elem_type
            state.types[info.name] = ValueType(dtype, tuple(inputs[info.name]))
    _walk(model.graph, state)
    return ShapedGraph(tuple(state.nodes), state.types, frozenset(state.weights), state.unknown)


def _walk(graph: onnx.GraphProto, state: _State) -> None:
    for tensor in graph.initializer:
        _store_constant(tensor.name, tensor, state)
    for node in graph.node:
        if node.op_type == "If" and node.input[0] in state.data:
            _inline_branch(node, state)
            continue
        state.nodes.append(node)
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            _store_constant(node.output[0], _constant_tensor(node), state)
        else:
            _infer(node, state)


def _inline_branch(node: onnx.NodeProto, state: _State) -> None:
    taken = "then_branch" if bool(state.data[node.input[0]]) else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == taken)
    _walk(branch, state)
    for inner, outer in zip(branch.output, node.output, strict=True):
        _walk(
            helper.make_graph([helper.make_node("Identity", [inner.name], [outer])], "", [], []),
            state,
        )


def _store_constant(name: str, tensor: onnx.TensorProto, state: _State) -> None:
    state.weights.add(name)
    state.types[name] = ValueType(tensor.data_type, tuple(tensor.dims))
    external = tensor.data_location == onnx.TensorProto.EXTERNAL and not tensor.raw_data
    if state.types[name].num_elements <= MAX_EVALUATED_ELEMENTS and not external:
        state.data[name] = numpy_helper.to_array(tensor)


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return value
    if attribute.name in ("value_string", "value_strings"):
        values = np.array(value, dtype=object)
    else:
        dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
        values = np.array(value, dtype=dtype)
    return numpy_helper.from_array(values)


def _infer(node: onnx.NodeProto, state: _State) -> None:
    used = [name for name in node.input if name]
    missing = [name for name in used if name not in state.types]
    if missing:
        state.unknown[_label(node)] = f"its input {missing[0]!r} is unknown"
        return
    if node.op_type in ("Shape", "Size"):
        _store_value(node.output[0], _measured(node, state.types[used[0]].shape), state)
        return
    try:
        inferred = shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, state.opsets[node.domain], node.domain),
            node,
            {name: _type_proto(state.types[name]) for name in used},
            {
                name: numpy_helper.from_array(state.data[name])
                for name in used
                if name in state.data
            },
            opset_imports=[helper.make_opsetid(d, v) for d, v in state.opsets.items()],
        )
    except (onnx.defs.SchemaError, shape_inference.InferenceError, KeyError) as error:
        state.unknown[_label(node)] = f"no shape rule applies: {first_line(error)}"
        return
    for name, proto in inferred.items():
        dims = proto.tensor_type.shape.dim
        if proto.HasField("tensor_type") and all(d.HasField("dim_value") for d in dims):
            shape = tuple(d.dim_value for d in dims)
            state.types[name] = ValueType(proto.tensor_type.elem_type, shape)
    if _is_evaluable(node, used, state):
        _evaluate(node, used, state)
    unresolved = [name for name in node.output if name and name not in state.types]
    if unresolved:
        state.unknown[_label(node)] = f"the shape of its output {unresolved[0]!r} depends on data"


def _measured(node: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[np.generic]:
    if node.op_type == "Size":
        return np.array(int(np.prod(shape, dtype=np.int64)), np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)


# Random or with subgraphs; dequantised weights keep their integer storage.
_NOT_EVALUATED = frozenset(
    {"If", "Loop", "Scan", "RandomNormal", "RandomUniform", "Bernoulli", "DequantizeLinear"}
)


def _is_evaluable(node: onnx.NodeProto, used: Sequence[str], state: _State) -> bool:
    sizes = [state.types[name].num_elements for name in node.output if name in state.types]
    return (
        node.op_type not in _NOT_EVALUATED
        and node.domain in ("", "ai.onnx")
        and all(name in state.data for name in used)
        and max(sizes, default=0) <= MAX_EVALUATED_ELEMENTS
    )


def _evaluate(node: onnx.NodeProto, used: Sequence[str], state: _State) -> None:
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(node, opsets=state.opsets)
        outputs = evaluator.run(None, {name: state.data[name] for name in used})
    except Exception as error:  # noqa: BLE001  # its operators have no error of their own
        logger.debug("%s is not evaluated: %s", _label(node), first_line(error))
        return
    for name, output in zip(node.output, outputs, strict=False):
        _store_value(name, np.asarray(output), state)


def _store_value(name: str, value: NDArray[np.generic], state: _State) -> None:
    state.types[name] = ValueType(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
    state.data[name] = value


def _type_proto(value: ValueType) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(value.dtype, value.shape)


def _label(node: onnx.NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
