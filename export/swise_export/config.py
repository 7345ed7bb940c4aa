"""What `swise-export` is asked for, as one value."""

from dataclasses import dataclass
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import LEAST_LR_SIDE
from swise_deploy.precision import ExportPrecision, RestPrecision
from swise_deploy.runner import PictureIO
from swise_export.manifest import Form
from swise_export.precision.calibration import RangeMethod
from swise_export.verification.budget import DriftBudget


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to make, and how good it must be.

    Attributes:
        size: (width, height) of the only input size; None for any.
        max_drift_db: PSNR-Y that may be lost on average.
        max_worst_db: PSNR-Y that any one picture may lose; None sets no limit.
        threads: Threads of ONNX Runtime for verification and latency.
        rest: With INT8, what the other layers compute in; None is fp16, or what the plan says.
        range_method: With INT8, how ranges are chosen; None takes the one with the least drift.
        plan: With INT8, a precision plan: replayed if the file is there, written if not.
        cache: With INT8, a folder for what was measured before; None measures again.
    """

    precision: ExportPrecision = "fp32"
    io: PictureIO = "float"
    size: tuple[int, int] | None = None
    form: Form = "deploy"
    max_drift_db: float = 0.05
    max_worst_db: float | None = None
    threads: int = 1
    rest: RestPrecision | None = None
    range_method: RangeMethod | None = None
    plan: Path | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < LEAST_LR_SIDE:
            raise InputError(
                f"size {self.size[0]}x{self.size[1]} is too small to score: expected at "
                f"least {LEAST_LR_SIDE}x{LEAST_LR_SIDE}"
            )
        for name, value in (
            ("rest", self.rest),
            ("calibration method", self.range_method),
            ("precision plan", self.plan),
        ):
            if value is not None and self.precision != "int8":
                raise InputError(f"{name} {value} is for INT8, not {self.precision}. Add --int8")

    @property
    def budget(self) -> DriftBudget:
        """What may be lost."""
        return DriftBudget(self.max_drift_db, self.max_worst_db)
