"""Nodes inserted into a graph, and what is left over dropped from it."""

import copy
from collections.abc import Mapping, Sequence

import onnx


def insert_behind(graph: onnx.GraphProto, behind: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
    """Insert nodes behind the node that makes each tensor, or at the start."""
    made = {name for node in graph.node for name in node.output}
    nodes = [node for name, new in behind.items() if name not in made for node in new]
    for node in graph.node:
        nodes.append(node)
        nodes.extend(new for name in node.output for new in behind.get(name, ()))
    kept = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop the stored tensors that no node reads."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
