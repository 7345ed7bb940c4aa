"""Limits on ONNX files: measured before anything is expanded, inferred or run.

Networks of the field stay far below them. A file beyond them is damaged or hostile, and shape
inference or a runtime would take minutes or gigabytes before it said so.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx

from swise_deploy.errors import InputError

MAX_NODES = 16_384
"""Nodes once model-local functions are expanded."""

MAX_NESTING = 8
"""Graphs inside graphs (the branches of If)."""

MAX_ELEMENTS = 1 << 31
"""Stored numbers of all tensors together."""

MAX_RANK = 16

MAX_ROUNDS = 1024
"""Rounds of a Loop."""

REFUSED_OPERATORS = frozenset({"SequenceMap"})
"""Control flow that may never end; no super-resolution network needs it. A Loop is refused, too,
unless the file stores how often it runs at most."""


def check_limits(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model beyond the limits.

    Raises:
        InputError: Names the file, what it holds and the limit.
    """
    functions = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    limits = dict(_stored_integers(model.graph))
    num_nodes = _num_nodes(model.graph.node, functions, sizes, (), path=path, limits=limits)
    if num_nodes > MAX_NODES:
        raise InputError(
            f"{path} holds {num_nodes:,} nodes once its functions are expanded; expected at most "
            f"{MAX_NODES:,}. Simplify the graph, or export the network again"
        )
    _check_tensors(model, path)


def _num_nodes(
    nodes: Iterable[onnx.NodeProto],
    functions: dict[tuple[str, str], onnx.FunctionProto],
    sizes: dict[tuple[str, str], int],
    within: tuple[tuple[str, str], ...],
    *,
    path: Path,
    limits: Mapping[str, int],
    depth: int = 0,
) -> int:
    if depth > MAX_NESTING:
        raise InputError(
            f"{path} nests graphs more than {MAX_NESTING} deep; expected a plain network"
        )
    total = 0
    for node in nodes:
        if node.op_type in REFUSED_OPERATORS and node.domain in ("", "ai.onnx"):
            raise InputError(
                f"{path} holds a {node.op_type}, which may never end and which no super-resolution "
                "network needs. Export the network with its loops unrolled"
            )
        key = (node.domain, node.op_type)
        if key in within:
            raise InputError(
                f"{path} has a function {node.op_type!r} that calls itself; expected a plain graph"
            )
        if key in functions:
            if key not in sizes:
                body = functions[key].node
                sizes[key] = _num_nodes(
                    body, functions, sizes, (*within, key), path=path, limits={}, depth=depth
                )
            total += sizes[key]
        else:
            total += 1
        rounds = _rounds(node, limits, path)
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                inner = {**limits, **dict(_stored_integers(graph))}
                total += rounds * _num_nodes(
                    graph.node, functions, sizes, within, path=path, limits=inner, depth=depth + 1
                )
    return total


def _rounds(node: onnx.NodeProto, limits: Mapping[str, int], path: Path) -> int:
    """How often the graph inside a node runs at most."""
    if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
        return 1
    rounds = limits.get(node.input[0] if node.input else "")
    if rounds is None or rounds > MAX_ROUNDS:
        found = "no number of rounds" if rounds is None else f"{rounds:,} rounds"
        raise InputError(
            f"{path} holds a Loop of {found}; expected a stored number of at most {MAX_ROUNDS:,}: "
            "it may never end. Export the network with its loops unrolled"
        )
    return max(1, rounds)


def _stored_integers(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """Names and values of the single integers that a graph stores."""
    for tensor in graph.initializer:
        yield from ((tensor.name, value) for value in _single_integer(tensor))
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1:
            attribute = node.attribute[0]
            if attribute.name == "value_int":
                yield node.output[0], attribute.i
            elif attribute.name == "value":
                yield from ((node.output[0], value) for value in _single_integer(attribute.t))


def _single_integer(tensor: onnx.TensorProto) -> Iterator[int]:
    is_single = all(dim == 1 for dim in tensor.dims)
    if is_single and tensor.data_type == onnx.TensorProto.INT64:
        data = tensor.raw_data or b"".join(
            v.to_bytes(8, "little", signed=True) for v in tensor.int64_data
        )
        if len(data) == 8:
            yield int.from_bytes(data, "little", signed=True)


def _check_tensors(model: onnx.ModelProto, path: Path) -> None:
    num_elements = 0
    for tensor in model.graph.initializer:
        count = 1
        for dim in tensor.dims:
            if dim < 0:
                raise InputError(f"{path} has a tensor {tensor.name!r} with a dimension of {dim}")
            count *= max(1, dim)
        num_elements += count
        if len(tensor.dims) > MAX_RANK or num_elements > MAX_ELEMENTS:
            raise InputError(
                f"{path} declares more than {MAX_ELEMENTS:,} stored numbers, or a tensor of more "
                f"than {MAX_RANK} dimensions ({tensor.name!r}). Expected a network's weights"
            )
