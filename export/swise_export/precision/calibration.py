"""Calibration on pictures: ranges of the activations, and rounded weights.

Calibration uses the user's pictures or the shipped photographs. Noise would give ranges that no
picture has.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from swise_deploy.errors import OutputError, first_line
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.precision import QuantisedPrecision
from swise_deploy.storage.files import writing
from swise_deploy.storage.ownership import reason_not_own
from swise_export.graph.activations import tensors_on_pictures
from swise_export.graph.number_formats import STORED_TYPES
from swise_export.precision.countdown import Countdown
from swise_export.precision.crops import hash_of_pictures
from swise_export.precision.quantised.equalisation import Factors
from swise_export.precision.quantised.qdq import (
    INT8_MAX,
    UINT8_MAX,
    Layer,
    QuantisedWeights,
    rounded_to_nearest,
    scale_from_range,
)
from swise_export.precision.quantised.unsigned import find_unsigned
from swise_export.precision.rounding import (
    input_rows,
    is_rounded_by_moments,
    rounded_by_moments,
    second_moment,
)

logger = logging.getLogger(__name__)

RangeMethod = Literal["minmax", "percentile", "entropy", "mse"]
Rounding = Literal["moments", "nearest"]

RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)

_PERCENTILE = 99.99
# Sampled values of a tensor: enough for the tail of its distribution, few enough for memory.
_SAMPLED_VALUES = 1 << 16
# Sampled positions of a layer's input in each picture, from which its moments are computed.
_MOMENT_POSITIONS = 4096
_HISTOGRAM_BINS = 256
# Names of the unsigned ranges in a file of the cache.
_UNSIGNED = "unsigned_"
_CANDIDATES = 40
# The ranges whose rounding errors of the input the weights are rounded for.
_ROUNDED_WITH: Mapping[QuantisedPrecision, RangeMethod] = {"int8": "mse", "fp8": "minmax"}
# Part of the cache key. Raise the last number when the code computes something else.
_CHOICES = (_PERCENTILE, _SAMPLED_VALUES, _MOMENT_POSITIONS, _HISTOGRAM_BINS, _CANDIDATES, 6)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Input ranges and quantised weights of a network's layers, by layer name.

    Attributes:
        ranges: For each method, the largest magnitude of each layer's input that is represented.
        unsigned_ranges: The same where an input can take all 256 values: smaller steps clip less.
        weights: Quantised weights of every layer.
        pictures_sha256: Hash of the crops.
        num_pictures: Number of crops.
        factors: The divisors of the inputs' channels, for which ranges and weights hold.
    """

    ranges: Mapping[RangeMethod, Mapping[str, float]]
    unsigned_ranges: Mapping[RangeMethod, Mapping[str, float]]
    weights: Mapping[str, QuantisedWeights]
    pictures_sha256: str
    num_pictures: int
    factors: Mapping[str, Factors] = field(default_factory=dict)

    def ranges_for(self, method: RangeMethod, unsigned: Collection[str]) -> dict[str, float]:
        """The range of each layer's input, by layer name, where those of some are unsigned."""
        found = {name: self.unsigned_ranges[method][name] for name in unsigned}
        return {**self.ranges[method], **found}


def calibrate(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    pairs: Sequence[Pair],
    *,
    largest: Mapping[str, float] | None = None,
    precision: QuantisedPrecision = "int8",
    rounding: Rounding = "moments",
    cache: Path | None = None,
    report: Callable[[str], None] = logger.info,
) -> Calibration:
    """Run an fp32 model on pictures, measure the inputs of its layers and round their weights.

    Args:
        model: An fp32 model with float io.
        layers: The result of `find_layers`.
        pairs: Pictures or crops; the model runs on their LR sides.
        largest: Largest magnitude of each layer's input, by layer name, where it was measured on
            more pictures than these.
        precision: The format.
        rounding: "nearest" rounds each weight by itself, for weights that were trained in INT8.
        cache: Folder for results, by the content of model and pictures; None stores none.
        report: Receives lines of progress.
    """
    sha256 = hash_of_pictures(pairs)
    known = [(layer.name, (largest or {}).get(layer.name, 0.0)) for layer in layers]
    digest = hashlib.sha256(f"{sha256} {precision} {rounding} {known} {_CHOICES}".encode())
    digest.update(model.SerializeToString(deterministic=True))
    cached = cache / f"{digest.hexdigest()}.npz" if cache is not None else None
    kept = None
    if cached is not None:
        kept = _load(
            cached, model, layers, sha256=sha256, num_pictures=len(pairs), precision=precision
        )
    if kept is not None:
        report(f"calibration on {len(pairs)} crops: read from the cache")
        return kept
    statistics = _collect(model, layers, pairs, rounding, report)
    report("choosing ranges")
    largest_of = {
        layer.input: max(statistics.largest[layer.input], dict(known)[layer.name])
        for layer in reversed(layers)
    }
    of_input = {
        name: ranges_of_values(statistics.values[name], value, precision)
        for name, value in largest_of.items()
    }
    ranges = {
        method: {layer.name: of_input[layer.input][method] for layer in layers}
        for method in range_methods(precision)
    }
    unsigned_ranges = dict(ranges)
    if precision == "int8":
        positive = find_unsigned(model, layers)
        inputs = {x.input for x in layers if x.name in positive}
        finer = {
            name: _mse_range(statistics.values[name], largest_of[name], UINT8_MAX)
            for name in inputs
            if largest_of[name]
        }
        by_layer = {x.name: finer.get(x.input, ranges["mse"][x.name]) for x in layers}
        unsigned_ranges["mse"] = by_layer
    report(f"rounding the weights of {len(layers)} layers")
    initializers = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    weights = {}
    for layer in layers:
        moments = statistics.moments.get(layer.name)
        if moments is None:
            found = rounded_to_nearest(initializers[layer.weight], layer.channel_axis, precision)
        else:
            by_method = ranges[_ROUNDED_WITH[precision]]
            step = scale_from_range(by_method[layer.name], precision)
            found = rounded_by_moments(
                nodes[layer.name],
                initializers[layer.weight],
                moments,
                step=step,
                precision=precision,
            )
        weights[layer.name] = found
    calibration = Calibration(ranges, unsigned_ranges, weights, sha256, len(pairs))
    if cached is not None:
        try:
            _save(cached, calibration, layers)
        except OutputError as error:
            logger.warning("the calibration is made again next time: %s", error)
    return calibration


