"""Ranges, and what is kept between runs."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.precision import QuantisedPrecision
from swise_export.graph.number_formats import STORED_TYPES
from swise_export.precision.calibration import (
    calibrate,
    largest_by_channel,
    ranges_of_values,
)
from swise_export.precision.crops import hash_of_pictures
from swise_export.precision.plan import PlannedLayer, PrecisionPlan
from swise_export.precision.quantised.qdq import find_layers
from swise_export.precision.recipe import calibrate_for_plan
from swise_export.precision.search.quantisation import QuantisationConfig, QuantisationSearch
from swise_export.tracing.trace import traced_form
from tests.export.precision.quantised.test_qdq import picture


def test_ranges_by_their_definitions() -> None:
    # 0, 1/9999, ..., 1, and one outlier at 4.
    values = np.append(np.linspace(0, 1, 9_999), 4.0).astype(np.float32)
    found = ranges_of_values(values, 4.0)
    assert found["minmax"] == 4.0
    assert found["percentile"] == pytest.approx(np.percentile(values, 99.99))
    # Clipping one value in 10,000 by 3 costs 9e-4; steps of 4/127 instead of 1/127 cost
    # (4/127)^2 / 12 = 8.3e-5: the outlier is worth keeping by that measure.
    assert found["mse"] > 2
    assert 0 < found["entropy"] <= 4
    # Without the tail being so far out, clipping wins.
    near = ranges_of_values(np.append(np.linspace(0, 1, 999_999), 1.5).astype(np.float32), 1.5)
    assert near["mse"] < 1.2


def test_all_zero_input_has_no_range() -> None:
    assert set(ranges_of_values(np.zeros(10, np.float32), 0.0).values()) == {0.0}


def test_fp8_clips_nothing() -> None:
    # It rounds small values by their own size.
    values = np.append(np.linspace(0, 1, 999_999), 1.5).astype(np.float32)
    assert ranges_of_values(values, 1.5, "fp8") == {"minmax": 1.5}


def test_the_largest_values_are_found_channel_by_channel() -> None:
    model = nearest_x2()
    layers, _ = find_layers(model)
    lr = np.zeros((4, 5, 3), np.uint8)
    lr[1, 2], lr[3, 4] = (51, 0, 255), (102, 0, 0)
    found = largest_by_channel(model, layers, [Pair("a", lr, lr), Pair("b", lr // 2, lr)])
    np.testing.assert_allclose(found["conv"], [0.4, 0.0, 1.0])


def test_a_range_reaches_as_far_as_it_is_told(network_x2: LoadedNetwork) -> None:
    model = traced_form(network_x2)
    layers = find_layers(model)[0][:2]
    own = calibrate(model, layers, [picture(0)])
    wide = calibrate(model, layers, [picture(0)], largest={layers[0].name: 1000.0})
    assert wide.ranges["minmax"][layers[0].name] == 1000.0
    assert wide.ranges["minmax"][layers[1].name] == own.ranges["minmax"][layers[1].name]


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_calibration_is_cached_by_content(
    tmp_path: Path, network_x2: LoadedNetwork, precision: QuantisedPrecision
) -> None:
    model = traced_form(network_x2)
    layers = find_layers(model)[0][:6]
    pairs = [picture(0), picture(1)]
    reported: list[str] = []
    quantise = partial(
        calibrate, model, layers, precision=precision, cache=tmp_path, report=reported.append
    )
    first = quantise(pairs)
    assert any("choosing ranges" in line for line in reported)
    reported.clear()
    again = quantise(pairs)
    assert reported == ["calibration on 2 crops: read from the cache"]
    assert again.ranges == first.ranges
    for name, weights in first.weights.items():
        assert again.weights[name].values.dtype == STORED_TYPES[precision]
        np.testing.assert_array_equal(again.weights[name].values, weights.values)
        np.testing.assert_array_equal(again.weights[name].scales, weights.scales)
    other = quantise(pairs[:1])
    assert other.pictures_sha256 == hash_of_pictures(pairs[:1]) != first.pictures_sha256


@pytest.mark.parametrize("damage", ["cut", "other arrays", "a pickle", "open to others"])
def test_a_kept_calibration_that_cannot_be_trusted_is_made_again(
    tmp_path: Path, network_x2: LoadedNetwork, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = traced_form(network_x2)
    layers = find_layers(model)[0][:2]
    first = calibrate(model, layers, [picture(0)], cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:200])
    elif damage == "other arrays":
        arrays = dict(np.load(kept))
        np.savez(kept, **{**arrays, "values0": arrays["values0"][:, :1]})
    elif damage == "a pickle":
        kept.write_bytes(pickle.dumps({"minmax": [1]}))
    else:
        kept.chmod(0o666)
    again = calibrate(model, layers, [picture(0)], cache=tmp_path)
    assert "the kept calibration is made again" in caplog.text
    assert again.ranges == first.ranges
    for name, weights in first.weights.items():
        np.testing.assert_array_equal(again.weights[name].values, weights.values)


def test_a_cache_that_cannot_be_written_stops_no_calibration(
    tmp_path: Path, network_x2: LoadedNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    model = traced_form(network_x2)
    (tmp_path / "file").touch()
    calibrate(model, find_layers(model)[0][:1], [picture(0)], cache=tmp_path / "file")
    assert "the calibration is made again next time" in caplog.text


def nearest_x2() -> onnx.ModelProto:
    """Every pixel four times: a convolution and a DepthToSpace."""
    weight = np.repeat(np.eye(3, dtype=np.float32)[None], 4, axis=0).reshape(12, 3, 1, 1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "w"], ["x"], name="conv", kernel_shape=[1, 1]),
            helper.make_node("DepthToSpace", ["x"], ["sr"], name="shuffle", blocksize=2),
        ],
        "nearest",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h2", "w2"])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_range_that_clips_the_other_half_is_not_chosen() -> None:
    hr = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)
    bright = Pair("bright", hr[::2, ::2].copy(), hr)
    # One value of 27,648 is white: the 99.99th percentile does not see it.
    lr = np.full((96, 96, 3), 40, np.uint8)
    lr[50, 50, 0] = 255
    night = Pair("night", lr, np.full((192, 192, 3), 30, np.uint8))
    reported: list[str] = []
    search = QuantisationSearch(
        nearest_x2(),
        [bright, night],
        scale=2,
        config=QuantisationConfig(),
        report=reported.append,
    )
    assert search.method == "minmax"
    worst = {
        line.split("by ")[1].split(":")[0]: float(line.split(" dB")[0].split()[-1])
        for line in reported
        if "ranges by" in line
    }
    # Calibrated at night, everything brighter than 40 is lost from the bright picture.
    assert worst["percentile"] < -1 < worst["minmax"]


def test_a_plan_may_contain_a_layer_that_is_too_small_for_the_search(
    network_x2: LoadedNetwork,
) -> None:
    model = traced_form(network_x2)
    searched = find_layers(model)[0]
    small = next(layer for layer in find_layers(model, min_share=0)[0] if layer not in searched)
    plan = PrecisionPlan(
        model="swisenet",
        scale=2,
        form="deploy",
        weights_sha256="0" * 64,
        rest="fp16",
        layers=(PlannedLayer(small.name, "int8", 1.0, small.mult_adds, 0.0, 0.0),),
        mult_adds=1,
        method="minmax",
        rounding="moments",
        num_pictures=1,
        pictures_sha256="0" * 64,
        max_drift_db=0.1,
        held_out_drift_db=0.0,
        drift_by_step=(),
    )
    pairs = [picture(0), picture(1)]
    weights = calibrate_for_plan(model, plan, pairs, scale=2, cache=None)
    assert small.name in weights


def test_one_picture_is_not_enough(network_x2: LoadedNetwork) -> None:
    model = traced_form(network_x2)
    with pytest.raises(InputError, match="at least 2 pictures"):
        QuantisationSearch(model, [picture(0)], scale=2, config=QuantisationConfig())
