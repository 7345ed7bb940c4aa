"""From a network and pictures to a placement of INT8, and from that to a graph."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from swise_deploy.errors import ExportError, InputError
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.pictures.files import RgbImage
from swise_export.manifest import Form
from swise_export.precision.calibration import (
    RANGE_METHODS,
    Calibration,
    RangeMethod,
    Rounding,
    calibrate,
    crop_pair,
    hash_of_pictures,
    textured_crops,
)
from swise_export.precision.fp16 import HalfModel, fp16_from_fp32
from swise_export.precision.placement import (
    Journal,
    Unit,
    measure_sensitivity,
    place,
    units_from_layers,
)
from swise_export.precision.plan import PlannedLayer, PrecisionPlan, Rest
from swise_export.precision.qdq import (
    Int8Weights,
    Layer,
    find_layers,
    int8_from_fp32,
    rounded_to_nearest,
)
from swise_export.precision.switchable_graph import GatedNetwork, gated_int8
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

# Crops to calibrate on: this many LR pixels a side, of at most so many pictures.
_CROP = 48
_MOST_CROPS = 12
# What a layer loses alone is measured on smaller and fewer ones: it is measured for every layer.
_SENSITIVITY_CROP = 32
_SENSITIVITY_CROPS = 4
# Held-out pictures are cut to this side, from their middle.
_HELD_OUT_CROP = 96
# Enters the names of kept results: raise it when the search measures something else.
_JOURNAL_VERSION = 2


@dataclass(frozen=True, slots=True)
class Int8Config:
    """How INT8 is placed.

    Attributes:
        rest: Precision of what is not INT8. "fp16" is for TensorRT 10 and later; "fp32" for CPUs
            and for TensorRT 8.6, whose builder makes fp16 of it by itself.
        method: How ranges are chosen; None takes the one with the least drift.
        rounding: "nearest" for weights that were trained in INT8.
        threads: Threads of ONNX Runtime.
        cache: Folder for what was measured before; None measures again.
    """

    rest: Rest = "fp16"
    method: RangeMethod | None = None
    rounding: Rounding = "moments"
    threads: int = 1
    cache: Path | None = None


class Int8Search:
    """Places INT8 in one network; what it measured serves every budget.

    Args:
        model: fp32, float io, every node named.
        pairs: Pictures, at least two: every other one is calibrated on, the others are held out.
        scale: Output size over input size.
        config: How.
        say: Takes lines of progress.

    Raises:
        InputError: There are too few pictures.
        ExportError: The graph has no layer for INT8.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        pairs: Sequence[Pair],
        *,
        scale: int,
        config: Int8Config,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        if len(pairs) < 2:
            raise InputError(
                f"INT8 needs at least 2 pictures, to calibrate on one and to check on another; "
                f"found {len(pairs)}. Give more with --calib DIR"
            )
        self._config, self._say = config, say
        self.layers, self.mult_adds = find_layers(model)
        if not self.layers:
            raise ExportError(
                "the graph has no convolution or matrix product with stored weights, so that "
                "nothing can be INT8. Export with --fp16"
            )
        self._model, self._scale = model, scale
        crops, held_out = split_pictures(pairs, scale)
        say(f"calibrating INT8 on {len(crops)} crops, holding {len(held_out)} pictures out")
        self.calibration = calibrate(
            model, self.layers, crops, rounding=config.rounding, cache=config.cache, say=say
        )
        self.units = units_from_layers(self.layers)
        methods = RANGE_METHODS if config.method is None else (config.method,)
        graphs = {method: self._gated(self.calibration.ranges[method]) for method in methods}
        journals = {method: self._journal(graphs[method], held_out) for method in methods}
        self.method: RangeMethod = config.method or self._best_method(pairs, journals)
        self._held_out = journals[self.method]
        small = textured_crops(crops, size=_SENSITIVITY_CROP, per_picture=1, scale=scale)
        sensitivity = self._journal(graphs[self.method], _spread(small, _SENSITIVITY_CROPS))
        self._effects = measure_sensitivity(sensitivity, self.units, say=say)

    def _gated(self, ranges: Mapping[str, float]) -> onnx.ModelProto:
        quantised = int8_from_fp32(
            self._model, self.layers, ranges=ranges, weights=self.calibration.weights
        )
        return gated_int8(self._model, quantised, self.layers)

    def _journal(self, gated: onnx.ModelProto, pictures: Sequence[Pair]) -> Journal:
        names = [layer.name for layer in self.layers]
        network = GatedNetwork(
            gated, names, pictures, scale=self._scale, threads=self._config.threads
        )
        return Journal(network, _journal_path(self._config.cache, gated, pictures))

    def _best_method(
        self, pairs: Sequence[Pair], journals: Mapping[RangeMethod, Journal]
    ) -> RangeMethod:
        """The one that loses least on the picture that loses most, of either half of the pictures.

        Each half is calibrated on and the other one scored. A range that clips wins a little on
        pictures like those it was chosen on and loses decibels on one with finer or harder lines:
        of that the mean over a few pictures, scored one way around, tells nothing.
        """
        everything = [layer.name for layer in self.layers]
        crops, scored = split_pictures(pairs, self._scale, swapped=True)
        other = calibrate(
            self._model,
            self.layers,
            crops,
            rounding="nearest",
            cache=self._config.cache,
            say=self._say,
        )
        worst = {}
        for method in RANGE_METHODS:
            swapped = self._journal(self._gated(other.ranges[method]), scored)
            worst[method] = min(
                journal.effect(everything).worst_db for journal in (journals[method], swapped)
            )
            self._say(f"everything in INT8, ranges by {method}: {worst[method]:+.3f} dB at worst")
        return max(RANGE_METHODS, key=lambda method: worst[method])

    def plan(
        self, budget: DriftBudget, *, model_name: str, scale: int, form: Form, weights_sha256: str
    ) -> PrecisionPlan:
        """The placement with the most INT8 that keeps to `budget`."""
        placement = place(
            self._held_out,
            self.units,
            self._effects,
            budget=budget,
            all_mult_adds=self.mult_adds,
            say=self._say,
        )
        unit_of = {name: unit for unit in self.units for name in unit.layers}
        return PrecisionPlan(
            model=model_name,
            scale=scale,
            form=form,
            weights_sha256=weights_sha256,
            rest=self._config.rest,
            layers=tuple(
                self._planned(layer, unit_of[layer.name], unit_of[layer.name] in placement.units)
                for layer in self.layers
            ),
            mult_adds=self.mult_adds,
            method=self.method,
            rounding=self._config.rounding,
            num_pictures=self.calibration.num_pictures,
            pictures_sha256=self.calibration.pictures_sha256,
            max_drift_db=budget.mean_db,
            max_worst_db=budget.worst_db,
            held_out_drift_db=placement.drift_db,
            drift_by_step=placement.steps,
        )

    def _planned(self, layer: Layer, unit: Unit, lowered: bool) -> PlannedLayer:
        effect = self._effects[unit.name]
        return PlannedLayer(
            name=layer.name,
            precision="int8" if lowered else self._config.rest,
            range=self.calibration.ranges[self.method][layer.name],
            mult_adds=layer.mult_adds,
            alone_db=effect.drift_db,
            noise_db=effect.noise_db,
        )


