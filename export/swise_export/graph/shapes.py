"""Shapes, types and small constants of every value in an ONNX graph, for one input size.

Exporters write sizes as arithmetic inside the graph (Shape, Gather, Mul, Concat, then Resize).
ONNX's inference stops at some of that arithmetic. This module infers node by node: shapes follow
from the operator's schema, and small known values are evaluated.
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
from swise_export.graph.foreign_shapes import infer_foreign
from swise_export.graph.subgraphs import renamed, subgraph
from swise_export.graph.values import ValueType, content_key, type_proto

logger = logging.getLogger(__name__)

# Larger constants are weights; only their shapes matter here.
MAX_EVALUATED_ELEMENTS = 4096


@dataclass(frozen=True, slots=True)
class ShapedGraph:
    """A graph whose input sizes are fixed.

    Attributes:
        nodes: The nodes that run, in order; the branch of an `If` with a known condition and the
            body of a `Loop` or `Scan` of known length are inlined.
        repeats: Number of times that each node runs: 1 outside loops.
        types: Type of every value that could be inferred.
        weights: Names of the values that are stored in the file: initializers and Constant nodes.
        stored_elements: Number of stored elements of each sparse weight.
        stored_before: By weight, the earlier weight with the same content (see `content_key`).
        unknown: Nodes whose outputs could not be inferred, with the reason.
    """

    nodes: tuple[onnx.NodeProto, ...]
    repeats: tuple[int, ...]
    types: Mapping[str, ValueType]
    weights: frozenset[str]
    stored_elements: Mapping[str, int]
    stored_before: Mapping[str, str]
    unknown: Mapping[str, str]


@dataclass(slots=True)
class _State:
    opsets: dict[str, int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    types: dict[str, ValueType] = field(default_factory=dict)
    data: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    stored_elements: dict[str, int] = field(default_factory=dict)
    stored_before: dict[str, str] = field(default_factory=dict)
    contents: dict[object, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    repeat: int = 1
    num_inlined: int = 0

    def append(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)
        self.repeats.append(self.repeat)

    def link(self, source: str, target: str) -> None:
        """Give a value a second name."""
        self.append(helper.make_node("Identity", [source], [target]))
        if source in self.types:
            self.types[target] = self.types[source]
        if source in self.data:
            self.data[target] = self.data[source]

    def inline(self, graph: onnx.GraphProto) -> onnx.GraphProto:
        """A copy of an inner graph with names of its own."""
        self.num_inlined += 1
        return renamed(graph, f"inner{self.num_inlined}/")


def shape_graph(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> ShapedGraph:
    """Infer every value of `model` with its inputs fixed to the given shapes."""
    if model.functions:
        model = inline_local_functions(model)
    state = _State({_standard(opset.domain): opset.version for opset in model.opset_import})
    for info in model.graph.input:
        if info.name in inputs:
            dtype = info.type.tensor_type.elem_type
            state.types[info.name] = ValueType(dtype, tuple(inputs[info.name]))
    _walk(model.graph, state)
    return ShapedGraph(
        tuple(state.nodes),
        tuple(state.repeats),
        state.types,
        frozenset(state.weights),
        state.stored_elements,
        state.stored_before,
        state.unknown,
    )


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _walk(graph: onnx.GraphProto, state: _State) -> None:
    for tensor in graph.initializer:
        _store_constant(tensor.name, tensor, state)
    for sparse in graph.sparse_initializer:
        _store_sparse(sparse.values.name, sparse, state)
    for node in graph.node:
        if node.op_type == "If" and node.input[0] in state.data:
            _inline_branch(node, state)
        elif node.op_type in _INLINERS and not node.domain:
            _INLINERS[node.op_type](node, state)
        elif node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            state.append(node)
            if node.attribute[0].name == "sparse_value":
                _store_sparse(node.output[0], node.attribute[0].sparse_tensor, state)
            else:
                _store_constant(node.output[0], _constant_tensor(node), state)
        else:
            state.append(node)
            _infer(node, state)


def _inline_branch(node: onnx.NodeProto, state: _State) -> None:
    taken = "then_branch" if bool(state.data[node.input[0]]) else "else_branch"
    branch = state.inline(subgraph(node, taken))
    _walk(branch, state)
    for inner, outer in zip(branch.output, node.output, strict=True):
        state.link(inner.name, outer)


def _inline_loop(node: onnx.NodeProto, state: _State) -> None:
    """Inline the body once, with the number of times that it runs."""
    body = state.inline(subgraph(node, "body"))
    limit, condition = (node.input[0], node.input[1]) if len(node.input) > 1 else ("", "")
    if limit not in state.data or not bool(state.data.get(condition, condition == "")):
        state.append(node)
        state.unknown[_label(node)] = _UNKNOWN_LENGTH
        return
    times = max(0, int(state.data[limit].reshape(-1)[0]))
    number, goes_on, *carried = (info.name for info in body.input)
    state.types[number] = ValueType(onnx.TensorProto.INT64, ())
    _store_value(goes_on, np.array(True), state)  # an array of one truth value
    states = list(node.input[2:])
    stops, *results = (info.name for info in body.output)
    keeps_shapes = _walk_body(body, list(zip(states, carried, strict=True)), results, times, state)
    if not bool(state.data.get(stops, False)):
        state.unknown[_label(node)] = _UNKNOWN_LENGTH
    elif not keeps_shapes:
        state.unknown[_label(node)] = "its loop changes shapes"
    else:
        _finish_body(node, results, len(states), times, state)


def _inline_scan(node: onnx.NodeProto, state: _State) -> None:
    body = state.inline(subgraph(node, "body"))
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    num_states = len(node.input) - int(attributes["num_scan_inputs"])
    scanned = list(node.input[num_states:])
    missing = [name for name in node.input if name not in state.types]
    if missing or any(attributes.get(name) for name in ("scan_output_axes", "scan_input_axes")):
        state.append(node)
        state.unknown[_label(node)] = "its scan is not followed"
        return
    times = state.types[scanned[0]].shape[0]
    inner = [info.name for info in body.input]
    for outer, name in zip(scanned, inner[num_states:], strict=True):
        state.append(helper.make_node("Identity", [outer], [name]))
        state.types[name] = ValueType(state.types[outer].dtype, state.types[outer].shape[1:])
    states = list(zip(node.input[:num_states], inner[:num_states], strict=True))
    results = [info.name for info in body.output]
    if _walk_body(body, states, results, times, state):
        _finish_body(node, results, num_states, times, state)
    else:
        state.unknown[_label(node)] = "its scan changes shapes"


def _walk_body(
    body: onnx.GraphProto,
    states: list[tuple[str, str]],
    results: list[str],
    times: int,
    state: _State,
) -> bool:
    """Walk a body once; False where a value that it passes to the next iteration changes its shape.

    Args:
        body: The inner graph.
        states: Values that iterations pass on: their names outside and in the body.
        results: The same after an iteration, in the same order; further results are collected.
        times: Number of iterations.
        state: The state of the inference.
    """
    for outer, inner in states:
        state.link(outer, inner)
        state.data.pop(inner, None)  # its value differs in the next iteration
    before = state.repeat
    state.repeat *= times
    _walk(body, state)
    state.repeat = before
    return all(
        state.types.get(inner) == state.types.get(name)
        for (_, inner), name in zip(states, results, strict=False)
    )


def _finish_body(
    node: onnx.NodeProto, inner: list[str], num_states: int, times: int, state: _State
) -> None:
    """Rename a body's results as its node does; collected results get an axis in front."""
    for at, (name, outer) in enumerate(zip(inner, node.output, strict=False)):
        if not outer:
            continue
        state.link(name, outer)
        state.data.pop(outer, None)
        if at >= num_states and name in state.types:
            collected = state.types[name]
            state.types[outer] = ValueType(collected.dtype, (times, *collected.shape))


