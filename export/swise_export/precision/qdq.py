"""INT8, written into the graph: QuantizeLinear and DequantizeLinear around chosen layers.

Signed and symmetric, weights per output channel and stored as int8, activations per tensor, biases
untouched: what TensorRT asks for explicit quantisation, and what every version from 8.6 on reads.
A layer's input is quantised, its output is not: TensorRT fuses the bias, the activation and the
next layer's QuantizeLinear into the layer, and moves a QuantizeLinear behind a Concat or a
DepthToSpace in front of it. docs/adr/0004-quantizer.md says why ONNX Runtime writes the nodes.
"""

import copy
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from swise_export.graph.counting import count_onnx

LEVELS = 127
"""Largest magnitude of a level; -128 stays unused, so that the range is symmetric."""

# The axis of the output channels in an operator's weights.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}
# With less than this share of the Mult-Adds a layer has nothing to win: attention on averages.
_LEAST_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that can run in INT8.

    Attributes:
        name: Of its node.
        op_type: "Conv", "ConvTranspose" or "MatMul".
        input: The tensor that its activations come in.
        weight: Initializer with its weights.
        mult_adds: At a 1280x720 output, or at the graph's own size if that is fixed.
    """

    name: str
    op_type: str
    input: str
    weight: str
    mult_adds: int

    @property
    def channel_axis(self) -> int:
        """The axis of the output channels in the weights."""
        return _CHANNEL_AXIS[self.op_type]


@dataclass(frozen=True, slots=True)
class Int8Weights:
    """A layer's weights in INT8.

    Attributes:
        levels: int8, in the shape of the weights.
        scales: One for each output channel; each is a number that fp16 holds exactly.
    """

    levels: NDArray[np.int8]
    scales: NDArray[np.float32]

    def dequantised(self, axis: int) -> NDArray[np.float32]:
        """The weights that the levels stand for."""
        return self.levels * _along(self.scales, self.levels.ndim, axis)


def find_layers(
    model: onnx.ModelProto, *, least_share: float = _LEAST_SHARE
) -> tuple[tuple[Layer, ...], int]:
    """The layers of an fp32 model that INT8 can serve, in order, and the Mult-Adds of all layers.

    Convolutions and products with stored weights that have at least `least_share` of the Mult-Adds.
    """
    counts = count_onnx(model)
    mult_adds = {layer.name: layer.mult_adds for layer in counts.layers}
    stored = {tensor.name for tensor in model.graph.initializer}
    layers = tuple(
        Layer(node.name, node.op_type, node.input[0], node.input[1], mult_adds.get(node.name, 0))
        for node in model.graph.node
        if node.op_type in _CHANNEL_AXIS and node.input[1] in stored and node.input[0] not in stored
    )
    least = least_share * counts.mult_adds
    return tuple(layer for layer in layers if layer.mult_adds >= least), counts.mult_adds


def scale_from_range(largest: float) -> float:
    """The step between two levels for values up to `largest`; a number that fp16 holds exactly.

    fp16 graphs store their scales in fp16. A scale chosen there loses nothing when it is stored.
    Values beyond fp16's largest scale are clipped.
    """
    half = np.finfo(np.float16)
    step = min(largest / LEVELS, float(half.max))
    return max(float(np.float16(step)), float(half.smallest_subnormal))


def scales_of_weights(weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The step of every output channel, so that its largest weight gets the highest level."""
    others = tuple(a for a in range(weights.ndim) if a != axis % weights.ndim)
    largest = np.abs(weights).max(axis=others)
    return np.array([scale_from_range(float(value)) for value in largest], np.float32)


def rounded_to_nearest(weights: NDArray[np.float32], axis: int) -> Int8Weights:
    """Every weight to the level nearest to it."""
    scales = scales_of_weights(weights, axis)
    levels = np.rint(weights / _along(scales, weights.ndim, axis))
    return Int8Weights(np.clip(levels, -LEVELS, LEVELS).astype(np.int8), scales)


def int8_from_fp32(
    model: onnx.ModelProto,
    layers: Collection[Layer],
    *,
    ranges: Mapping[str, float],
    weights: Mapping[str, Int8Weights],
    stored: Literal["int8", "fp32"] = "int8",
) -> onnx.ModelProto:
    """Quantise some layers of an fp32 model; the rest stays as it is.

    Args:
        model: fp32, every node named.
        layers: Which of them become INT8.
        ranges: Largest magnitude that each layer's input takes, by layer name. Layers that share
            an input share its QuantizeLinear: the first one's range counts.
        weights: Their weights, by layer name.
        stored: How weights lie in the file: as their levels, or in fp32 with a QuantizeLinear that
            gives the levels, which is what TensorRT 8 documents.
    """
    # Only here: the quantizer takes a moment to import.
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    steps = {layer.input: scale_from_range(ranges[layer.name]) for layer in reversed([*layers])}
    bounds = {name: np.float32(step * LEVELS) for name, step in steps.items()}
    overrides: dict[str, list[dict[str, object]]] = {
        name: [_override(step)] for name, step in steps.items()
    }
    prepared = copy.deepcopy(model)
    initializers = {tensor.name: tensor for tensor in prepared.graph.initializer}
    for layer in layers:
        found, tensor = weights[layer.name], initializers[layer.weight]
        overrides[layer.weight] = [
            {**_override(float(scale)), "axis": layer.channel_axis % found.levels.ndim}
            for scale in found.scales
        ]
        values = found.dequantised(layer.channel_axis)
        tensor.CopyFrom(numpy_helper.from_array(values, layer.weight))
    quantizer = QDQQuantizer(
        prepared,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: TensorData(lowest=-bound, highest=bound) for name, bound in bounds.items()},
        ),
        nodes_to_quantize=[layer.name for layer in layers],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_CHANNEL_AXIS),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": stored == "fp32",
            "OpTypesToExcludeOutputQuantization": list(_CHANNEL_AXIS),
            "TensorQuantOverrides": overrides,
        },
    )
    with _quietly():
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    _give_back(quantised, {layer.name for layer in layers})
    _own_scales(quantised)
    return quantised


def _override(step: float) -> dict[str, object]:
    return {"scale": np.array(step, np.float32), "zero_point": np.array(0, np.int8)}


def _along(scales: NDArray[np.float32], ndim: int, axis: int) -> NDArray[np.float32]:
    shape = [1] * ndim
    shape[axis] = -1
    return scales.reshape(shape)


def _give_back(model: onnx.ModelProto, quantised: Collection[str]) -> None:
    """Let only the quantised layers read rounded tensors.

    The quantizer hands a rounded tensor to all who read it. What adds it to something else, as the
    skip around a block does, would lose its precision and win nothing.
    """
    rounded = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    original = {
        node.output[0]: rounded[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in rounded
    }
    for node in model.graph.node:
        if node.name not in quantised:
            for i, name in enumerate(node.input):
                node.input[i] = original.get(name, name)


def _own_scales(model: onnx.ModelProto) -> None:
    """Give every QuantizeLinear a scale of its own.

    It may compute in fp32 while its DequantizeLinear gives fp16, and a scale has its node's type.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in stored:
            own = onnx.TensorProto()
            own.CopyFrom(stored[node.input[1]])
            own.name = f"{node.name}/scale"
            model.graph.initializer.append(own)
            node.input[1] = own.name


class _quietly:  # noqa: N801  # reads as a verb: with _quietly()
    """Holds back the quantizer's advice, which it logs on the root logger."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._before)
