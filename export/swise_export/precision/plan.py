"""Precision plans: placements of INT8 or FP8 in files, which a later export replays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swise_deploy.precision import ExportPrecision, QuantisedPrecision, RestPrecision
from swise_deploy.storage.documents import (
    Count,
    Factor,
    NonNegative,
    Positive,
    Scale,
    Sha256,
    Share,
    read_document,
    write_document,
)
from swise_deploy.timing import Interval
from swise_export.manifest import Form
from swise_export.precision.calibration import RangeMethod, Rounding
from swise_export.precision.search.placement import Step
from swise_export.runtimes.table import DEFAULT_TARGET

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer that can be quantised, and its precision in the plan.

    Attributes:
        name: Name of its node.
        precision: The plan's `precision`, or its `rest`.
        range: Largest magnitude of its input that is represented.
        mult_adds: Mult-Adds at a 1280x720 output.
        alone_db: PSNR-Y lost (negative) or gained on the calibration pictures if only this layer
            and those that share its input are quantised.
        noise_db: The same, if its error were independent of the network's own error; layers are
            sorted by it.
        factors: Divisor of each channel of its input in front of the rounding, at most 1; `range`
            is that of the divided values. Empty for none.
        unsigned: True where its input is never negative and takes all 256 values: `range` in 255
            steps, not 127.
    """

    name: str
    precision: ExportPrecision
    range: NonNegative
    mult_adds: Count
    alone_db: float
    noise_db: float
    factors: tuple[Factor, ...] = ()
    unsigned: bool = False


@dataclass(frozen=True, slots=True)
class TimedKind:
    """Layers of one kind, timed in the runtime that the file is for.

    Attributes:
        kind: Operator, kernel, grouping and output positions.
        without: Processor time of the file with this kind in the plan's `rest`, as a ratio to the
            file as it was searched.
        is_kept: True where the kind stays quantised.
    """

    kind: str
    num_layers: Count
    mult_adds_share: Share
    without: Interval
    is_kept: bool


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A placement on the search's path, timed in the runtime that the file is for.

    Attributes:
        drift_db: PSNR-Y lost (negative) or gained on the held-out pictures; None if not measured.
        time: Processor time as a ratio to the fp32 file.
    """

    mult_adds_share: Share
    num_layers: Count
    drift_db: float | None
    time: float


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """A placement that `swise-export --precision-plan` saves and replays.

    Attributes:
        model: Key of the network registry.
        weights_sha256: Hash of the weights file.
        rest: Precision of the layers that are not quantised.
        layers: Layers that can be quantised, in the graph's order.
        mult_adds: Mult-Adds of the whole graph.
        method: Method that chose the ranges.
        rounding: Method that rounded the weights.
        num_pictures: Number of calibration crops.
        pictures_sha256: Hash of the calibration crops.
        max_drift_db: Budget of the mean over pictures.
        max_worst_db: Budget of the worst picture; None without one.
        runtime: Runtime that the file is made for: a key of the runtimes table.
        precision: The format of the quantised layers.
        held_out_drift_db: PSNR-Y lost (negative) or gained on the held-out pictures.
        drift_by_step: Every placement that was measured on the held-out pictures.
        spans: Lowest and highest value of every quantised tensor, where outputs of layers are
            quantised too; empty where they are not.
        time_by_kind: Time that each kind of layer wins; empty where nothing was timed.
        time_by_step: Times of placements; empty where nothing was timed.
    """

    model: str
    scale: Scale
    form: Form
    weights_sha256: Sha256
    rest: RestPrecision
    layers: tuple[PlannedLayer, ...]
    mult_adds: Positive
    method: RangeMethod
    rounding: Rounding
    num_pictures: Count
    pictures_sha256: Sha256
    max_drift_db: float
    held_out_drift_db: float
    drift_by_step: tuple[Step, ...] = ()
    max_worst_db: float | None = None
    runtime: str = DEFAULT_TARGET
    precision: QuantisedPrecision = "int8"
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    time_by_kind: tuple[TimedKind, ...] = ()
    time_by_step: tuple[TimedStep, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def quantised_layers(self) -> tuple[PlannedLayer, ...]:
        """The layers in the plan's precision."""
        return tuple(layer for layer in self.layers if layer.precision == self.precision)

    @property
    def unsigned_layers(self) -> tuple[PlannedLayer, ...]:
        """The quantised layers whose input is unsigned."""
        return tuple(layer for layer in self.quantised_layers if layer.unsigned)

    @property
    def mult_adds_share(self) -> float:
        """Share of the Mult-Adds in the plan's precision."""
        return sum(layer.mult_adds for layer in self.quantised_layers) / max(1, self.mult_adds)


def write_plan(path: Path, plan: PrecisionPlan) -> None:
    """Write a plan, whole or not at all."""
    write_document(path, plan)


def read_plan(path: Path) -> PrecisionPlan:
    """Read a plan.

    Raises:
        InputError: It is missing, or not a plan of this version.
    """
    return read_document(
        path,
        PrecisionPlan,
        what="the precision plan",
        advice="Make it again: swise-export --int8 --precision-plan NEW.json",
        schema_version=SCHEMA_VERSION,
    )
