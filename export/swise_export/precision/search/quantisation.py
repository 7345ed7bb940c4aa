"""Places INT8 or FP8 in a network: as many layers as a drift budget allows."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from swise_deploy.errors import ExportError, InputError
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.precision import QuantisedPrecision, RestPrecision
from swise_export.manifest import Form
from swise_export.precision.calibration import Calibration, RangeMethod, Rounding, range_methods
from swise_export.precision.countdown import Countdown
from swise_export.precision.crops import (
    Split,
    hash_of_pictures,
    split_pictures,
    spread,
    textured_crops,
)
from swise_export.precision.equalised import calibrate_equalised, channels_on_pictures
from swise_export.precision.plan import PlannedLayer, PrecisionPlan
from swise_export.precision.quantised.equalisation import (
    Equalised,
    Factors,
    factors_of,
    foldable,
    folded,
)
from swise_export.precision.quantised.outputs import (
    Span,
    measure_spans,
    outputs_of,
    quantised_outputs,
    with_int8_kernels,
)
from swise_export.precision.quantised.qdq import (
    Layer,
    QuantisedWeights,
    find_layers,
    quantised_from_fp32,
)
from swise_export.precision.quantised.unsigned import find_unsigned
from swise_export.precision.search.placement import (
    Journal,
    Placement,
    Unit,
    measure_sensitivity,
    place,
    units_from_layers,
)
from swise_export.precision.search.switchable_graph import (
    Effect,
    SwitchableNetwork,
    switchable_quantised,
)
from swise_export.runtimes.table import DEFAULT_TARGET, find_runtime
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

# The sensitivity is measured for every layer, so on fewer and smaller crops.
_SENSITIVITY_CROP = 32
_SENSITIVITY_CROPS = 4
# Layers with less of the Mult-Adds are not tried again with unsigned inputs.
_WORTHWHILE = 0.01
# A method that clips is taken if its loss is below this share of the largest values' loss.
_CLEARLY_LESS = 0.88
# Part of the cache key. Raise it when the search measures something else.
_JOURNAL_VERSION = 2


@dataclass(frozen=True, slots=True)
class QuantisationConfig:
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


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A network that can be rounded.

    Attributes:
        equal: It computes the same in fp32.
        weights: Quantised weights of its layers, by name; those of `calibration` are for the
            network before layers took divisions over.
        spans: Of the tensors, where outputs of layers are quantised.
    """

    equal: Equalised
    weights: Mapping[str, QuantisedWeights]
    calibration: Calibration
    spans: Mapping[str, Span]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A placement, where some layers read their inputs unsigned.

    Attributes:
        unsigned: Their names.
        effects: Effect of each unit alone, by its name.
    """

    unsigned: frozenset[str]
    effects: Mapping[str, Effect]
    placement: Placement


class QuantisationSearch:
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
        config: QuantisationConfig,
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
        self._has_outputs = quantises_outputs(config)
        if self._has_outputs:
            self.layers = with_int8_kernels(model, self.layers)
        if not self.layers:
            raise ExportError(
                f"the graph has no convolution or matrix product with stored weights; {title} "
                "needs at least one. Export with --fp16"
            )
        self._model, self._scale = model, scale
        self._networks: dict[str, SwitchableNetwork] = {}
        split = split_pictures(pairs, scale)
        report(
            f"calibrating {title} on {len(split.crops)} crops, holding {len(split.held_out)} "
            "pictures out"
        )
        self._prepared = self._prepare(everything, split, config.rounding)
        self.calibration = self._prepared.calibration
        self.units = units_from_layers(self.layers)
        # FP8 has a sign in any case; where outputs are quantised, every tensor has its zero point.
        can_be_unsigned = config.precision == "int8" and not self._has_outputs
        self._positive = find_unsigned(model, self.layers) if can_be_unsigned else frozenset[str]()
        is_free = find_runtime(config.runtime).activations == "uint8"
        self._unsigned = self._positive if is_free else frozenset[str]()
        # Where outputs are quantised, one clipped tensor is read by all layers behind it.
        every = ("minmax",) if self._has_outputs else range_methods(config.precision)
        methods = every if config.method is None else (config.method,)
        only = methods[0] if len(methods) == 1 else None
        self.method: RangeMethod = only or self._best_method(methods, pairs, split.held_out)
        self._split = split
        self._held_out: dict[frozenset[str], Journal] = {}
        self._effects = self._sensitivity(self._unsigned, self.units)
        self._unsigned_effects: dict[str, Effect] | None = None

    def _prepare(self, layers: Sequence[Layer], split: Split, rounding: Rounding) -> _Prepared:
        """Calibrate some layers; the network is equalised for those of the search."""
        config = self._config
        channels = channels_on_pictures(self._model, layers, split, self._report)
        equal, calibration = calibrate_equalised(
            self._model,
            layers,
            split,
            channels=channels,
            factors=self._factors(channels),
            precision=config.precision,
            rounding=rounding,
            cache=config.cache,
            report=self._report,
        )
        names = {layer.name for layer in self.layers}
        searched = tuple(layer for layer in equal.layers if layer.name in names)
        equal, weights = folded(dataclasses.replace(equal, layers=searched), calibration.weights)
        spans: dict[str, Span] = {}
        if self._has_outputs:
            spans = measure_spans(equal.model, equal.layers, [*split.crops, *split.extremes])
        return _Prepared(equal, weights, calibration, spans)

    def _factors(self, channels: Mapping[str, NDArray[np.float32]]) -> dict[str, Factors]:
        """Factors of the layers, where these are better rounded with them."""
        # The steps of FP8 follow the values.
        if self._config.precision == "fp8":
            return {}
        # A colour of the picture may be rare where INT8 is calibrated, and fill the next picture.
        picture = self._model.graph.input[0].name
        factors = {
            layer.name: factors_of(channels[layer.name])
            for layer in self.layers
            if layer.input != picture
        }
        if not self._has_outputs:
            return factors
        # Kernels of INT8 compute from one layer to the next, with nothing between.
        whole = quantised_outputs(self._model, self.layers)
        free = {layer.name for layer in self.layers if layer.input not in whole}
        folding = foldable(self._model, self.layers, factors)
        return {name: own for name, own in factors.items() if name in folding or name in free}

    def _sensitivity(self, unsigned: frozenset[str], units: Sequence[Unit]) -> dict[str, Effect]:
        """Measure units alone, where some layers read their inputs unsigned.

        The graph is slow to make; it serves the held-out pictures too.
        """
        graph = self._switchable(self._prepared, self.method, unsigned)
        self._held_out[unsigned] = self._journal(graph, self._split.held_out)
        small = textured_crops(
            self._split.crops, size=_SENSITIVITY_CROP, per_picture=1, scale=self._scale
        )
        journal = self._journal(graph, spread(small, _SENSITIVITY_CROPS))
        return measure_sensitivity(journal, units, report=self._report)

    def _switchable(
        self, prepared: _Prepared, method: RangeMethod, unsigned: Collection[str]
    ) -> onnx.ModelProto:
        equal = prepared.equal
        quantised = quantised_from_fp32(
            equal.model,
            equal.layers,
            ranges=prepared.calibration.ranges_for(method, unsigned),
            weights=prepared.weights,
            precision=self._config.precision,
            unsigned=unsigned,
            **outputs_of(equal.model, equal.layers, prepared.spans),
        )
        return switchable_quantised(equal.model, quantised, equal.layers)

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
        self, methods: Sequence[RangeMethod], pairs: Sequence[Pair], held_out: Sequence[Pair]
    ) -> RangeMethod:
        """The method that clearly loses least on its worst picture, in both halves of the pictures.

        Each half serves calibration once, while the other half is scored. A range that clips gains
        a little on pictures like the calibration pictures and loses several decibels on a picture
        with finer or sharper lines. The mean over a few pictures, scored once, does not show that.
        """
        everything = [layer.name for layer in self.layers]
        split = split_pictures(pairs, self._scale, swapped=True)
        other = self._prepare(self.layers, split, "nearest")
        title = self._config.precision.upper()
        countdown = Countdown("ranges", 2 * len(methods), "runs", report=self._report)

        def worst_of(graph: onnx.ModelProto, pictures: Sequence[Pair]) -> float:
            worst_db = self._journal(graph, pictures).effect(everything).worst_db
            countdown.advance()
            return worst_db

        worst = {
            m: worst_of(self._switchable(other, m, self._unsigned), split.held_out) for m in methods
        }
        best_db = float("-inf")
        for method in sorted(methods, key=lambda method: -worst[method]):
            # The other half can only lower a method's worst picture. That of minmax is compared.
            is_beaten = worst[method] < best_db and method != "minmax"
            if not is_beaten:
                graph = self._switchable(self._prepared, method, self._unsigned)
                worst[method] = min(worst[method], worst_of(graph, held_out))
                best_db = max(best_db, worst[method])
            self._report(
                f"all layers in {title}, ranges by {method}: {'at most ' if is_beaten else ''}"
                f"{worst[method]:+.3f} dB on the worst picture"
            )
        # Clipping has to win more than chance gives: on other pictures it loses more.
        best = max(methods, key=lambda method: worst[method])
        return best if worst[best] > _CLEARLY_LESS * worst["minmax"] else "minmax"

    def plan(
        self, budget: DriftBudget, *, model_name: str, scale: int, form: Form, weights_sha256: str
    ) -> PrecisionPlan:
        """Find the placement with the most quantised layers within `budget`."""
        placed = self._placed(budget)
        placement = placed.placement
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
                self._planned(layer, unit_of[layer.name], placed) for layer in self.layers
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
            spans=self._prepared.spans,
        )

    def _placed(self, budget: DriftBudget) -> _Placed:
        """Place layers; inputs are unsigned where more of the Mult-Adds fit for it.

        They cost TensorRT a little time, so that no more of them are taken than it needs: those of
        the units that lose most, twice as many in every try. For CPUs all of them are at once.
        """
        found = [self._place(self._unsigned, self._effects, budget)]
        left = [unit for unit in self.units if unit not in found[0].placement.units]
        more = self._positive - self._unsigned
        positive = [unit for unit in self.units if more.issuperset(unit.layers)]
        if not positive or self._share(left) < _WORTHWHILE:
            return found[0]
        if self._unsigned_effects is None:
            self._report("some layers do not fit: trying unsigned inputs, where none is negative")
            self._unsigned_effects = self._sensitivity(self._positive, positive)
        by_loss = sorted(positive, key=lambda unit: self._effects[unit.name].noise_db)
        count = max(1, sum(unit in positive for unit in left))
        while self._share(left) >= _WORTHWHILE:
            chosen = by_loss[:count]
            effects = self._effects | {u.name: self._unsigned_effects[u.name] for u in chosen}
            unsigned = frozenset(name for unit in chosen for name in unit.layers)
            found.append(self._place(unsigned, effects, budget))
            left = [unit for unit in self.units if unit not in found[-1].placement.units]
            if count >= len(positive):
                break
            count *= 2
        return max(found, key=lambda placed: self._share(placed.placement.units))

    def _place(
        self, unsigned: frozenset[str], effects: Mapping[str, Effect], budget: DriftBudget
    ) -> _Placed:
        if unsigned not in self._held_out:
            graph = self._switchable(self._prepared, self.method, unsigned)
            self._held_out[unsigned] = self._journal(graph, self._split.held_out)
        placement = place(
            self._held_out[unsigned],
            self.units,
            effects,
            budget=budget,
            all_mult_adds=self.mult_adds,
            report=self._report,
        )
        return _Placed(unsigned, effects, placement)

    def _share(self, units: Iterable[Unit]) -> float:
        return sum(unit.mult_adds for unit in units) / self.mult_adds

    def _planned(self, layer: Layer, unit: Unit, placed: _Placed) -> PlannedLayer:
        effect, lowered = placed.effects[unit.name], unit in placed.placement.units
        return PlannedLayer(
            name=layer.name,
            precision=self._config.precision if lowered else self._config.rest,
            range=self.calibration.ranges_for(self.method, placed.unsigned)[layer.name],
            factors=self.calibration.factors.get(layer.name, ()),
            unsigned=layer.name in placed.unsigned,
            mult_adds=layer.mult_adds,
            alone_db=effect.drift_db,
            noise_db=effect.noise_db,
        )


def quantises_outputs(config: QuantisationConfig) -> bool:
    """True where the runtime wins time only if outputs of layers are quantised too."""
    runtime = find_runtime(config.runtime)
    return runtime.quantises_outputs and (config.precision, config.rest) == ("int8", "fp32")


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
