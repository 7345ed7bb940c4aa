"""Inputs of layers that are never negative, rounded with all 256 values.

Symmetric INT8 spends half of its values on a sign, which what a ReLU writes never has. Unsigned
values give such a tensor steps of half the size. TensorRT has no unsigned activations; there the
layer reads its input minus 128 steps, and its bias takes the rest: the same values, for one
subtraction and, where the layer pads, for a padding of its own.
"""

import copy
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from swise_export.graph.insertion import drop_unread, insert_behind
from swise_export.graph.operators import attribute
from swise_export.precision.quantised.qdq import INT8_MAX, Layer, QuantisedWeights, steps_of_inputs

# Steps between the lowest value of int8 and 0.
_ZERO_POINT = 128
# Operators whose output is never negative, whatever they read.
_POSITIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus"})
# Operators whose output is never negative where their inputs are not.
_KEEPING = frozenset(
    {
        "Add", "AveragePool", "Cast", "Concat", "DepthToSpace", "Div", "Elu", "Flatten", "Gather",
        "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "Min", "Mul",
        "PRelu", "ReduceMax", "ReduceMean", "Reshape", "Slice", "SpaceToDepth", "Split", "Sqrt",
        "Squeeze", "Sum", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
# Those that compute with all of their inputs; others with the first alone.
_OF_ALL = frozenset({"Add", "Concat", "Div", "Min", "Mul", "Sum"})


def find_unsigned(model: onnx.ModelProto, layers: Sequence[Layer]) -> frozenset[str]:
    """Names of layers whose input is never negative and that can read it unsigned.

    They are convolutions; layers that share an input are found together or not at all. Whether a
    tensor can be negative follows from the operators before it, not from pictures: on a picture
    that was not tried, it would be cut. A picture is in [0, 1].
    """
    positive = _never_negative(model)
    nodes = {node.name: node for node in model.graph.node}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    refused = {
        layer.input
        for layer in layers
        if layer.input not in positive
        or layer.op_type != "Conv"
        or not _is_plain(nodes[layer.name], stored)
    }
    return frozenset(layer.name for layer in layers if layer.input not in refused)


def _is_plain(node: onnx.NodeProto, stored: Mapping[str, TensorProto]) -> bool:
    """True for a convolution over two axes with stated padding and stored weights and bias."""
    return (
        all(name in stored for name in node.input[1:] if name)
        and len(stored[node.input[1]].dims) == 4
        and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    )


def _never_negative(model: onnx.ModelProto) -> set[str]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {value.name for value in model.graph.input} - stored.keys()
    found |= {name for name, tensor in stored.items() if _is_positive(tensor)}
    for node in model.graph.node:
        kind, read = node.op_type, [name for name in node.input if name]
        data = read if kind in _OF_ALL else read[:1]
        if kind == "Constant":
            values = attribute(node, "value", None)
            is_positive = values is not None and _is_positive(values)
        elif kind in ("Conv", "ConvTranspose"):
            is_positive = found.issuperset(read)
        elif kind == "Pad":
            # Without a value it pads with zeros, or with copies.
            is_positive = found.issuperset([*data, *read[2:3]])
        elif kind in ("Clip", "Max"):
            # The lower limit of a Clip is its second input.
            limits = node.input[1:2] if kind == "Clip" else read
            is_positive = not found.isdisjoint([*data, *limits])
        else:
            is_positive = kind in _POSITIVE or (kind in _KEEPING and found.issuperset(data))
        if is_positive:
            found.update(node.output)
    return found


def _is_positive(tensor: TensorProto) -> bool:
    return tensor.data_type != TensorProto.STRING and bool(
        np.all(numpy_helper.to_array(tensor) >= 0)
    )


@dataclass(frozen=True, slots=True)
class Inputs:
    """A model and what its layers read.

    Attributes:
        model: fp32, with a name for every node.
        layers: Layers that will be quantised.
        ranges: Largest magnitude of each layer's input, by layer name.
    """

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    ranges: Mapping[str, float]


def shifted(
    inputs: Inputs, unsigned: Collection[str], weights: Mapping[str, QuantisedWeights]
) -> Inputs:
    """Move unsigned inputs to where int8 has values, for runtimes without unsigned activations.

    Args:
        inputs: Not changed.
        unsigned: Names of layers whose input is unsigned, results of `find_unsigned`.
        weights: Quantised weights, by layer name; with them the model computes the same.
    """
    moving = _Moving(copy.deepcopy(inputs.model))
    steps = steps_of_inputs(inputs.layers, inputs.ranges, unsigned=unsigned)
    found, ranges = [], dict(inputs.ranges)
    for layer in inputs.layers:
        if layer.name in unsigned:
            ranges[layer.name] = INT8_MAX * steps[layer.input]
            found.append(moving.moved(layer, steps[layer.input], weights[layer.name]))
        else:
            found.append(layer)
    return Inputs(moving.finished(), tuple(found), ranges)


class _Moving:
    """Moves inputs of convolutions; layers that read and pad alike share what is inserted."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._nodes = {node.name: node for node in model.graph.node}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inserted: dict[str, list[onnx.NodeProto]] = {}

    def moved(self, layer: Layer, step: float, weights: QuantisedWeights) -> Layer:
        """Let a layer read its input minus 128 steps; its bias takes the rest."""
        node, offset = self._nodes[layer.name], np.float32(_ZERO_POINT * step)
        pads = attribute(node, "pads", [0, 0, 0, 0])
        read = self._inserting(layer.input, "Sub", f"{layer.input}/unsigned", [offset])
        if any(pads):
            # The zeros that the layer would add are 128 steps lower now.
            top, left, bottom, right = pads
            around = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            name = f"{read}/padded" + "".join(f"_{pad}" for pad in pads)
            read = self._inserting(layer.input, "Pad", name, [around, -offset], source=read)
            node.attribute.remove(next(a for a in node.attribute if a.name == "pads"))
        self._add_to_bias(node, offset * weights.dequantised(layer.channel_axis))
        node.input[0] = read
        return dataclasses.replace(layer, input=read)

    def finished(self) -> onnx.ModelProto:
        """The model with what was inserted."""
        insert_behind(self._model.graph, self._inserted)
        drop_unread(self._model.graph)
        return self._model

    def _inserting(
        self,
        tensor: str,
        kind: str,
        result: str,
        constants: Sequence[NDArray[np.generic] | np.float32],
        *,
        source: str = "",
    ) -> str:
        """Insert a node behind a tensor, unless it is there; returns its output."""
        nodes = self._inserted.setdefault(tensor, [])
        if all(result not in node.output for node in nodes):
            names = [f"{result}/{i}" for i in range(len(constants))]
            for name, values in zip(names, constants, strict=True):
                self._model.graph.initializer.append(
                    numpy_helper.from_array(np.asarray(values), name)
                )
            inputs = [source or tensor, *names]
            nodes.append(helper.make_node(kind, inputs, [result], name=f"{result}/{kind}"))
        return result

    def _add_to_bias(self, node: onnx.NodeProto, products: NDArray[np.float32]) -> None:
        """Add what each output channel's weights give together."""
        more = products.reshape(len(products), -1).sum(axis=1, dtype=np.float64)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        own = numpy_helper.to_array(self._stored[node.input[2]]) if has_bias else 0.0
        name = f"{node.name}/unsigned/bias"
        self._model.graph.initializer.append(
            numpy_helper.from_array((own + more).astype(np.float32), name)
        )
        node.input[:] = [*node.input[:2], name]
