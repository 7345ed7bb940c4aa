"""INT8 or FP8 in the graph: QuantizeLinear and DequantizeLinear around chosen layers.

Quantisation is symmetric, but for inputs that are never negative (unsigned.py): weights per output
channel, stored in the format, activations per tensor, biases not at all. FP8 is E4M3. INT8
activations are int8 with zero point 0, which TensorRT requires and reads from 8.6 on, or the same
values plus 128 as uint8 for runtimes of CPUs: OpenVINO computes layers that read a Concat right
only in that form (docs/precision.md). A layer's input is quantised, its output is not: TensorRT
fuses the bias, the activation and the next layer's QuantizeLinear into the layer, and moves a
QuantizeLinear behind a Concat or a DepthToSpace in front of it. For ONNX Runtime alone outputs are
quantised as well (outputs.py). ONNX Runtime's quantizer writes the nodes
(docs/adr/0004-quantizer.md).
"""

import contextlib
import copy
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from swise_deploy.precision import PRECISIONS, ActivationType, QuantisedPrecision
from swise_export.counting import count_onnx
from swise_export.graph.number_formats import STORED_TYPES, rounded

if TYPE_CHECKING:
    from onnxruntime.quantization import QuantType

INT8_MAX = int(PRECISIONS["int8"].max_finite)
"""Largest magnitude of a quantised value; -128 is not used, so that the range is symmetric."""

UINT8_MAX = 255
"""Largest value of an unsigned input."""
# The value of uint8 that stands for 0 where a tensor has negative values.
_UINT8_ZERO = 128

CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}
"""The axis of the output channels in an operator's weights."""
# A layer with a smaller share of the Mult-Adds gains nothing from INT8: attention on averages.
_MIN_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that can be quantised.

    Attributes:
        name: Name of its node.
        op_type: "Conv", "ConvTranspose" or "MatMul".
        input: Tensor of its activations.
        weight: Initializer with its weights.
        mult_adds: Mult-Adds at a 1280x720 output, or at the graph's size if that is fixed.
    """

    name: str
    op_type: str
    input: str
    weight: str
    mult_adds: int

    @property
    def channel_axis(self) -> int:
        """The axis of the output channels in the weights."""
        return CHANNEL_AXIS[self.op_type]


@dataclass(frozen=True, slots=True)
class QuantisedWeights:
    """A layer's quantised weights.

    Attributes:
        values: Of the format's type (int8, or ml_dtypes' float8_e4m3fn), in the shape of the
            weights.
        scales: One for each output channel, exact in fp16.
    """

    values: NDArray[np.generic]
    scales: NDArray[np.float32]

    def dequantised(self, axis: int) -> NDArray[np.float32]:
        """The quantised values times their scales."""
        return self.values.astype(np.float32) * _along(self.scales, self.values.ndim, axis)


def find_layers(
    model: onnx.ModelProto, *, min_share: float = _MIN_SHARE
) -> tuple[tuple[Layer, ...], int]:
    """The layers of an fp32 model that can be quantised, in order, and the Mult-Adds of all layers.

    They are convolutions and matrix products with stored weights and at least `min_share` of the
    Mult-Adds.
    """
    counts = count_onnx(model)
    mult_adds = {layer.name: layer.mult_adds for layer in counts.layers}
    stored = {tensor.name for tensor in model.graph.initializer}
    layers = tuple(
        Layer(node.name, node.op_type, node.input[0], node.input[1], mult_adds.get(node.name, 0))
        for node in model.graph.node
        if node.op_type in CHANNEL_AXIS and node.input[1] in stored and node.input[0] not in stored
    )
    min_mult_adds = min_share * counts.mult_adds
    return tuple(x for x in layers if x.mult_adds >= min_mult_adds), counts.mult_adds


def scale_from_range(largest: float, precision: QuantisedPrecision = "int8") -> float:
    """The quantisation scale for values up to `largest`, exact in fp16.

    fp16 graphs store their scales in fp16, so the scale does not change there. Values beyond fp16's
    largest scale are clipped.
    """
    half = np.finfo(np.float16)
    step = min(largest / PRECISIONS[precision].max_finite, float(half.max))
    return max(float(np.float16(step)), float(half.smallest_subnormal))


def scales_of_weights(
    weights: NDArray[np.float32], axis: int, precision: QuantisedPrecision = "int8"
) -> NDArray[np.float32]:
    """The scale of every output channel, which maps its largest weight to the format's largest."""
    others = tuple(a for a in range(weights.ndim) if a != axis % weights.ndim)
    largest = np.abs(weights).max(axis=others)
    return np.array([scale_from_range(float(value), precision) for value in largest], np.float32)


