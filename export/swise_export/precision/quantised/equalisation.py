"""Channels of one range: an equal fp32 network whose layers lose less when their input is rounded.

INT8 rounds a tensor with one step for all channels, so that a channel with small values keeps few
of them. Each channel is divided by a factor of its own, and the weights that read it are multiplied
by it: the network computes the same (Nagel et al., "Data-free quantization through weight
equalization and bias correction", ICCV 2019; Xiao et al., "SmoothQuant", ICML 2023). Where only
these layers read the tensor, the division goes into the weights of the layers before it;
elsewhere it is one multiplication in front of the rounding.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from swise_deploy.errors import InputError
from swise_export.graph.insertion import drop_unread, insert_behind
from swise_export.graph.operators import attribute
from swise_export.precision.quantised.qdq import INT8_MAX, Layer, QuantisedWeights, scale_from_range

Factors = tuple[float, ...]
"""Divisor of each channel of a layer's input; empty for none."""

# A channel that is nearly always 0 is not enlarged further than this.
_SMALLEST = 0.02
# Where the noise of rounding would not fall below this share, nothing is gained.
_MAX_NOISE = 0.8
_DIGITS = 4
# Below 1, small channels keep room for values that calibration has not seen.
_EXPONENT = 0.85
# Number of inputs of a Pad that names its axes.
_PADS_WITH_AXES = 4
# Operators that a positive factor of a channel passes through.
_HOMOGENEOUS = {"Relu", "LeakyRelu", "PRelu", "Identity"}


def factors_of(largest: NDArray[np.float32]) -> Factors:
    """The divisor of each channel, from its largest magnitude (C,); empty where nothing is gained.

    The largest factor is 1, so that no value grows beyond the largest of the tensor.
    """
    top = float(largest.max(initial=0.0))
    if not top:
        return ()
    factors = np.maximum(largest / top, _SMALLEST) ** _EXPONENT
    # The variance of an error is the square of its step.
    if float(np.mean(factors.astype(np.float64) ** 2)) > _MAX_NOISE:
        return ()
    return tuple(float(f"{factor:.{_DIGITS}g}") for factor in factors)


@dataclass(frozen=True, slots=True)
class Equalised:
    """A model with equalised inputs.

    Attributes:
        model: It computes the same in fp32.
        layers: The layers, which read the divided tensors and the multiplied weights.
        divisions: Names of the nodes that divide.
    """

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    divisions: tuple[str, ...]


def equalised(
    model: onnx.ModelProto, layers: Sequence[Layer], factors: Mapping[str, Factors]
) -> Equalised:
    """Divide the inputs of layers, channel by channel, and multiply their weights.

    Args:
        model: An fp32 model with a name for every node; not changed.
        layers: Some of its layers.
        factors: By layer name; layers that share an input share the factors of the first one.

    Raises:
        InputError: A layer has another number of channels than factors.
    """
    changed = copy.deepcopy(model)
    nodes = {node.name: node for node in changed.graph.node}
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    divisions: dict[str, onnx.NodeProto] = {}
    found = []
    for layer in layers:
        sharing = [x for x in layers if x.input == layer.input]
        own = factors.get(sharing[0].name, ())
        # A matrix product's channels are the last axis, a convolution's the second.
        if not own or len({x.op_type == "MatMul" for x in sharing}) > 1:
            found.append(layer)
            continue
        values = np.array(own, np.float32)
        node, weights = nodes[layer.name], numpy_helper.to_array(stored[layer.weight])
        group = attribute(node, "group", 1)
        num_channels = weights.shape[1] * group if layer.op_type == "Conv" else len(weights)
        if len(own) != num_channels:
            raise InputError(
                f"the precision plan has {len(own)} factors for the input of layer {layer.name}; "
                f"expected {num_channels}, one for each channel. Make a plan for this network: "
                "swise-export --int8 --precision-plan NEW"
            )
        if layer.input not in divisions:
            rank = 1 if layer.op_type == "MatMul" else weights.ndim
            divisions[layer.input] = _division(changed.graph, layer.input, values, rank)
        weights = scaled_weights(weights, values, layer.op_type, group)
        replaced = dataclasses.replace(
            layer, input=divisions[layer.input].output[0], weight=f"{layer.name}/equalised"
        )
        changed.graph.initializer.append(numpy_helper.from_array(weights, replaced.weight))
        node.input[0], node.input[1] = replaced.input, replaced.weight
        found.append(replaced)
    insert_behind(changed.graph, {name: [node] for name, node in divisions.items()})
    drop_unread(changed.graph)
    return Equalised(changed, tuple(found), tuple(node.name for node in divisions.values()))


