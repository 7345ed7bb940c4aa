"""INT8 or FP8 for a network: a search for its placement, and the graph that results."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import onnx

from swise_deploy.errors import ExportError, InputError
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.pictures.files import RgbImage
from swise_deploy.precision import FilePrecision, QuantisedPrecision, RestPrecision
from swise_export.manifest import Form
from swise_export.precision.calibration import (
    Calibration,
    RangeMethod,
    Rounding,
    calibrate,
    crop_pair,
    hash_of_pictures,
    range_methods,
    textured_crops,
)
from swise_export.precision.countdown import Countdown
from swise_export.precision.half import HalfModel, half_from_fp32
from swise_export.precision.placement import (
    Journal,
    Unit,
    measure_sensitivity,
    place,
    units_from_layers,
)
from swise_export.precision.plan import PlannedLayer, PrecisionPlan
from swise_export.precision.qdq import (
    Int8Weights,
    Layer,
    find_layers,
    int8_from_fp32,
    rounded_to_nearest,
)
from swise_export.precision.quantised_outputs import (
    Span,
    measure_spans,
    nodes_between,
    with_int8_kernels,
)
from swise_export.precision.switchable_graph import SwitchableNetwork, switchable_int8
from swise_export.runtimes.table import DEFAULT_TARGET, find_runtime
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

# Calibration crops: their side in LR pixels, and the largest number of pictures.
_CROP = 48
_MAX_CROPS = 12
# The sensitivity is measured for every layer, so on fewer and smaller crops.
_SENSITIVITY_CROP = 32
_SENSITIVITY_CROPS = 4
# Held-out pictures are cropped to this side around their centre.
_HELD_OUT_CROP = 96
# Part of the cache key. Raise it when the search measures something else.
_JOURNAL_VERSION = 2


@dataclass(frozen=True, slots=True)
class Int8Config:
    """Settings of the placement of INT8 or FP8.

    Attributes:
        precision: The format.
        rest: Precision of the other layers: "fp16" for TensorRT 10 and later; "fp32" for CPUs and
            for TensorRT 8.6, whose builder converts it to fp16 itself.
        runtime: Runtime that the file is made for.
        method: Method that chooses the ranges; None uses the one with the least drift.
        rounding: "nearest" for weights that were trained in INT8.
        threads: Threads of ONNX Runtime.
        cache: Folder with earlier measurements; None measures again.
    """

    precision: QuantisedPrecision = "int8"
    rest: RestPrecision = "fp16"
    runtime: str = DEFAULT_TARGET
    method: RangeMethod | None = None
    rounding: Rounding = "moments"
    threads: int = 1
    cache: Path | None = None


class Int8Search:
    """Places INT8 or FP8 in one network; its measurements serve every budget.

    Args:
        model: An fp32 model with float io and a name for every node.
        pairs: At least two pictures; every other one serves calibration, the others are held out.
        scale: Output size over input size.
        config: Settings.
        report: Receives lines of progress.

    Raises:
        InputError: There are too few pictures.
        ExportError: The graph has no layer for it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        pairs: Sequence[Pair],
        *,
        scale: int,
        config: Int8Config,
        report: Callable[[str], None] = logger.info,
    ) -> None:
        title = config.precision.upper()
        if len(pairs) < 2:
            raise InputError(
                f"{title} needs at least 2 pictures, one to calibrate on and one to check on; "
                f"found {len(pairs)}. Give more with --calib DIR"
            )
        self._config, self._report = config, report
        self.layers, self.mult_adds = find_layers(model)
        everything = self.layers
        has_outputs = quantises_outputs(config)
        if has_outputs:
            self.layers = with_int8_kernels(model, self.layers)
        if not self.layers:
            raise ExportError(
                f"the graph has no convolution or matrix product with stored weights; {title} "
                "needs at least one. Export with --fp16"
            )
        self._model, self._scale = model, scale
        self._networks: dict[str, SwitchableNetwork] = {}
        crops, held_out = split_pictures(pairs, scale)
        report(f"calibrating {title} on {len(crops)} crops, holding {len(held_out)} pictures out")
        self.calibration = calibrate(
            model,
            everything,
            crops,
            precision=config.precision,
            rounding=config.rounding,
            cache=config.cache,
            report=report,
        )
        self._spans = measure_spans(model, self.layers, crops) if has_outputs else {}
        self.units = units_from_layers(self.layers)
        every = range_methods(config.precision)
        methods = every if config.method is None else (config.method,)
        graphs = {method: self._switchable(self.calibration.ranges[method]) for method in methods}
        journals = {method: self._journal(graphs[method], held_out) for method in methods}
        only = methods[0] if len(methods) == 1 else None
        self.method: RangeMethod = only or self._best_method(pairs, journals)
        self._held_out = journals[self.method]
        small = textured_crops(crops, size=_SENSITIVITY_CROP, per_picture=1, scale=scale)
        sensitivity = self._journal(graphs[self.method], _spread(small, _SENSITIVITY_CROPS))
        self._effects = measure_sensitivity(sensitivity, self.units, report=report)

    def _switchable(self, ranges: Mapping[str, float]) -> onnx.ModelProto:
        quantised = int8_from_fp32(
            self._model,
            self.layers,
            ranges=ranges,
            weights=self.calibration.weights,
            precision=self._config.precision,
            **_outputs(self._model, self.layers, self._spans),
        )
        return switchable_int8(self._model, quantised, self.layers)

    def _journal(self, switchable: onnx.ModelProto, pictures: Sequence[Pair]) -> Journal:
        names = [layer.name for layer in self.layers]
        key = hash_of_pictures(pictures)
        network = SwitchableNetwork(
            switchable,
            names,
            pictures,
            scale=self._scale,
            threads=self._config.threads,
            reference=self._networks.get(key),
        )
        self._networks.setdefault(key, network)
        return Journal(network, _journal_path(self._config.cache, switchable, pictures))

    def _best_method(
        self, pairs: Sequence[Pair], journals: Mapping[RangeMethod, Journal]
    ) -> RangeMethod:
        """The method that loses least on its worst picture, in both halves of the pictures.

        Each half serves calibration once, while the other half is scored. A range that clips gains
        a little on pictures like the calibration pictures and loses several decibels on a picture
        with finer or sharper lines. The mean over a few pictures, scored once, does not show that.
        """
        everything = [layer.name for layer in self.layers]
        crops, scored = split_pictures(pairs, self._scale, swapped=True)
        other = calibrate(
            self._model,
            self.layers,
            crops,
            precision=self._config.precision,
            rounding="nearest",
            cache=self._config.cache,
            report=self._report,
        )
        worst = {}
        title = self._config.precision.upper()
        countdown = Countdown("ranges", len(journals), "methods", report=self._report)
        for method in journals:
            swapped = self._journal(self._switchable(other.ranges[method]), scored)
            worst[method] = min(
                journal.effect(everything).worst_db for journal in (journals[method], swapped)
            )
            self._report(
                f"all layers in {title}, ranges by {method}: {worst[method]:+.3f} dB on the worst "
                "picture"
            )
            countdown.advance()
        return max(journals, key=lambda method: worst[method])

    def plan(
        self, budget: DriftBudget, *, model_name: str, scale: int, form: Form, weights_sha256: str
    ) -> PrecisionPlan:
        """Find the placement with the most quantised layers within `budget`."""
        placement = place(
            self._held_out,
            self.units,
            self._effects,
            budget=budget,
            all_mult_adds=self.mult_adds,
            report=self._report,
        )
        unit_of = {name: unit for unit in self.units for name in unit.layers}
        return PrecisionPlan(
            model=model_name,
            scale=scale,
            form=form,
            weights_sha256=weights_sha256,
            precision=self._config.precision,
            rest=self._config.rest,
            runtime=self._config.runtime,
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
            spans=self._spans,
        )

    def _planned(self, layer: Layer, unit: Unit, lowered: bool) -> PlannedLayer:
        effect = self._effects[unit.name]
        return PlannedLayer(
            name=layer.name,
            precision=self._config.precision if lowered else self._config.rest,
            range=self.calibration.ranges[self.method][layer.name],
            mult_adds=layer.mult_adds,
            alone_db=effect.drift_db,
            noise_db=effect.noise_db,
        )


