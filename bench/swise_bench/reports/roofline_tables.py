"""Roofline predictions as tables, JSON and a chart."""

import dataclasses
from collections.abc import Sequence

from swise_bench.measuring.roofline import ASSUMPTIONS, PREDICTED_PRECISIONS, Prediction
from swise_bench.reports.charts import Point, axis_around, line, scatter
from swise_bench.reports.text_tables import MISSING, TextTable
from swise_deploy.command.console import size_text


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