def scaled_weights(
    weights: NDArray[np.float32], factors: NDArray[np.float32], op_type: str, group: int = 1
) -> NDArray[np.float32]:
    """Weights in the operator's layout, times the factor of the input channel that each reads."""
    if op_type == "Conv":
        groups = weights.reshape(group, -1, *weights.shape[1:])
        shape = (group, 1, -1) + (1,) * (weights.ndim - 2)
        return np.asarray((groups * factors.reshape(shape)).reshape(weights.shape))
    return np.asarray(weights * factors.reshape((-1,) + (1,) * (weights.ndim - 1)))


def _division(
    graph: onnx.GraphProto, tensor: str, factors: NDArray[np.float32], rank: int
) -> onnx.NodeProto:
    """A node that divides a tensor; its constant, of `rank` axes, is stored in the graph."""
    name = f"{tensor}/equalised"
    shape = (-1,) if rank == 1 else (1, -1) + (1,) * (rank - 2)
    graph.initializer.append(
        numpy_helper.from_array((1 / factors).reshape(shape), f"{name}/factors")
    )
    return helper.make_node("Mul", [tensor, f"{name}/factors"], [name], name=f"{name}/Mul")


def folded(
    equal: Equalised, weights: Mapping[str, QuantisedWeights]
) -> tuple[Equalised, dict[str, QuantisedWeights]]:
    """Divide in the weights of the layers before, wherever nothing else reads what they compute.

    Args:
        equal: A result of `equalised`.
        weights: Quantised weights of its layers, by name. Their values stay; scales are divided.

    Returns:
        The model with fewer divisions, and the weights for it.
    """
    folding = _Folding(copy.deepcopy(equal.model), weights)
    for name in equal.divisions:
        folding.fold(name)
    layers = tuple(
        dataclasses.replace(
            layer,
            input=folding.inputs.get(layer.input, layer.input),
            weight=folding.renamed.get(layer.name, layer.weight),
        )
        for layer in equal.layers
    )
    left = tuple(name for name in equal.divisions if name in folding.nodes)
    return Equalised(folding.finished(), layers, left), folding.weights


def foldable(
    model: onnx.ModelProto, layers: Sequence[Layer], factors: Mapping[str, Factors]
) -> dict[str, Factors]:
    """The factors that leave no division in the graph; arguments are those of `equalised`."""
    short, _ = folded(equalised(model, layers, factors), {})
    left = {x.output[0] for x in short.model.graph.node if x.name in short.divisions}
    divided = {layer.name for layer in short.layers if layer.input in left}
    return {name: own for name, own in factors.items() if name not in divided}


