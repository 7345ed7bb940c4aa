"""Roofline predictions as tables, JSON and a chart."""

import dataclasses
from collections.abc import Sequence

from swise_bench.prediction.latency_model import INTERVAL_SHARE, load_latency_model
from swise_bench.prediction.roofline import ASSUMPTIONS, PREDICTED_PRECISIONS, Prediction
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
        "power_mode": device.power_mode or None,
        "peaks_from": device.origin,
        "precision": prediction.precision,
        "lr_size": list(prediction.lr_size),
        "at_best_ms": prediction.at_best_ms,
        "likely_ms": prediction.expected and prediction.expected.likely_ms,
        "interval": _interval_document(prediction),
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


def _interval_document(prediction: Prediction) -> dict[str, object] | None:
    expected = prediction.expected
    if expected is None:
        return None
    return {
        "share": INTERVAL_SHARE,
        "low_ms": expected.low_ms,
        "high_ms": expected.high_ms,
        "checked": dataclasses.asdict(load_latency_model()),
    }


def _device_table(predictions: Sequence[Prediction]) -> TextTable:
    found = {
        (p.subject, p.device.name, p.device.power_mode, p.lr_size, p.precision): p
        for p in predictions
    }
    rows = []
    for key in dict.fromkeys(key[:-1] for key in found):
        fp16, int8 = (found.get((*key, precision)) for precision in PREDICTED_PRECISIONS)
        first = fp16 or int8
        assert first is not None, "every key comes from a prediction"
        rows.append(
            (
                first.device.name,
                first.device.power_mode or MISSING,
                first.subject,
                size_text(first.lr_size),
                *_cells(fp16),
                *_cells(int8),
            )
        )
    likely = f"likely ({INTERVAL_SHARE:.0%})"
    headers = [f"{p} {what}" for p in PREDICTED_PRECISIONS for what in ("bound", likely)]
    return TextTable(
        "Predicted latency on devices that are not here, ms",
        ("device", "mode", "subject", "LR", *headers),
        tuple(rows),
        (load_latency_model().describe(), *(f"bound: {text}" for text in ASSUMPTIONS)),
    )


def _cells(prediction: Prediction | None) -> tuple[str, str]:
    """The bound, and the likely latency with its interval."""
    if prediction is None:
        return MISSING, MISSING
    return f"{prediction.at_best_ms:.2f}", expectation_text(prediction)


def expectation_text(prediction: Prediction) -> str:
    """The likely latency and its interval: "12 (7.3 to 20)"."""
    expected = prediction.expected
    if expected is None:
        return MISSING
    likely, low, high = (
        f"{value:.3g}" if value < 100 else f"{value:.0f}"
        for value in (expected.likely_ms, expected.low_ms, expected.high_ms)
    )
    return f"{likely} ({low} to {high})"


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
