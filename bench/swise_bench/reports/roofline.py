"""Roofline estimates: how fast a graph could run at best on a device that may not be here.

A layer cannot be faster than its arithmetic at the device's peak, nor than its memory traffic at
the device's bandwidth (Williams, Waterman, Patterson, "Roofline: an insightful visual performance
model", 2009). The sum over the layers is a lower bound of the latency, labelled as predicted
wherever it is shown; real engines reach a part of it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from swise_bench.reports.charts import Point, axis_around, line, scatter
from swise_bench.reports.text_tables import MISSING, TextTable
from swise_deploy.command.console import size_text
from swise_engines.targets.catalogue import Target
from swise_export.graph.counting import MULT_ADDS, Counts, LayerCounts

Precision = Literal["fp32", "fp16", "int8"]
Bound = Literal["compute", "bandwidth"]

PREDICTED_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")

BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}

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
    """

    name: str
    tera_ops: Mapping[Precision, float | None]
    vector_tera_ops: float | None
    bandwidth_gb_s: float | None
    origin: str


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
    """

    name: str
    op_type: str
    at_best_ms: float
    bound: Bound
    mult_adds: int
    traffic_bytes: int


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
    """

    subject: str
    device: Device
    precision: Precision
    lr_size: tuple[int, int]
    layers: tuple[PredictedLayer, ...]
    measured_ms: float | None = None

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
    """Peaks as the targets file states them."""
    return Device(
        target.name,
        {"fp32": target.fp32_tflops, "fp16": target.fp16_tflops, "int8": target.int8_tops},
        target.fp32_tflops,
        target.bandwidth_gb_s,
        "; ".join(target.sources) + (f"; {target.notes}" if target.notes else ""),
    )


def predict(
    subject: str,
    counts: Counts,
    device: Device,
    *,
    precision: Precision,
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
    layer: LayerCounts, matrix: float, vector: float, bandwidth_gb_s: float, precision: Precision
) -> PredictedLayer:
    multiplies = layer.op_type in MULT_ADDS
    used: Precision = "fp16" if precision == "int8" and not multiplies else precision
    traffic_bytes = layer.num_moved * BYTES[used]
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
    )


def document_from_prediction(prediction: Prediction, *, with_layers: bool) -> dict[str, object]:
    """A prediction as JSON, marked as what it is."""
    device = prediction.device
    return {
        "kind": "predicted",
        "subject": prediction.subject,
        "device": device.name,
        "peaks_from": device.origin,
        "precision": prediction.precision,
        "lr_size": list(prediction.lr_size),
        "at_best_ms": prediction.at_best_ms,
        "compute_share": prediction.compute_share,
        "measured_ms": prediction.measured_ms,
        "assumptions": list(ASSUMPTIONS),
        "layers": [dataclasses.asdict(x) for x in prediction.layers] if with_layers else None,
    }


def tables_from_predictions(predictions: Sequence[Prediction]) -> list[TextTable]:
    """This machine with its error, devices that are not here, the slowest layers of the first."""
    checked = [p for p in predictions if p.measured_ms is not None]
    tables = [_checked_table(checked), _device_table([p for p in predictions if p not in checked])]
    if predictions:
        tables.append(_layer_table(predictions[0]))
    return [table for table in tables if table.rows]


def _checked_table(predictions: Sequence[Prediction]) -> TextTable:
    rows = tuple(
        (
            p.subject,
            p.precision,
            size_text(p.lr_size),
            f"{p.at_best_ms:.2f}",
            f"{p.measured_ms:.2f}",
            f"{p.at_best_ms / p.measured_ms - 1:+.0%}",
            f"{p.compute_share:.0%}",
        )
        for p in predictions
        if p.measured_ms is not None
    )
    origins = dict.fromkeys(f"peaks: {p.device.origin}" for p in predictions)
    return TextTable(
        "Roofline of this machine against measurement, ms",
        ("subject", "precision", "LR", "predicted", "measured", "error", "compute-bound"),
        rows,
        (*origins, *ASSUMPTIONS),
    )


def _device_table(predictions: Sequence[Prediction]) -> TextTable:
    found = {(p.subject, p.device.name, p.precision): p for p in predictions}
    rows = []
    for subject, device in dict.fromkeys((p.subject, p.device.name) for p in predictions):
        fp16, int8 = (found.get((subject, device, p)) for p in PREDICTED_PRECISIONS)
        first = fp16 or int8
        assert first is not None, "every pair comes from a prediction"
        rows.append(
            (
                device,
                subject,
                size_text(first.lr_size),
                MISSING if fp16 is None else f"{fp16.at_best_ms:.2f}",
                MISSING if int8 is None else f"{int8.at_best_ms:.2f}",
                f"{first.compute_share:.0%}",
            )
        )
    return TextTable(
        "Predicted latency on devices that are not here, ms",
        ("device", "subject", "LR", "fp16", "int8", "compute-bound"),
        tuple(rows),
        ASSUMPTIONS,
    )


def _layer_table(prediction: Prediction) -> TextTable:
    slowest = sorted(prediction.layers, key=lambda layer: -layer.at_best_ms)[:10]
    rows = tuple(
        (
            layer.name,
            layer.op_type,
            f"{layer.at_best_ms:.4f}",
            layer.bound,
            f"{layer.mult_adds / 1e9:.3f}",
            f"{layer.traffic_bytes / 1e6:.1f}",
        )
        for layer in slowest
    )
    return TextTable(
        f"Predicted layers of {prediction.subject} on {prediction.device.name}, "
        f"{prediction.precision}",
        ("layer", "operator", "predicted ms", "bound by", "Mult-Adds G", "traffic MB"),
        rows,
        (f"peaks: {prediction.device.origin}",),
    )


def roofline_plot(prediction: Prediction, series: int) -> str:
    """Every layer under the device's roof: MACs per byte against MACs per second."""
    matrix = prediction.device.tera_ops[prediction.precision]
    bandwidth = prediction.device.bandwidth_gb_s
    assert matrix is not None and bandwidth is not None, "predict needs both"  # noqa: PT018
    peak = matrix * 1000 / 2
    points = [
        Point(
            f"{layer.name} ({layer.op_type}): {layer.at_best_ms:.4f} ms, {layer.bound}",
            layer.mult_adds / layer.traffic_bytes,
            layer.mult_adds / layer.at_best_ms / 1e6,
            series,
        )
        for layer in prediction.layers
        if layer.mult_adds
    ]
    if not points:
        return ""
    ridge = peak / bandwidth
    intensities = [*(point.x for point in points), ridge / 4, ridge * 4]
    x = axis_around("MACs for each byte moved", intensities, is_log=True)
    y = axis_around("10^9 MACs a second", [peak, *(p.y for p in points)], is_log=True)
    left = max(x.low, y.low / bandwidth)
    roof = line(x, y, [(left, left * bandwidth), (ridge, peak), (x.high, peak)])
    title = f"Roofline, predicted: {prediction.device.name}, {prediction.precision}"
    return f"<h3>{title}</h3>{scatter(title, points, x, y, extra=roof)}"