def rounded_to_nearest(
    weights: NDArray[np.float32], axis: int, precision: QuantisedPrecision = "int8"
) -> QuantisedWeights:
    """Round every weight to the nearest quantised value."""
    scales = scales_of_weights(weights, axis, precision)
    values = rounded(weights / _along(scales, weights.ndim, axis), precision)
    return QuantisedWeights(values.astype(STORED_TYPES[precision]), scales)


def steps_of_inputs(
    layers: Collection[Layer],
    ranges: Mapping[str, float],
    precision: QuantisedPrecision = "int8",
    unsigned: Collection[str] = (),
) -> dict[str, float]:
    """The quantisation scale of each input; of layers that share one, the first one's range counts.

    Args:
        layers: Quantised layers.
        ranges: Largest magnitude of each layer's input, by layer name.
        precision: The format.
        unsigned: Names of layers whose input is unsigned: its range is divided into 255 steps.
    """
    return {
        layer.input: scale_from_range(
            ranges[layer.name] * (INT8_MAX / UINT8_MAX if layer.name in unsigned else 1), precision
        )
        for layer in reversed([*layers])
    }


def quantised_from_fp32(
    model: onnx.ModelProto,
    layers: Collection[Layer],
    *,
    ranges: Mapping[str, float],
    weights: Mapping[str, QuantisedWeights],
    precision: QuantisedPrecision = "int8",
    fp32_weights: bool = False,
    activation_type: ActivationType = "int8",
    unsigned: Collection[str] = (),
    between: Collection[str] = (),
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> onnx.ModelProto:
    """Quantise some layers of an fp32 model; the other layers do not change.

    Args:
        model: An fp32 model with a name for every node.
        layers: Layers that are quantised.
        ranges: Largest magnitude of each layer's input, by layer name. Layers that share an input
            share its QuantizeLinear, which takes the range of the first one.
        weights: Quantised weights, by layer name.
        precision: The format; FP8 needs opset 19.
        fp32_weights: Store weights in fp32 with a QuantizeLinear behind them, as TensorRT 8
            documents it, not in the format.
        activation_type: With INT8, stored type of the inputs of convolutions; both hold the same
            values. Inputs of matrix products are int8.
        unsigned: Layers whose input is uint8 with zero point 0, in steps of half the size: results
            of `find_unsigned` (unsigned.py, which also has the form for TensorRT).
        between: With `spans`, nodes between the layers that are quantised as well.
        spans: Quantise outputs of convolutions and biases too: lowest and highest value of every
            tensor around the layers and the nodes between them, as uint8 with any zero point.
    """
    # The quantizer is slow to import.
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    steps = steps_of_inputs(layers, ranges, precision, unsigned)
    largest = PRECISIONS[precision].max_finite
    bounds = {name: float(np.float32(step * largest)) for name, step in steps.items()}
    zero = np.zeros((), STORED_TYPES[precision])
    is_uint8 = activation_type == "uint8" and precision == "int8"
    zero_of_inputs = np.array(_UINT8_ZERO, np.uint8) if is_uint8 else zero
    # OpenVINO 2026.4 does not compile a MatMul that reads a Concat rounded with a zero point.
    signed = {layer.input for layer in layers if layer.op_type == "MatMul"}
    zeros = {name: zero if name in signed else zero_of_inputs for name in steps}
    positive = {layer.input for layer in layers if layer.name in unsigned}
    zeros |= dict.fromkeys(positive, np.zeros((), np.uint8))
    overrides: dict[str, list[dict[str, object]]] = {
        name: [_override(step, zeros[name])] for name, step in steps.items()
    }
    prepared = copy.deepcopy(model)
    initializers = {tensor.name: tensor for tensor in prepared.graph.initializer}
    for layer in layers:
        found, tensor = weights[layer.name], initializers[layer.weight]
        overrides[layer.weight] = [
            {
                **_override(float(scale), zero),
                "axis": layer.channel_axis % found.values.ndim,
            }
            for scale in found.scales
        ]
        values = found.dequantised(layer.channel_axis)
        tensor.CopyFrom(numpy_helper.from_array(values, layer.weight))
    ranges_of_tensors = {name: (-bound, bound) for name, bound in bounds.items()}
    if spans is not None:
        limits = {name: bound for name, bound in bounds.items() if zeros[name].any()}
        ranges_of_tensors |= _within(spans, limits)
        overrides = {name: o for name, o in overrides.items() if name not in limits}
    op_types = {*CHANNEL_AXIS, *(n.op_type for n in model.graph.node if n.name in between)}
    quantizer = QDQQuantizer(
        prepared,
        per_channel=True,
        reduce_range=False,
        weight_qType=_quant_type(zero),
        activation_qType=_quant_type(zero_of_inputs),
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {
                name: TensorData(lowest=np.float32(low), highest=np.float32(high))
                for name, (low, high) in ranges_of_tensors.items()
            },
        ),
        nodes_to_quantize=[*(layer.name for layer in layers), *between],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted(op_types),
        extra_options={
            "ActivationSymmetric": spans is None,
            "WeightSymmetric": True,
            "QuantizeBias": spans is not None,
            "AddQDQPairToWeight": fp32_weights,
            "OpTypesToExcludeOutputQuantization": [
                kind for kind in CHANNEL_AXIS if spans is None or kind != "Conv"
            ],
            "TensorQuantOverrides": overrides,
        },
    )
    with _without_advice():
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    names = {layer.name for layer in layers}
    _restore_inputs(quantised, {*names, *between}, {*names, *between} if spans else ())
    _own_scales(quantised)
    return quantised


