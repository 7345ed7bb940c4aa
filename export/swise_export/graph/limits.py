"""Limits on ONNX files, checked before functions are expanded, shapes are inferred or a model runs.

Super-resolution networks stay far below the limits. A file beyond them is damaged or hostile, and
shape inference or a runtime would fail only after minutes or gigabytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx

from swise_deploy.errors import InputError

MAX_NODES = 16_384
"""Number of nodes after model-local functions are expanded."""

MAX_NESTING = 8
"""Depth of graphs inside graphs, such as the branches of If."""

MAX_ELEMENTS = 1 << 31
"""Number of stored elements of all tensors together."""

MAX_RANK = 16

MAX_ITERATIONS = 1024
"""Number of iterations of a Loop."""

REFUSED_OPERATORS = frozenset({"SequenceMap"})
"""Control flow that may not terminate; no super-resolution network needs it. A Loop is refused as
well, unless the file stores its largest number of iterations."""


def check_limits(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model beyond the limits.

    Raises:
        InputError: The message names the file, its value and the limit.
    """
    functions = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    limits = dict(_stored_integers(model.graph))
    num_nodes = _num_nodes(model.graph.node, functions, sizes, (), path=path, limits=limits)
    if num_nodes > MAX_NODES:
        raise InputError(
            f"{path} has {num_nodes:,} nodes after its functions are expanded; expected at most "
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
            f"{path} nests graphs more than {MAX_NESTING} deep; expected a plain network. "
            "Export the network without control flow"
        )
    total = 0
    for node in nodes:
        if node.op_type in REFUSED_OPERATORS and node.domain in ("", "ai.onnx"):
            raise InputError(
                f"{path} contains a {node.op_type}, which may not terminate; expected operators of "
                "super-resolution networks. Export the network with its loops unrolled"
            )
        key = (node.domain, node.op_type)
        if key in within:
            raise InputError(
                f"{path} has a function {node.op_type!r} that calls itself; expected none. "
                "Export the network again"
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
        iterations = _max_iterations(node, limits, path)
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                inner = {**limits, **dict(_stored_integers(graph))}
                total += iterations * _num_nodes(
                    graph.node, functions, sizes, within, path=path, limits=inner, depth=depth + 1
                )
    return total


def _max_iterations(node: onnx.NodeProto, limits: Mapping[str, int], path: Path) -> int:
    """The largest number of times that the graph inside a node runs."""
    if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
        return 1
    iterations = limits.get(node.input[0] if node.input else "")
    if iterations is None or iterations > MAX_ITERATIONS:
        found = "an unknown number of" if iterations is None else f"{iterations:,}"
        raise InputError(
            f"{path} contains a Loop of {found} iterations, which may not terminate; expected a "
            f"stored number of at most {MAX_ITERATIONS:,}. Export the network with its loops "
            "unrolled"
        )
    return max(1, iterations)


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
                raise InputError(
                    f"{path} has a tensor {tensor.name!r} with a dimension of {dim}; expected 0 or "
                    "more. Export the network again"
                )
            count *= max(1, dim)
        num_elements += count
        if len(tensor.dims) > MAX_RANK or num_elements > MAX_ELEMENTS:
            raise InputError(
                f"{path} declares more than {MAX_ELEMENTS:,} stored elements, or a tensor of more "
                f"than {MAX_RANK} dimensions ({tensor.name!r}); expected the weights of a network. "
                "Export the network again"
            )
