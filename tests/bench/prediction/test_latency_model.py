import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from scripts.prediction import fit
from swise_bench.prediction.latency_model import (
    Features,
    LatencyModel,
    LeftOut,
    Parameters,
    factor_off,
    likely_ms,
    load_latency_model,
    with_expectation,
)
from swise_bench.prediction.roofline import Device, PredictedLayer, Prediction, devices_from_target
from swise_engines.targets.catalogue import find_target

PARAMETERS = Parameters(
    launch_us=10,
    matrix_share=0.5,
    vector_share=0.25,
    bandwidth_share=0.8,
    operations_for_element=4,
)
LEFT_OUT = json.loads(fit.LEFT_OUT.read_text(encoding="utf-8"))


def test_the_slower_of_arithmetic_and_traffic_counts_beside_launches_and_elements() -> None:
    features = Features(
        compute_ms=np.array([1.0, 0.1, 0.0]),
        transfer_ms=np.array([0.2, 0.2, 0.4]),
        element_ms=np.array([0.01, 0.02, 0.03]),
        is_matrix=np.array([True, False, False]),
    )
    # 3 launches of 0.01; 1/0.5, 0.1/0.25 (above 0.2/0.8), 0.4/0.8; 4 operations for each element.
    expected = 3 * 0.01 + (2 + 0.4 + 0.5) + 4 * 0.06
    assert likely_ms(features, PARAMETERS) == pytest.approx(expected)


def test_an_interval_is_never_below_the_bound() -> None:
    device = Device("paper", {"fp16": 2.0}, 0.5, 100.0, "by hand")
    layer = PredictedLayer("conv", "Conv", 10.0, "compute", 10, 10, 10, 10.0, 1.0, is_matrix=True)
    plain = Prediction("net", device, "fp16", (4, 4), (layer,))
    left_out = LeftOut(2, 1.2, 0.9)
    model = LatencyModel(1, PARAMETERS, 3.0, 2, left_out, left_out)
    expected = with_expectation(plain, model).expected
    assert expected is not None
    # 0.01 of a launch, 10/0.5, and 40 operations at 0.5e9 in a ms.
    assert expected.likely_ms == pytest.approx(20.01 + 40 / 0.5e9)
    assert expected.high_ms == pytest.approx(3 * expected.likely_ms)
    assert expected.low_ms == plain.at_best_ms == 10


@pytest.mark.parametrize(("kind", "at"), [("network", 0), ("device", 1)])
def test_the_shipped_summary_is_that_of_the_left_out_rows(kind: str, at: int) -> None:
    """The goal: off by 1.5 or less in the median, four of five rows inside their interval."""
    model = load_latency_model()
    summary = (model.networks, model.devices)[at]
    rows = LEFT_OUT["rows"]
    assert model.num_rows == len(rows)
    factors = [factor_off(row[f"{kind}_left_out_ms"], row["published_ms"]) for row in rows]
    assert summary.median_factor == pytest.approx(float(np.median(factors)), rel=1e-3)
    assert summary.median_factor <= 1.5
    inside = sum(row["inside"][at] for row in rows) / len(rows)
    assert summary.inside == pytest.approx(inside)
    assert summary.inside >= 0.8


def test_a_jetson_is_predicted_in_each_of_its_power_modes() -> None:
    devices = devices_from_target(find_target("jetson-agx-orin"))
    assert [device.power_mode.partition(",")[0] for device in devices] == [
        *("MAXN", "15W", "30W", "50W")
    ]
    assert [device.power_mode for device in devices_from_target(find_target("t4"))] == [""]


def test_a_network_on_a_device_weighs_the_same_however_many_rows_it_has() -> None:
    """Two rows of one network state twice the time; one row of another states the model's."""
    features = Features(np.array([1.0]), np.array([1.0]), np.array([1.0]), np.array([True]))

    def row(family: str, measured_ms: float) -> fit.Row:
        return fit.Row(family, family, "a", "fp16", measured_ms, features, "by hand")

    one, two = row("a", 40), row("b", 80)
    assert dataclasses.astuple(fit._fit([one, two])) == pytest.approx(
        dataclasses.astuple(fit._fit([one, one, one, one, two])), rel=0.05
    )


@pytest.mark.slow
def test_the_shipped_parameters_are_those_of_the_published_rows(shared: Path) -> None:
    pytest.importorskip("torch")
    rows = fit.read_rows(shared / "edge_latency.json")
    model, documents = fit.fitted(rows)
    shipped = load_latency_model()
    assert dataclasses.astuple(model.parameters) == pytest.approx(
        dataclasses.astuple(shipped.parameters), rel=0.02
    )
    assert model.interval_factor == pytest.approx(shipped.interval_factor, rel=0.02)
    assert len(documents) == len(LEFT_OUT["rows"])