def _quant_type(zero: NDArray[np.generic]) -> "QuantType":
    """The quantizer's name for the type of a zero point."""
    from onnxruntime.quantization import QuantType

    kinds = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    return kinds.get(zero.dtype.name, QuantType.QFLOAT8E4M3FN)


def _override(step: float, zero: NDArray[np.generic]) -> dict[str, object]:
    return {
        "quant_type": _quant_type(zero),
        "scale": np.array(step, np.float32),
        "zero_point": zero,
    }


def _along(scales: NDArray[np.float32], ndim: int, axis: int) -> NDArray[np.float32]:
    shape = [1] * ndim
    shape[axis] = -1
    return scales.reshape(shape)


def _within(
    spans: Mapping[str, tuple[float, float]], limits: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Spans cut to the largest magnitude of a tensor, where it has one."""
    found = dict(spans)
    for name, limit in limits.items():
        low, high = spans.get(name, (-limit, limit))
        found[name] = max(low, -limit), min(high, limit)
    return found


def _restore_inputs(
    model: onnx.ModelProto, quantised: Collection[str], giving: Collection[str]
) -> None:
    """Let only the quantised nodes read rounded tensors, but for outputs of the `giving` ones.

    The quantizer makes every reader of a tensor read the rounded one. A node that adds it to
    another tensor, such as the skip around a block, would lose precision and gain nothing.
    """
    given = {name for node in model.graph.node if node.name in giving for name in node.output}
    rounded = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in given
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

    It may read fp32 while its DequantizeLinear writes fp16, and a scale has the type of its node.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in stored:
            own = onnx.TensorProto()
            own.CopyFrom(stored[node.input[1]])
            own.name = f"{node.name}/scale"
            model.graph.initializer.append(own)
            node.input[1] = own.name


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Suppress the quantizer's advice, which it logs on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
