"""A placement of precisions as a file: made once, read by people, replayed on the next export."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from swise_deploy.errors import InputError
from swise_deploy.storage.files import read_json, write_json
from swise_export.precision.calibration import RangeMethod, Rounding
from swise_export.precision.placement import Step

SCHEMA_VERSION = 1
_MAKE_AGAIN = "Make it again: swise-export --int8 --precision-plan NEW.json"

Rest = Literal["fp16", "fp32"]
"""What the layers that are not INT8 compute in."""


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer that INT8 can serve, and what was decided.

    Attributes:
        name: Its node in the graph.
        precision: "int8", or the plan's rest.
        range: Largest magnitude of its input in INT8.
        mult_adds: At a 1280x720 output.
        alone_db: PSNR-Y that it loses (negative) or wins when it, with the layers that share its
            input, is the only one in INT8, on the calibration pictures.
        noise_db: The same if its error had nothing to do with the network's own: what layers are
            ranked by.
    """

    name: str
    precision: Literal["int8", "fp16", "fp32"]
    range: float
    mult_adds: int
    alone_db: float
    noise_db: float


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """What `swise-export --precision-plan` saves and replays.

    Attributes:
        model: Key of the network registry.
        weights_sha256: Of the weights that the ranges belong to.
        rest: Precision of everything that is not INT8.
        layers: Those that INT8 can serve, in the graph's order.
        mult_adds: Of the whole graph.
        method: How the ranges were chosen.
        rounding: How the weights were rounded.
        num_pictures: Crops that were calibrated on.
        pictures_sha256: Their hash.
        max_drift_db: The budget, on average over pictures.
        max_worst_db: The budget of any one picture; None where there was none.
        held_out_drift_db: What the placement lost on the pictures that were held out.
        drift_by_step: Every placement that was measured on them.
    """

    model: str
    scale: int
    form: str
    weights_sha256: str
    rest: Rest
    layers: tuple[PlannedLayer, ...]
    mult_adds: int
    method: RangeMethod
    rounding: Rounding
    num_pictures: int
    pictures_sha256: str
    max_drift_db: float
    held_out_drift_db: float
    drift_by_step: tuple[Step, ...] = ()
    max_worst_db: float | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("rest", self.rest, get_args(Rest)),
            ("method", self.method, get_args(RangeMethod)),
            ("rounding", self.rounding, get_args(Rounding)),
        ):
            if value not in choices:
                raise InputError(f"plan has {name} {value!r}; expected {' or '.join(choices)}")

    @property
    def int8_layers(self) -> tuple[PlannedLayer, ...]:
        """The layers in INT8."""
        return tuple(layer for layer in self.layers if layer.precision == "int8")

    @property
    def mult_adds_share(self) -> float:
        """Share of the Mult-Adds in INT8."""
        return sum(layer.mult_adds for layer in self.int8_layers) / max(1, self.mult_adds)

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> "PrecisionPlan":
        """Read what JSON gave.

        Raises:
            InputError: Another schema version, an unknown or missing key, or a wrong value.
        """
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"plan has schema_version {version!r}; this version reads {SCHEMA_VERSION}. "
                f"{_MAKE_AGAIN}"
            )
        values = dict(document)
        try:
            layers = cast("list[dict[str, Any]]", values["layers"])
            steps = cast("list[dict[str, Any]]", values.get("drift_by_step", []))
            values["layers"] = tuple(PlannedLayer(**layer) for layer in layers)
            values["drift_by_step"] = tuple(Step(**step) for step in steps)
            return cls(**cast("dict[str, Any]", values))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"the precision plan cannot be read ({type(error).__name__}: {error}). "
                f"{_MAKE_AGAIN}"
            ) from error


def write_plan(path: Path, plan: PrecisionPlan) -> None:
    """Write a plan, whole or not at all."""
    write_json(path, cast("dict[str, object]", dataclasses.asdict(plan)))


def read_plan(path: Path) -> PrecisionPlan:
    """Read a plan.

    Raises:
        InputError: It is missing, or no plan.
    """
    return PrecisionPlan.from_dict(read_json(path, what="the precision plan", advice=_MAKE_AGAIN))
