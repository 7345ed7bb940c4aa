"""The graph that a plan describes: quantised layers, the others in the precision of the rest."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.pictures.files import RgbImage
from swise_deploy.precision import FilePrecision
from swise_export.precision.crops import hash_of_pictures, split_pictures
from swise_export.precision.equalised import calibrate_equalised, channels_on_pictures
from swise_export.precision.half import HalfModel, half_from_fp32
from swise_export.precision.plan import PrecisionPlan
from swise_export.precision.quantised.equalisation import equalised, folded
from swise_export.precision.quantised.outputs import outputs_of
from swise_export.precision.quantised.qdq import (
    Layer,
    QuantisedWeights,
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)
from swise_export.precision.quantised.unsigned import Inputs, find_unsigned, shifted
from swise_export.runtimes.table import find_runtime

logger = logging.getLogger(__name__)


def planned_layers(model: onnx.ModelProto, plan: PrecisionPlan) -> tuple[Layer, ...]:
    """The layers of a graph that are quantised in a plan.

    Raises:
        InputError: The plan names a layer that the graph does not contain.
    """
    layers = {layer.name: layer for layer in find_layers(model, min_share=0)[0]}
    missing = [planned.name for planned in plan.quantised_layers if planned.name not in layers]
    if missing:
        raise InputError(
            f"the precision plan names {len(missing)} layers that this graph does not contain, "
            f"such as {missing[0]}. Make a plan for this network: "
            f"swise-export --{plan.precision} --precision-plan NEW"
        )
    return tuple(layers[planned.name] for planned in plan.quantised_layers)


@dataclass(frozen=True, slots=True)
class QuantisationRecipe:
    """A placement of quantised layers and their weights, by layer name."""

    plan: PrecisionPlan
    weights: Mapping[str, QuantisedWeights]

    @property
    def precision(self) -> FilePrecision:
        """Precision of the graph: the plan's if at least half of its Mult-Adds are in it."""
        return self.plan.precision if self.plan.mult_adds_share >= 0.5 else "mixed"


def quantised_model(
    model: onnx.ModelProto, recipe: QuantisationRecipe, range_images: Sequence[RgbImage]
) -> HalfModel:
    """Quantise a graph by a recipe; the other layers get the precision of the plan's `rest`."""
    layers = planned_layers(model, recipe.plan)
    runtime = find_runtime(recipe.plan.runtime)
    if layers:
        planned = recipe.plan.quantised_layers
        equal, weights = folded(
            equalised(model, layers, {layer.name: layer.factors for layer in planned}),
            recipe.weights,
        )
        inputs = Inputs(equal.model, equal.layers, {x.name: x.range for x in planned})
        unsigned = _unsigned_layers(model, layers, recipe.plan)
        if runtime.activations == "int8":
            inputs = shifted(inputs, unsigned, weights)
            unsigned = frozenset()
        model = quantised_from_fp32(
            inputs.model,
            inputs.layers,
            ranges=inputs.ranges,
            weights=weights,
            precision=recipe.plan.precision,
            # TensorRT 8, which documents INT8 so, has no FP8.
            fp32_weights=recipe.plan.precision == "int8"
            and recipe.plan.rest == "fp32"
            and runtime.is_emulated,
            activation_type=runtime.activations,
            unsigned=unsigned,
            **outputs_of(equal.model, equal.layers, recipe.plan.spans),
        )
    if recipe.plan.rest == "fp32":
        return HalfModel(model, (), ())
    return half_from_fp32(model, range_images)


def _unsigned_layers(
    model: onnx.ModelProto, layers: Sequence[Layer], plan: PrecisionPlan
) -> frozenset[str]:
    """Layers whose input is unsigned in a plan.

    Raises:
        InputError: The input of one of them can be negative.
    """
    unsigned = {layer.name for layer in plan.unsigned_layers}
    wrong = unsigned - find_unsigned(model, layers)
    if wrong:
        raise InputError(
            f"in the precision plan the input of layer {min(wrong)} is unsigned, but its values "
            "can be negative. Make a plan for this network: "
            f"swise-export --{plan.precision} --precision-plan NEW"
        )
    return frozenset(unsigned)


def calibrate_for_plan(
    model: onnx.ModelProto,
    plan: PrecisionPlan,
    pairs: Sequence[Pair],
    *,
    scale: int,
    cache: Path | None,
    report: Callable[[str], None] = logger.info,
) -> Mapping[str, QuantisedWeights]:
    """Round the weights of a plan's quantised layers as the search did.

    The same pictures give the same weights. A plan with rounding "nearest" does not depend on them.
    """
    layers = planned_layers(model, plan)
    factors = {layer.name: layer.factors for layer in plan.layers}
    if plan.rounding == "nearest":
        equal = equalised(model, layers, factors)
        stored = {t.name: onnx.numpy_helper.to_array(t) for t in equal.model.graph.initializer}
        return {
            layer.name: rounded_to_nearest(
                np.asarray(stored[layer.weight]), layer.channel_axis, plan.precision
            )
            for layer in equal.layers
        }
    split = split_pictures(pairs, scale)
    if hash_of_pictures(split.crops) != plan.pictures_sha256:
        report("the plan was made with other pictures; the weights are rounded on these pictures")
    # The search calibrates all layers, so its result is in the cache.
    known = find_layers(model)[0]
    everything = (*known, *(layer for layer in layers if layer not in known))
    _, found = calibrate_equalised(
        model,
        everything,
        split,
        channels=channels_on_pictures(model, everything, split, report),
        factors=factors,
        precision=plan.precision,
        rounding=plan.rounding,
        cache=cache,
        report=report,
    )
    return found.weights