_UNKNOWN_LENGTH = "the number of its iterations depends on data"
_INLINERS = {"Loop": _inline_loop, "Scan": _inline_scan}


def _store_constant(name: str, tensor: onnx.TensorProto, state: _State) -> None:
    state.weights.add(name)
    state.types[name] = ValueType(tensor.data_type, tuple(tensor.dims))
    external = tensor.data_location == onnx.TensorProto.EXTERNAL and not tensor.raw_data
    if state.types[name].num_elements <= MAX_EVALUATED_ELEMENTS and not external:
        state.data[name] = numpy_helper.to_array(tensor)
    content = content_key(tensor)
    if content is not None:
        first = state.contents.setdefault(content, name)
        if first != name:
            state.stored_before[name] = first


def _store_sparse(name: str, tensor: onnx.SparseTensorProto, state: _State) -> None:
    state.weights.add(name)
    state.types[name] = ValueType(tensor.values.data_type, tuple(tensor.dims))
    state.stored_elements[name] = int(np.prod(tensor.values.dims, dtype=np.int64))


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
    domain = _standard(node.domain)
    try:
        found = infer_foreign(
            node, [state.types.get(name) for name in node.input], state.opsets.get("", 1)
        )
        if found is not None:
            state.types[node.output[0]] = found
            return
        inferred = shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, state.opsets[domain], domain),
            node,
            {name: type_proto(state.types[name]) for name in used},
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


# Random operators, operators with subgraphs, and weights that stay integers in the file.
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


def _label(node: onnx.NodeProto) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)
