"""Weights that layers share, stored once."""

import onnx

from swise_export.graph.values import content_key


def share_weights(model: onnx.ModelProto) -> None:
    """Store weights of equal content once, in place; every layer that uses them reads the same one.

    Tracing stores a weight once for each of its uses where it transposes or folds it on the way.
    """
    first: dict[object, str] = {}
    names: dict[str, str] = {}
    kept = []
    for tensor in model.graph.initializer:
        key = content_key(tensor)
        name = tensor.name if key is None else first.setdefault(key, tensor.name)
        names[tensor.name] = name
        if name == tensor.name:
            kept.append(tensor)
    if len(kept) == len(model.graph.initializer):
        return
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        _rename_in_subgraphs(node, names)
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)


def _rename_in_subgraphs(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                inner.input[:] = [names.get(name, name) for name in inner.input]
                _rename_in_subgraphs(inner, names)
