"""The settings of an export, as one value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swise_deploy.command.console import choose
from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import LEAST_LR_SIDE
from swise_deploy.precision import ExportPrecision, RestPrecision, quantised_precision
from swise_deploy.runner import PictureIO
from swise_export.manifest import Form
from swise_export.precision.calibration import RangeMethod, range_methods
from swise_export.runtimes.table import DEFAULT_TARGET, Runtime, export_targets, find_runtime
from swise_export.verification.budget import DEFAULT_DRIFT_DB, DriftBudget


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """The artefact to make, and its required quality.

    Attributes:
        size: (width, height) of the only input size; None for any.
        max_drift_db: PSNR-Y that may be lost on average.
        max_worst_db: PSNR-Y that any one picture may lose; None sets no limit.
        threads: Threads of ONNX Runtime for verification and latency.
        runtime: Runtime that the file is made for and measured in: a key of the runtimes table.
            TensorRT's rounding is emulated.
        rest: With INT8 or FP8, precision of the other layers; None is the runtime's or the plan's.
        range_method: With INT8 or FP8, how ranges are chosen; None takes the one with the least
            drift.
        plan: With INT8 or FP8, a precision plan: replayed if the file is there, written if not.
        cache: With INT8 or FP8, a folder for what was measured before; None measures again.
        batch: 1 exports for one picture at a time; None for any number.
        white: The value of white in the network's own pictures; None finds it on ground truth.
        bgr: True where blue is the network's first channel.
        keep_slower: With INT8 for a runtime that is measured here, keep a file that is not faster
            than fp32.
        overwrite: Whether an artefact of another network or setting may be replaced.
    """

    precision: ExportPrecision = "fp32"
    io: PictureIO = "float"
    size: tuple[int, int] | None = None
    form: Form = "deploy"
    max_drift_db: float = DEFAULT_DRIFT_DB
    max_worst_db: float | None = None
    threads: int = 1
    runtime: str = DEFAULT_TARGET
    rest: RestPrecision | None = None
    range_method: RangeMethod | None = None
    plan: Path | None = None
    cache: Path | None = None
    batch: int | None = None
    white: Literal[1, 255] | None = None
    bgr: bool = False
    keep_slower: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < LEAST_LR_SIDE:
            raise InputError(
                f"size {self.size[0]}x{self.size[1]} is too small to score: expected at "
                f"least {LEAST_LR_SIDE}x{LEAST_LR_SIDE}"
            )
        targets = export_targets(self.precision)
        if self.runtime not in targets:
            choose(self.runtime, export_targets(), what="runtime")
            raise InputError(
                f"swise-export writes no {self.precision} file for {self.runtime}; expected "
                f"--for {' or '.join(targets)}, or one of {', '.join(self.target.exports)}"
            )
        for name, value in (
            ("rest", self.rest),
            ("calibration method", self.range_method),
            ("precision plan", self.plan),
        ):
            if value is not None and quantised_precision(self.precision) is None:
                raise InputError(
                    f"{name} {value} is for INT8 and FP8, not {self.precision}. Add --int8 or --fp8"
                )
        low = quantised_precision(self.precision)
        if self.range_method is not None and low and self.range_method not in range_methods(low):
            raise InputError(
                f"calibration method {self.range_method} is not for {self.precision}; expected "
                f"{' or '.join(range_methods(low))}. Leave --calib-method out"
            )

    @property
    def target(self) -> Runtime:
        """The runtime that the file is made for."""
        return find_runtime(self.runtime)

    @property
    def int8_rest(self) -> RestPrecision:
        """Precision of the layers beside INT8 or FP8."""
        return self.rest or self.target.rest

    @property
    def budget(self) -> DriftBudget:
        """The allowed drift."""
        return DriftBudget(self.max_drift_db, self.max_worst_db)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """An export as `swise-export` is asked for it: which network, to which file, on which pictures.

    Attributes:
        config: What to make, and how good it must be.
        model: A key of the network registry, "package.module:factory", "spandrel", or None.
        scale: Output size over input size; None takes the network's own.
        weights: A checkpoint; None takes the shipped weights.
        output: NAME.onnx; None names it after network, scale and precision.
        images: A folder of ground-truth pictures; None takes the shipped samples.
        lr_images: A folder of their low-resolution pictures, matched by name; None makes them.
        calibration: With INT8 or FP8, a folder of pictures to calibrate on; None takes those
            shipped.
    """

    config: ExportConfig
    model: str | None = None
    scale: int | None = None
    weights: Path | None = None
    output: Path | None = None
    images: Path | None = None
    lr_images: Path | None = None
    calibration: Path | None = None

    def __post_init__(self) -> None:
        if self.lr_images is not None and self.images is None:
            raise InputError("--lr-images needs the ground truths. Give them with --images DIR")
        if self.calibration is not None and quantised_precision(self.config.precision) is None:
            raise InputError(
                f"--calib {self.calibration} is for INT8 and FP8, not {self.config.precision}. Add "
                "--int8 or --fp8"
            )
        if self.output is not None and (
            self.output.suffix.lower() != ".onnx" or self.output.is_dir()
        ):
            raise InputError(
                f"--output {self.output}: expected the name of a file, such as NAME.onnx"
            )