class _Folding:
    """Folds divisions of a model into the layers before them.

    Attributes:
        weights: Quantised weights, by layer name.
        nodes: The nodes that are left, by name.
        renamed: New name of the weights, by layer name.
        inputs: The tensor that replaces the output of a division.
    """

    def __init__(self, model: onnx.ModelProto, weights: Mapping[str, QuantisedWeights]) -> None:
        self._model = model
        self.weights = dict(weights)
        self.nodes = {node.name: node for node in model.graph.node}
        self.renamed: dict[str, str] = {}
        self.inputs: dict[str, str] = {}
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._sources = {name: node for node in model.graph.node for name in node.output}
        self._outputs = {value.name for value in model.graph.output}

    def fold(self, name: str) -> None:
        """Fold one division, if everything before it allows it."""
        division = self.nodes[name]
        factors = numpy_helper.to_array(self._stored[division.input[1]])
        layers = self._layers_before(division.input[0]) if factors.ndim > 1 else None
        if layers is None:
            return
        parts = np.split(factors.ravel(), np.cumsum([self._num_channels(x) for x in layers])[:-1])
        for layer, part in zip(layers, parts, strict=True):
            self._multiply(layer, part)
        for reader in self._readers(division.output[0]):
            for i, tensor in enumerate(reader.input):
                reader.input[i] = division.input[0] if tensor == division.output[0] else tensor
        self.inputs[division.output[0]] = division.input[0]
        del self.nodes[name]

    def finished(self) -> onnx.ModelProto:
        """The model without the folded divisions."""
        kept = [copy.deepcopy(node) for node in self._model.graph.node if node.name in self.nodes]
        del self._model.graph.node[:]
        self._model.graph.node.extend(kept)
        drop_unread(self._model.graph)
        return self._model

    def _readers(self, tensor: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes.values() if tensor in node.input]

    def _layers_before(self, tensor: str) -> list[onnx.NodeProto] | None:
        """The convolutions whose outputs are a tensor's channels, in order; None if not these."""
        node = self._sources.get(tensor)
        if node is None or len(self._readers(tensor)) > 1 or tensor in self._outputs:
            return None
        if node.op_type in ("Conv", "ConvTranspose"):
            is_stored = all(name in self._stored for name in node.input[1:])
            return (
                [node]
                if is_stored and (node.op_type == "Conv" or attribute(node, "group", 1) == 1)
                else None
            )
        if node.op_type == "Concat" and attribute(node, "axis", 0) == 1:
            layers: list[onnx.NodeProto] = []
            for part in node.input:
                found = self._layers_before(part)
                if found is None:
                    return None
                layers += found
            # One that is read twice would be multiplied twice.
            return layers if len({layer.name for layer in layers}) == len(layers) else None
        if node.op_type in _HOMOGENEOUS or (node.op_type == "Pad" and self._pads_with_zeros(node)):
            return self._layers_before(node.input[0])
        return None

    def _pads_with_zeros(self, node: onnx.NodeProto) -> bool:
        """True where a Pad adds zeros or copies, and no channels."""
        values = [self._stored.get(name) for name in node.input[1:] if name]
        if not values or any(tensor is None for tensor in values):
            return False
        pads, *fill = (numpy_helper.to_array(tensor) for tensor in values if tensor is not None)
        channels = pads.reshape(2, -1)[:, 1] if len(node.input) < _PADS_WITH_AXES else None
        return channels is not None and not channels.any() and not any(np.any(x) for x in fill)

    def _num_channels(self, layer: onnx.NodeProto) -> int:
        dims = self._stored[layer.input[1]].dims
        return int(dims[0] if layer.op_type == "Conv" else dims[1])

    def _multiply(self, layer: onnx.NodeProto, factors: NDArray[np.float32]) -> None:
        """Multiply a layer's output channels."""
        axis = 0 if layer.op_type == "Conv" else 1
        weights = numpy_helper.to_array(self._stored[layer.input[1]])
        shape = [1] * weights.ndim
        shape[axis] = -1
        self.renamed[layer.name] = self._store(layer, 1, weights * factors.reshape(shape))
        if len(layer.input) > 2:
            self._store(layer, 2, numpy_helper.to_array(self._stored[layer.input[2]]) * factors)
        quantised = self.weights.get(layer.name)
        if quantised is not None:
            exact = [scale_from_range(float(s) * INT8_MAX) for s in quantised.scales * factors]
            self.weights[layer.name] = dataclasses.replace(
                quantised, scales=np.array(exact, np.float32)
            )

    def _store(self, layer: onnx.NodeProto, i: int, values: NDArray[np.float32]) -> str:
        name = f"{layer.name}/folded/{i}"
        tensor = numpy_helper.from_array(values, name)
        self._model.graph.initializer.append(tensor)
        self._stored[name] = tensor
        layer.input[i] = name
        return name
