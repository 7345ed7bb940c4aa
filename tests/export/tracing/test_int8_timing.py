"""Kinds of layers that win no time in INT8 return to fp32; the times are given, not measured."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from swise_deploy.checkpoints.load import LoadedNetwork, open_network
from swise_deploy.networks import fsrcnn
from swise_deploy.timing import Interval
from swise_export.config import ExportConfig
from swise_export.precision.plan import PlannedLayer, PrecisionPlan
from swise_export.precision.quantised.qdq import find_layers, rounded_to_nearest
from swise_export.precision.recipe import QuantisationRecipe
from swise_export.precision.search.placement import Step
from swise_export.tracing.int8_timing import kinds_of_layers, placed_by_time
from swise_export.tracing.trace import traced_form

CONFIG = ExportConfig(precision="int8", runtime="openvino")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LoadedNetwork:
    """FSRCNN, which has few layers of four kinds."""
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("fsrcnn") / "small.safetensors"
    save_file(fsrcnn.build(2).state_dict(), weights)
    return open_network("fsrcnn", scale=2, weights=weights)


@pytest.fixture(scope="module")
def model(network: LoadedNetwork) -> onnx.ModelProto:
    return traced_form(network)


@pytest.fixture(scope="module")
def recipe(network: LoadedNetwork, model: onnx.ModelProto) -> QuantisationRecipe:
    """Every layer in INT8, and one measured placement below."""
    layers, mult_adds = find_layers(model)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    first = layers[0]
    plan = PrecisionPlan(
        model=network.name,
        scale=2,
        form="deploy",
        weights_sha256="0" * 64,
        rest="fp32",
        layers=tuple(
            # The least noise in the first layer.
            PlannedLayer(x.name, "int8", 1.0, x.mult_adds, 0.0, -(x is not first) * x.mult_adds)
            for x in layers
        ),
        mult_adds=mult_adds,
        method="mse",
        rounding="nearest",
        num_pictures=1,
        pictures_sha256="0" * 64,
        max_drift_db=0.05,
        held_out_drift_db=-0.02,
        drift_by_step=(Step(first.mult_adds / mult_adds, -0.01, 1),),
        runtime="openvino",
    )
    weights = {
        x.name: rounded_to_nearest(np.asarray(stored[x.weight]), x.channel_axis) for x in layers
    }
    return QuantisationRecipe(plan, weights)


class GivenTimes:
    """Times of files relative to the plan's, 1.25 unless stated; takes note of the files."""

    def __init__(self, **ratios: float) -> None:
        self.ratios = {"fp32": 2.0, "plan": 1.0, **ratios}
        self.num_quantised: dict[str, int] = {}

    def __call__(self, files: Mapping[str, Path]) -> dict[str, Interval]:
        for name, path in files.items():
            graph = onnx.load(path).graph
            self.num_quantised[name] = sum(n.op_type == "QuantizeLinear" for n in graph.node)
        found = {name: self.ratios.get(name, 1.25) for name in files}
        return {name: Interval(r, r - 0.01, r + 0.01, 0.95) for name, r in found.items()}


def place(network: LoadedNetwork, recipe: QuantisationRecipe, times: GivenTimes) -> PrecisionPlan:
    return placed_by_time(network, CONFIG, recipe, report=lambda _: None, times=times).plan


def test_kinds_are_operators_kernels_groupings_and_resolutions(model: onnx.ModelProto) -> None:
    layers = find_layers(model)[0]
    kinds = kinds_of_layers(model, layers)
    assert sorted(name for names in kinds.values() for name in names) == sorted(
        layer.name for layer in layers
    )
    # At 640x360. FSRCNN: 5x5, 1x1, four 3x3 and 1x1 convolutions, and a transposed one.
    for kind, num in (("Conv 5x5", 1), ("Conv 3x3", 4), ("Conv 1x1", 2)):
        assert len(kinds[f"{kind}, 230,400 positions"]) == num
    assert len(kinds["ConvTranspose 9x9, 230,400 positions"]) == 1


def test_a_kind_without_which_the_file_is_not_slower_returns_to_fp32(
    network: LoadedNetwork, model: onnx.ModelProto, recipe: QuantisationRecipe
) -> None:
    kinds = kinds_of_layers(model, find_layers(model)[0])
    slow = "Conv 1x1, 230,400 positions"
    times = GivenTimes(**{slow: 0.9, "without": 0.9})
    plan = place(network, recipe, times)
    assert {x.name for x in plan.layers if x.precision == "fp32"} == set(kinds[slow])
    assert {t.kind: t.is_kept for t in plan.time_by_kind} == {k: k != slow for k in kinds}
    timed = next(t for t in plan.time_by_kind if t.kind == slow)
    assert (timed.without.value, timed.num_layers) == (0.9, len(kinds[slow]))
    # The files that were timed are those placements.
    assert times.num_quantised["fp32"] == 0
    assert 0 < times.num_quantised[slow] < times.num_quantised["plan"]


def test_kinds_that_win_nothing_one_by_one_stay_if_the_file_is_slower_without_them_together(
    network: LoadedNetwork, model: onnx.ModelProto, recipe: QuantisationRecipe
) -> None:
    slow = next(iter(kinds_of_layers(model, find_layers(model)[0])))
    plan = place(network, recipe, GivenTimes(**{slow: 0.99, "without": 1.01}))
    assert plan.layers == recipe.plan.layers
    assert all(timed.is_kept for timed in plan.time_by_kind)


def test_where_no_kind_wins_time_the_whole_file_is_left_to_fall_back(
    network: LoadedNetwork, model: onnx.ModelProto, recipe: QuantisationRecipe
) -> None:
    kinds = kinds_of_layers(model, find_layers(model)[0])
    plan = place(network, recipe, GivenTimes(**dict.fromkeys(kinds, 0.9)))
    assert plan.layers == recipe.plan.layers


def test_steps_state_drift_and_time_against_fp32(
    network: LoadedNetwork, recipe: QuantisationRecipe
) -> None:
    plan = place(network, recipe, GivenTimes(**{"step 0": 1.5}))
    first, last = plan.time_by_step
    # 1.5 times the plan's time, which is half of fp32's.
    assert (first.num_layers, first.drift_db, first.time) == (1, -0.01, 0.75)
    assert (last.num_layers, last.drift_db, last.time) == (len(plan.layers), -0.02, 0.5)
