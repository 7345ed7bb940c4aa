"""A placement of precisions as a file: made once, read by people, replayed on the next export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swise_deploy.storage.documents import (
    Count,
    NonNegative,
    Positive,
    Scale,
    Sha256,
    read_document,
    write_document,
)
from swise_export.manifest import Form
from swise_export.precision.calibration import RangeMethod, Rounding
from swise_export.precision.placement import Step

SCHEMA_VERSION = 1

Rest = Literal["fp16", "fp32"]
"""Precision of the layers that are not INT8."""


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer that can run in INT8, and the precision that it got.

    Attributes:
        name: Its node in the graph.
        precision: "int8", or the plan's rest.
        range: Largest magnitude of its input in INT8.
        mult_adds: At a 1280x720 output.
        alone_db: PSNR-Y that it loses (negative) or wins when it, with the layers that share its
            input, is the only one in INT8, on the calibration pictures.
        noise_db: The same if its error were independent of the network's own; layers are ranked by
            it.
    """

    name: str
    precision: Literal["int8", "fp16", "fp32"]
    range: NonNegative
    mult_adds: Count
    alone_db: float
    noise_db: float


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """A placement as `swise-export --precision-plan` saves and replays it.

    Attributes:
        model: Key of the network registry.
        weights_sha256: Of the weights that the ranges belong to.
        rest: Precision of everything that is not INT8.
        layers: Those that can run in INT8, in the graph's order.
        mult_adds: Of the whole graph.
        method: Method by which the ranges were chosen.
        rounding: Method by which the weights were rounded.
        num_pictures: Crops that were calibrated on.
        pictures_sha256: Their hash.
        max_drift_db: The budget, on average over pictures.
        max_worst_db: The budget of any one picture; None where there was none.
        held_out_drift_db: PSNR-Y lost on the pictures that were held out.
        drift_by_step: Every placement that was measured on them.
    """

    model: str
    scale: Scale
    form: Form
    weights_sha256: Sha256
    rest: Rest
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
    schema_version: int = SCHEMA_VERSION

    @property
    def int8_layers(self) -> tuple[PlannedLayer, ...]:
        """The layers in INT8."""
        return tuple(layer for layer in self.layers if layer.precision == "int8")

    @property
    def mult_adds_share(self) -> float:
        """Share of the Mult-Adds in INT8."""
        return sum(layer.mult_adds for layer in self.int8_layers) / max(1, self.mult_adds)


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