def largest_by_channel(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    pairs: Sequence[Pair],
    *,
    report: Callable[[str], None] = logger.info,
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of every channel of every layer's input (C,), by layer name.

    Args:
        model: An fp32 model with float io.
        layers: The result of `find_layers`.
        pairs: Pictures or crops; the model runs on their LR sides.
        report: Receives lines of progress.
    """
    largest: dict[str, NDArray[np.float32]] = {}
    countdown = Countdown("channels", len(pairs), "crops", report=report)
    for found in tensors_on_pictures(model, [x.input for x in layers], [p.lr for p in pairs]):
        for layer in layers:
            values = found[layer.input]
            axis = values.ndim - 1 if layer.op_type == "MatMul" else 1
            others = tuple(a for a in range(values.ndim) if a != axis)
            new = np.abs(values).max(axis=others, initial=0.0)
            largest[layer.name] = np.maximum(largest.get(layer.name, new), new)
        countdown.advance()
    return largest


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Largest magnitude and a sample of magnitudes by tensor; second moments by layer."""

    largest: Mapping[str, float]
    values: Mapping[str, NDArray[np.float32]]
    moments: Mapping[str, Sequence[NDArray[np.float64]]]


def _collect(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    pairs: Sequence[Pair],
    rounding: Rounding,
    report: Callable[[str], None],
) -> _Statistics:
    nodes = {node.name: node for node in model.graph.node}
    tensors = list(dict.fromkeys(layer.input for layer in layers))
    largest = dict.fromkeys(tensors, 0.0)
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in tensors}
    moments: dict[str, list[NDArray[np.float64]]] = {}
    countdown = Countdown("calibration", len(pairs), "crops", report=report)
    for found in tensors_on_pictures(model, tensors, [pair.lr for pair in pairs]):
        for name in tensors:
            magnitudes = np.abs(found[name]).ravel()
            largest[name] = max(largest[name], float(magnitudes.max(initial=0.0)))
            values[name].append(_thinned(magnitudes, _SAMPLED_VALUES // len(pairs)))
        # Layers that read the same values in the same way share their moments.
        of_input: dict[bytes, list[NDArray[np.float64]]] = {}
        for layer in layers:
            if rounding == "moments" and is_rounded_by_moments(nodes[layer.name]):
                key = _reading_of(nodes[layer.name])
                if key not in of_input:
                    rows = input_rows(
                        nodes[layer.name], found[layer.input], max_positions=_MOMENT_POSITIONS
                    )
                    of_input[key] = [second_moment(group) / len(pairs) for group in rows]
                new = of_input[key]
                old = moments.get(layer.name, [np.zeros_like(m) for m in new])
                moments[layer.name] = [a + b for a, b in zip(old, new, strict=True)]
        countdown.advance()
    return _Statistics(largest, {n: np.concatenate(v) for n, v in values.items()}, moments)


def _reading_of(node: onnx.NodeProto) -> bytes:
    """A key of the values that a layer multiplies by its weights."""
    reading = onnx.NodeProto(op_type=node.op_type, input=node.input[:1])
    reading.attribute.extend(sorted(node.attribute, key=lambda a: a.name))
    return bytes(reading.SerializeToString(deterministic=True))


def _thinned(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    # An odd stride does not sample the same channel or column again and again.
    return np.ascontiguousarray(values[:: max(1, values.size // max(1, count)) | 1])


def range_methods(precision: QuantisedPrecision) -> tuple[RangeMethod, ...]:
    """The methods for a format.

    FP8 takes the largest value: its steps follow the values, so that small ones gain nothing where
    a large one is clipped.
    """
    return RANGE_METHODS if precision == "int8" else ("minmax",)


def ranges_of_values(
    values: NDArray[np.float32], largest: float, precision: QuantisedPrecision = "int8"
) -> dict[RangeMethod, float]:
    """The largest magnitude that is represented, by method, from a sample of magnitudes."""
    methods = range_methods(precision)
    if not largest or precision == "fp8":
        return dict.fromkeys(methods, largest)
    return {
        "minmax": largest,
        "percentile": float(np.percentile(values, _PERCENTILE)),
        "entropy": _entropy_range(values, largest),
        "mse": _mse_range(values, largest, INT8_MAX),
    }


def _mse_range(values: NDArray[np.float32], largest: float, steps: int) -> float:
    """The range with the least mean squared rounding error, clipped values included.

    Between it and 0 there are `steps`.
    """
    candidates = largest * np.linspace(0.2, 1.0, _CANDIDATES)
    errors = []
    for candidate in candidates:
        step = candidate / steps
        restored = np.minimum(np.rint(values / step), steps) * step
        errors.append(float(np.mean((restored - values) ** 2)))
    return float(candidates[int(np.argmin(errors))])


def _entropy_range(values: NDArray[np.float32], largest: float) -> float:
    """The range that loses the least information, by ONNX Runtime's search."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    half, edges = np.histogram(values, bins=_HISTOGRAM_BINS // 2, range=(0, largest))
    # The search starts at the middle bin, which holds zero.
    histogram = np.concatenate([half[::-1], half[:1], half])
    width = edges[1]
    mirrored = (np.arange(histogram.size + 1) - histogram.size / 2) * width
    collector = HistogramCollector(
        "entropy", True, _HISTOGRAM_BINS, INT8_MAX + 1, _PERCENTILE, None
    )
    found = collector.get_entropy_threshold(
        (histogram, mirrored.astype(np.float32), np.float32(-largest), np.float32(largest)),
        INT8_MAX + 1,
    )
    return min(largest, float(found[1]))


def _save(path: Path, calibration: Calibration, layers: Sequence[Layer]) -> None:
    arrays: dict[str, NDArray[np.generic]] = {}
    for i, layer in enumerate(layers):
        # NumPy does not name the type of FP8 in its files; its bytes are those of int8.
        arrays[f"values{i}"] = calibration.weights[layer.name].values.view(np.int8)
        arrays[f"scales{i}"] = calibration.weights[layer.name].scales
    for prefix, ranges in (("", calibration.ranges), (_UNSIGNED, calibration.unsigned_ranges)):
        for method, by_layer in ranges.items():
            arrays[f"{prefix}{method}"] = np.array([by_layer[layer.name] for layer in layers])
    with writing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def _load(
    path: Path,
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    *,
    sha256: str,
    num_pictures: int,
    precision: QuantisedPrecision,
) -> Calibration | None:
    """A kept calibration; None where it is absent, damaged or another user's; logged."""
    if not path.is_file():
        return None
    reason = reason_not_own(path) or reason_not_own(path.parent)
    try:
        found = None if reason else _read(path, layers, sha256, num_pictures, precision)
        if found is not None and not _fits(found, model, layers):
            found, reason = None, f"{path} does not fit the network"
    except Exception as error:  # noqa: BLE001  # NumPy and zipfile raise anything on damaged bytes
        found, reason = None, f"{path}: {first_line(error)}"
    if found is None:
        logger.warning("the kept calibration is made again: %s", reason)
    return found


def _fits(calibration: Calibration, model: onnx.ModelProto, layers: Sequence[Layer]) -> bool:
    """True where the weights have the shapes of the network's, and every number is possible."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for layer in layers:
        shape, weights = shapes[layer.weight], calibration.weights[layer.name]
        channels = (shape[layer.channel_axis],)
        if weights.values.shape != shape:
            return False
        if weights.scales.dtype != np.float32 or weights.scales.shape != channels:
            return False
        if not np.all((weights.scales > 0) & np.isfinite(weights.scales)):
            return False
    every = (*calibration.ranges.values(), *calibration.unsigned_ranges.values())
    ranges = [value for by_layer in every for value in by_layer.values()]
    return all(math.isfinite(value) and value >= 0 for value in ranges)


def _read(
    path: Path,
    layers: Sequence[Layer],
    sha256: str,
    num_pictures: int,
    precision: QuantisedPrecision,
) -> Calibration:
    # Of a damaged archive NumPy leaves the file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        signed, unsigned = (
            {
                method: {
                    layer.name: float(value)
                    for layer, value in zip(layers, arrays[f"{prefix}{method}"], strict=True)
                }
                for method in range_methods(precision)
            }
            for prefix in ("", _UNSIGNED)
        )
        weights = {}
        for i, layer in enumerate(layers):
            stored = arrays[f"values{i}"]
            if stored.dtype != np.int8:
                raise ValueError(f"weights of {layer.name} are {stored.dtype}, not int8")
            values = stored.view(STORED_TYPES[precision])
            weights[layer.name] = QuantisedWeights(values, arrays[f"scales{i}"])
    return Calibration(signed, unsigned, weights, sha256, num_pictures)