def split_pictures(
    pairs: Sequence[Pair], scale: int, *, swapped: bool = False
) -> tuple[list[Pair], list[Pair]]:
    """Crops to calibrate on, and pictures to hold out: every other picture each, or swapped."""
    starts = (1, 0) if swapped else (0, 1)
    calibrated, held_out = (_spread(pairs[start::2], _MOST_CROPS) for start in starts)
    per_picture = max(1, _MOST_CROPS // len(calibrated))
    crops = textured_crops(calibrated, size=_CROP, per_picture=per_picture, scale=scale)
    return crops, [_middle(pair, scale) for pair in held_out]


def calibrate_for_plan(
    model: onnx.ModelProto,
    plan: PrecisionPlan,
    pairs: Sequence[Pair],
    *,
    scale: int,
    cache: Path | None,
    say: Callable[[str], None] = logger.info,
) -> Mapping[str, Int8Weights]:
    """The weights of a plan's INT8 layers, rounded as they were when it was made.

    The pictures decide how, unless the plan rounds to nearest; the same pictures give the same
    weights.
    """
    layers = planned_layers(model, plan)
    if plan.rounding == "nearest":
        stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        return {
            layer.name: rounded_to_nearest(np.asarray(stored[layer.weight]), layer.channel_axis)
            for layer in layers
        }
    crops, _ = split_pictures(pairs, scale)
    if hash_of_pictures(crops) != plan.pictures_sha256:
        say("the plan was made with other pictures: its weights are rounded on these")
    # All layers, as the search does, whose calibration is then known.
    known = find_layers(model)[0]
    everything = (*known, *(layer for layer in layers if layer not in known))
    found: Calibration = calibrate(
        model, everything, crops, rounding=plan.rounding, cache=cache, say=say
    )
    return found.weights


def planned_layers(model: onnx.ModelProto, plan: PrecisionPlan) -> tuple[Layer, ...]:
    """The layers of a graph that a plan puts into INT8.

    Raises:
        InputError: The plan names a layer that the graph has not got.
    """
    layers = {layer.name: layer for layer in find_layers(model, least_share=0)[0]}
    missing = [planned.name for planned in plan.int8_layers if planned.name not in layers]
    if missing:
        raise InputError(
            f"the precision plan names {len(missing)} layers that this graph has not got, such as "
            f"{missing[0]}. Make a plan for this network: swise-export --int8 --precision-plan NEW"
        )
    return tuple(layers[planned.name] for planned in plan.int8_layers)


@dataclass(frozen=True, slots=True)
class Int8Recipe:
    """All that a graph needs to become INT8: the placement, and its weights by layer name."""

    plan: PrecisionPlan
    weights: Mapping[str, Int8Weights]

    @property
    def precision(self) -> Literal["int8", "mixed"]:
        """What the graph is called: INT8 if most of its Mult-Adds are."""
        return "int8" if self.plan.mult_adds_share >= 0.5 else "mixed"


def int8_model(
    model: onnx.ModelProto, recipe: Int8Recipe, range_images: Sequence[RgbImage]
) -> HalfModel:
    """Quantise a graph by a recipe; the rest becomes fp16 if the plan says so."""
    layers = planned_layers(model, recipe.plan)
    if layers:
        ranges = {layer.name: layer.range for layer in recipe.plan.int8_layers}
        stored: Literal["int8", "fp32"] = "fp32" if recipe.plan.rest == "fp32" else "int8"
        model = int8_from_fp32(model, layers, ranges=ranges, weights=recipe.weights, stored=stored)
    if recipe.plan.rest == "fp32":
        return HalfModel(model, (), ())
    return fp16_from_fp32(model, range_images)


def _spread(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """At most so many, evenly over the sequence."""
    chosen = np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int)
    return [pairs[i] for i in chosen]


def _middle(pair: Pair, scale: int) -> Pair:
    top, left = (max(0, (side - _HELD_OUT_CROP) // 2) for side in pair.lr.shape[:2])
    return dataclasses.replace(crop_pair(pair, top, left, _HELD_OUT_CROP, scale), name=pair.name)


def _journal_path(
    cache: Path | None, gated: onnx.ModelProto, pictures: Sequence[Pair]
) -> Path | None:
    if cache is None:
        return None
    digest = hashlib.sha256(f"{_JOURNAL_VERSION} {hash_of_pictures(pictures)}".encode())
    for pair in pictures:
        digest.update(pair.hr.tobytes())
    digest.update(gated.SerializeToString(deterministic=True))
    return cache / f"{digest.hexdigest()}.jsonl"
