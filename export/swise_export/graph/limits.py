"""Limits on ONNX files: measured before anything is expanded, inferred or run.

Networks of the field stay far below them. A file beyond them is damaged or hostile, and shape
inference or a runtime would take minutes or gigabytes before it said so.
"""

from collections.abc import Iterable
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

REFUSED_OPERATORS = frozenset({"Loop", "Scan", "SequenceMap"})
"""Control flow that may never end; no super-resolution network needs it."""


def check_limits(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model beyond the limits.

    Raises:
        InputError: Names the file, what it holds and the limit.
    """
    functions = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    num_nodes = _num_nodes(model.graph.node, functions, sizes, (), path=path)
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
                    body, functions, sizes, (*within, key), path=path, depth=depth
                )
            total += sizes[key]
        else:
            total += 1
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                total += _num_nodes(
                    graph.node, functions, sizes, within, path=path, depth=depth + 1
                )
    return total


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
