"""The graphs inside nodes: `If`, `Loop` and `Scan`."""

from collections.abc import Iterator, Mapping

import onnx


def subgraph(node: onnx.NodeProto, name: str) -> onnx.GraphProto:
    """The graph in an attribute of a node."""
    found: onnx.GraphProto = next(a.g for a in node.attribute if a.name == name)
    return found


def renamed(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """Copy a graph with a prefix on every value that it defines.

    Sibling graphs may use the same names. Values of the enclosing graphs keep their names.
    """
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    names = {name: f"{prefix}{name}" for name in _defined(graph)}
    _rename(copy, names)
    return copy


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (info.name for info in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    yield from (name for node in graph.node for name in node.output if name)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for info in (*graph.input, *graph.output):
        info.name = names.get(info.name, info.name)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = {n: t for n, t in names.items() if n not in set(_defined(attribute.g))}
                _rename(attribute.g, inner)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Values that a node reads, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = set(_defined(attribute.g))
            outputs = (info.name for info in attribute.g.output)
            read = (name for inside in attribute.g.node for name in names_read(inside))
            yield from (name for name in (*outputs, *read) if name not in inner)