def split_pictures(
    pairs: Sequence[Pair], scale: int, *, swapped: bool = False
) -> tuple[list[Pair], list[Pair]]:
    """Split pictures alternately into calibration crops and held-out pictures, or swapped."""
    starts = (1, 0) if swapped else (0, 1)
    calibrated, held_out = (_spread(pairs[start::2], _MAX_CROPS) for start in starts)
    per_picture = max(1, _MAX_CROPS // len(calibrated))
    crops = textured_crops(calibrated, size=_CROP, per_picture=per_picture, scale=scale)
    return crops, [_centre(pair, scale) for pair in held_out]


def calibrate_for_plan(
    model: onnx.ModelProto,
    plan: PrecisionPlan,
    pairs: Sequence[Pair],
    *,
    scale: int,
    cache: Path | None,
    report: Callable[[str], None] = logger.info,
) -> Mapping[str, Int8Weights]:
    """Round the weights of a plan's quantised layers as the search did.

    The same pictures give the same weights. A plan with rounding "nearest" does not depend on them.
    """
    layers = planned_layers(model, plan)
    if plan.rounding == "nearest":
        stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        return {
            layer.name: rounded_to_nearest(
                np.asarray(stored[layer.weight]), layer.channel_axis, plan.precision
            )
            for layer in layers
        }
    crops, _ = split_pictures(pairs, scale)
    if hash_of_pictures(crops) != plan.pictures_sha256:
        report("the plan was made with other pictures; the weights are rounded on these pictures")
    # The search calibrates all layers, so its result is in the cache.
    known = find_layers(model)[0]
    everything = (*known, *(layer for layer in layers if layer not in known))
    found: Calibration = calibrate(
        model,
        everything,
        crops,
        precision=plan.precision,
        rounding=plan.rounding,
        cache=cache,
        report=report,
    )
    return found.weights


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
class Int8Recipe:
    """A placement of quantised layers and their weights, by layer name."""

    plan: PrecisionPlan
    weights: Mapping[str, Int8Weights]

    @property
    def precision(self) -> FilePrecision:
        """Precision of the graph: the plan's if at least half of its Mult-Adds are in it."""
        return self.plan.precision if self.plan.mult_adds_share >= 0.5 else "mixed"


def int8_model(
    model: onnx.ModelProto, recipe: Int8Recipe, range_images: Sequence[RgbImage]
) -> HalfModel:
    """Quantise a graph by a recipe; the other layers get the precision of the plan's `rest`."""
    layers = planned_layers(model, recipe.plan)
    runtime = find_runtime(recipe.plan.runtime)
    if layers:
        ranges = {layer.name: layer.range for layer in recipe.plan.quantised_layers}
        model = int8_from_fp32(
            model,
            layers,
            ranges=ranges,
            weights=recipe.weights,
            precision=recipe.plan.precision,
            # TensorRT 8, which documents INT8 so, has no FP8.
            fp32_weights=recipe.plan.precision == "int8"
            and recipe.plan.rest == "fp32"
            and runtime.is_emulated,
            activation_type=runtime.activations,
            **_outputs(model, layers, recipe.plan.spans),
        )
    if recipe.plan.rest == "fp32":
        return HalfModel(model, (), ())
    return half_from_fp32(model, range_images)


class _Outputs(TypedDict):
    """Arguments of `int8_from_fp32` that quantise outputs of layers."""

    between: Collection[str]
    spans: Mapping[str, Span] | None


def _outputs(
    model: onnx.ModelProto, layers: Collection[Layer], spans: Mapping[str, Span]
) -> _Outputs:
    return _Outputs(between=nodes_between(model, layers) if spans else (), spans=spans or None)


def quantises_outputs(config: Int8Config) -> bool:
    """True where the runtime wins time only if outputs of layers are quantised too."""
    runtime = find_runtime(config.runtime)
    return runtime.quantises_outputs and (config.precision, config.rest) == ("int8", "fp32")


def _spread(pairs: Sequence[Pair], max_pairs: int) -> list[Pair]:
    """At most `max_pairs` pictures, spread evenly over the sequence."""
    chosen = np.linspace(0, len(pairs) - 1, min(max_pairs, len(pairs))).round().astype(int)
    return [pairs[i] for i in chosen]


def _centre(pair: Pair, scale: int) -> Pair:
    top, left = (max(0, (side - _HELD_OUT_CROP) // 2) for side in pair.lr.shape[:2])
    return dataclasses.replace(crop_pair(pair, top, left, _HELD_OUT_CROP, scale), name=pair.name)


def _journal_path(
    cache: Path | None, switchable: onnx.ModelProto, pictures: Sequence[Pair]
) -> Path | None:
    if cache is None:
        return None
    digest = hashlib.sha256(f"{_JOURNAL_VERSION} {hash_of_pictures(pictures)}".encode())
    for pair in pictures:
        digest.update(pair.hr.tobytes())
    digest.update(switchable.SerializeToString(deterministic=True))
    return cache / f"{digest.hexdigest()}.jsonl"
