import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_bench.prediction.roofline import Device, device_from_target, predict
from swise_bench.reports.charts import axis_around
from swise_bench.reports.roofline_tables import roofline_plot, tables_from_predictions
from swise_engines.targets.catalogue import load_targets
from swise_export.counting import Counts, count_onnx

# 1 tera-operation a second is 500 GMAC/s; 100 GB/s.
DEVICE = Device("paper", {"fp32": 1.0, "fp16": 2.0, "int8": 4.0}, 0.5, 100.0, "by hand")


def _model(channels: int, kernel: int, group: int = 1) -> onnx.ModelProto:
    weight = np.zeros((channels, channels // group, kernel, kernel), np.float32)
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=pads, group=group),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    dims = (1, channels, "h", "w")
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _counts(channels: int, kernel: int, group: int = 1) -> Counts:
    return count_onnx(_model(channels, kernel, group), lr_size=(100, 100))


def test_a_large_convolution_is_bound_by_arithmetic() -> None:
    found = predict("net", _counts(256, 3), DEVICE, precision="fp32")
    assert found is not None
    (layer,) = found.layers
    # 256*256*9*10^4 MACs at 500 GMAC/s; the Relu is fused.
    assert layer.at_best_ms == pytest.approx(256 * 256 * 9 * 1e4 / 500e9 * 1e3)
    assert layer.bound == "compute"
    assert found.compute_share == 1


def test_a_depthwise_convolution_is_bound_by_bandwidth_and_runs_on_ordinary_cores() -> None:
    found = predict("net", _counts(64, 3, group=64), DEVICE, precision="fp32")
    assert found is not None
    (layer,) = found.layers
    moved = 4 * (64 * 1e4 * 2 + 64 * 9)
    assert layer.at_best_ms == pytest.approx(moved / 100e9 * 1e3)
    assert layer.bound == "bandwidth"


def test_half_precision_moves_half_and_int8_a_quarter() -> None:
    counts = _counts(64, 3, group=64)
    device = dataclasses.replace(DEVICE, vector_tera_ops=50.0)
    times = [predict("net", counts, device, precision=p) for p in ("fp32", "fp16", "int8")]
    assert all(time is not None for time in times)
    fp32, fp16, int8 = (time.at_best_ms for time in times if time is not None)
    assert fp32 == pytest.approx(2 * fp16)
    assert fp32 == pytest.approx(4 * int8)


def _as_int8(counts_of: onnx.ModelProto, kind: int) -> Counts:
    """The same graph with Q and DQ around its convolution, everything else in fp16 or fp32."""
    model = onnx.ModelProto()
    model.CopyFrom(counts_of)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 19))
    half = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    conv, relu = model.graph.node
    del model.graph.node[:]
    int8_weight = np.zeros(numpy_helper.to_array(model.graph.initializer[0]).shape, np.int8)
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(int8_weight, "int8_weight"),
            numpy_helper.from_array(np.array(0.1, half), "step"),
        ]
    )
    conv.input[:] = ["x_dq", "w_dq"]
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["x"], ["narrow"], to=kind),
            helper.make_node("QuantizeLinear", ["narrow", "step", "zero"], ["x_q"]),
            helper.make_node("DequantizeLinear", ["x_q", "step"], ["x_dq"]),
            helper.make_node("DequantizeLinear", ["int8_weight", "step"], ["w_dq"]),
            conv,
            relu,
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    return count_onnx(model, lr_size=(100, 100))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_a_prediction_does_not_hang_on_the_types_in_the_file(kind: int) -> None:
    """An INT8 convolution reads what DequantizeLinear gives, fp32 or fp16: an engine moves INT8."""
    plain = _model(64, 3, group=64)
    for precision in ("fp16", "int8"):
        expected = predict(
            "net", count_onnx(plain, lr_size=(100, 100)), DEVICE, precision=precision
        )
        found = predict("net", _as_int8(plain, kind), DEVICE, precision=precision)
        assert expected is not None
        assert found is not None
        assert found.at_best_ms == pytest.approx(expected.at_best_ms)


def test_unknown_peaks_give_no_prediction() -> None:
    device = Device("mystery", {"fp32": None, "fp16": 1.0, "int8": None}, None, None, "")
    assert predict("net", _counts(4, 3), device, precision="fp16") is None
    assert predict("net", _counts(4, 3), device, precision="int8") is None


def test_every_shipped_target_is_predicted_or_left_out_for_a_missing_peak() -> None:
    counts = _counts(64, 3)
    for target in load_targets().values():
        found = predict("net", counts, device_from_target(target), precision="fp16")
        is_known = target.fp16_tflops is not None and target.bandwidth_gb_s is not None
        assert (found is not None) == is_known, target.name


def test_the_error_against_measurement_is_printed() -> None:
    found = predict("net", _counts(256, 3), DEVICE, precision="fp32", measured_ms=23.592960)
    assert found is not None
    table = tables_from_predictions([found])[0]
    # 11.80 ms predicted, twice that measured.
    assert table.rows[0][3:6] == ("11.80", "23.59", "-50%")


def test_every_layer_lies_under_the_roof() -> None:
    found = predict("net", _counts(256, 3), DEVICE, precision="fp16")
    assert found is not None
    assert "<circle" in roofline_plot(found, 0)
    for layer in found.layers:
        rate = layer.mult_adds / layer.at_best_ms / 1e6
        assert rate <= 1000 * (1 + 1e-9)
        assert rate <= 100 * layer.mult_adds / layer.traffic_bytes * (1 + 1e-9)


def test_an_axis_places_its_ends_and_round_ticks() -> None:
    axis = axis_around("ms", [10, 20])
    assert axis.place(axis.low, 0, 100) == 0
    assert axis.place(axis.high, 0, 100) == 100
    assert axis.ticks() == [10, 15, 20]
    decades = axis_around("ms", [1, 1000], is_log=True)
    assert decades.place((decades.low * decades.high) ** 0.5, 0, 100) == pytest.approx(50)
