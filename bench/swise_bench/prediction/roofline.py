"""Roofline estimates: how fast a graph could run at best on a device that may not be here.

A layer cannot be faster than its arithmetic at the device's peak, nor than its memory traffic at
the device's bandwidth (Williams, Waterman, Patterson, "Roofline: an insightful visual performance
model", 2009). The sum over the layers is a lower bound of the latency, labelled as predicted
wherever it is shown; real engines reach a part of it, which `latency_model` estimates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from swise_deploy.precision import PRECISIONS, ExportPrecision
from swise_engines.targets.catalogue import Target
from swise_export.counting import Counts, LayerCounts
from swise_export.graph.operators import MULT_ADDS

Bound = Literal["compute", "bandwidth"]

PREDICTED_PRECISIONS: tuple[ExportPrecision, ...] = ("fp16", "int8")

# Below this many MACs for an output element (depthwise ones have 9) tensor cores have nothing to
# multiply.
MATRIX_MACS = 32

# They run inside the operator before them and move nothing of their own.
FUSED = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Clip", "Round", "Sqrt", "Relu", "LeakyRelu"}
    | {"PRelu", "Sigmoid", "Tanh", "Erf", "Gelu", "Cast", "QuantizeLinear", "DequantizeLinear"}
)

ASSUMPTIONS = (
    "predicted, not measured: every operator at the device's dense peak or its full bandwidth",
    "real engines reach a part of either; caches that hold activations may beat the bandwidth",
    "pointwise operators and conversions are fused into the operator before them and cost nothing",
    "every other operator reads its inputs and writes its outputs once, from and to DRAM",
    f"convolutions with under {MATRIX_MACS} MACs for an output element run at the FP32 vector peak",
    "int8: convolutions and matrix products in INT8, everything else in FP16",
)


@dataclass(frozen=True, slots=True)
class Device:
    """Peaks of a device; None where they are not known.

    Attributes:
        name: What it is called.
        tera_ops: Peak of dense matrix arithmetic by precision, 10^12 operations a second, a MAC
            being 2.
        vector_tera_ops: Peak without matrix units, FP32.
        bandwidth_gb_s: 10^9 bytes a second.
        origin: Where the peaks come from.
        power_mode: The mode that has these peaks, with its clock; empty where there is one.
    """

    name: str
    tera_ops: Mapping[ExportPrecision, float | None]
    vector_tera_ops: float | None
    bandwidth_gb_s: float | None
    origin: str
    power_mode: str = ""


@dataclass(frozen=True, slots=True)
class PredictedLayer:
    """One layer at best.

    Attributes:
        name: The node's name.
        op_type: ONNX operator.
        at_best_ms: Lower bound of its time.
        bound: What limits it.
        mult_adds: MACs.
        traffic_bytes: Bytes in the predicted precision.
        num_moved: Number of elements of the same.
        compute_ms: Arithmetic alone, at the peak.
        transfer_ms: Traffic alone, at the full bandwidth.
        is_matrix: True where matrix units multiply.
    """

    name: str
    op_type: str
    at_best_ms: float
    bound: Bound
    mult_adds: int
    traffic_bytes: int
    num_moved: int
    compute_ms: float
    transfer_ms: float
    is_matrix: bool


@dataclass(frozen=True, slots=True)
class Expectation:
    """A likely latency with its interval, in ms; no less than the roofline's bound.

    Attributes:
        likely_ms: As many latencies are expected above it as below.
        low_ms: Lower end of the interval.
        high_ms: Upper end.
    """

    likely_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """A graph on a device.

    Attributes:
        subject: What is predicted.
        device: Where.
        precision: In which precision.
        lr_size: Input size, (W, H).
        layers: Every operator that is not fused away.
        measured_ms: Median latency at the same size, where it was measured on that device.
        expected: The likely latency, where a model knows the device's kind.
    """

    subject: str
    device: Device
    precision: ExportPrecision
    lr_size: tuple[int, int]
    layers: tuple[PredictedLayer, ...]
    measured_ms: float | None = None
    expected: Expectation | None = None

    @property
    def at_best_ms(self) -> float:
        """Lower bound of the latency."""
        return sum(layer.at_best_ms for layer in self.layers)

    @property
    def compute_share(self) -> float:
        """Share of that time in layers that arithmetic limits."""
        bound = sum(layer.at_best_ms for layer in self.layers if layer.bound == "compute")
        return bound / self.at_best_ms


def device_from_target(target: Target) -> Device:
    """Peaks as the targets file states them, in the first of its power modes."""
    modes = target.power_modes
    return Device(
        target.name,
        {"fp32": target.fp32_tflops, "fp16": target.fp16_tflops, "int8": target.int8_tops},
        target.fp32_tflops,
        target.bandwidth_gb_s,
        "; ".join(target.sources) + (f"; {target.notes}" if target.notes else ""),
        f"{modes[0].name}, {modes[0].gpu_mhz:g} MHz" if modes else "",
    )


def devices_from_target(target: Target) -> list[Device]:
    """A device in each of its power modes."""
    in_modes = [target.in_mode(mode) for mode in target.power_modes]
    return [device_from_target(one) for one in in_modes or [target]]


def predict(
    subject: str,
    counts: Counts,
    device: Device,
    *,
    precision: ExportPrecision,
    measured_ms: float | None = None,
) -> Prediction | None:
    """Lower bound of the latency; None where the device's peaks are not known."""
    matrix, vector = device.tera_ops[precision], device.vector_tera_ops
    if matrix is None or device.bandwidth_gb_s is None:
        return None
    layers = tuple(
        _predict_layer(layer, matrix, vector or matrix, device.bandwidth_gb_s, precision)
        for layer in counts.layers
        if layer.op_type not in FUSED and layer.num_moved > 0
    )
    return Prediction(subject, device, precision, counts.lr_size, layers, measured_ms)


def _predict_layer(
    layer: LayerCounts,
    matrix: float,
    vector: float,
    bandwidth_gb_s: float,
    precision: ExportPrecision,
) -> PredictedLayer:
    multiplies = layer.op_type in MULT_ADDS
    used: ExportPrecision = "fp16" if precision == "int8" and not multiplies else precision
    traffic_bytes = layer.num_moved * PRECISIONS[used].num_bytes
    is_matrix = multiplies and layer.mult_adds >= MATRIX_MACS * layer.activations
    compute_ms = 2 * layer.mult_adds / ((matrix if is_matrix else vector) * 1e9)
    transfer_ms = traffic_bytes / (bandwidth_gb_s * 1e6)
    return PredictedLayer(
        layer.name,
        layer.op_type,
        max(compute_ms, transfer_ms),
        "compute" if compute_ms > transfer_ms else "bandwidth",
        layer.mult_adds,
        traffic_bytes,
        layer.num_moved,
        compute_ms,
        transfer_ms,
        is_matrix,
    )
