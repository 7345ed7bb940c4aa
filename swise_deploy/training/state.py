"""A training run as values: the state that resuming needs, and the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from swise_deploy.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class BestValidation:
    """The best validation of a run.

    Attributes:
        choice_db: The number that decided; see `validation.ValidationScores`.
        psnr_y_db: Mean PSNR on luma.
        step: Optimiser steps made before it.
    """

    choice_db: float
    psnr_y_db: float
    step: int


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run.

    Attributes:
        step: Optimiser steps made.
        data_key: Content of the training pictures; see picture_cache.py.
        teacher_key: Content of the teachers' weights; empty without teachers.
        best: The best validation so far; None before the first.
        worse_validations: Validations in a row since the best one.
        validation_due: A validation of this step was interrupted, and has to be made.
        trained_s: Seconds spent training so far, over all sessions of the run.
    """

    step: int
    data_key: str
    teacher_key: str = ""
    best: BestValidation | None = None
    worse_validations: int = 0
    validation_due: bool = False
    trained_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run, all that resuming needs.

    Attributes:
        progress: Numbers and keys.
        network: Tensors of the network as it is trained.
        averages: Their moving averages.
        optimizer: The optimiser's own state dict.
        scaler: State of the fp16 loss scaling; empty for other formats.
    """

    progress: RunProgress
    network: "dict[str, Tensor]"
    averages: "dict[str, Tensor]"
    optimizer: dict[str, Any]  # torch's own type for it
    scaler: dict[str, Any]  # torch's own type for it


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of a run when it stops.

    Attributes:
        config: With the precision that was used.
        name: The network's name in file names.
        step: Optimiser steps made.
        finished: All steps were made, or validation ended the run early.
        weights: The best weights by validation, or the last ones where nothing validates.
        best_psnr_y_db: Of the validation; None without one.
        trained_s: Seconds of training over all sessions.
        num_pictures: Pictures trained on.
        num_validation: Pictures validated on.
        skipped: Pictures left out, with the reason.
        data_key: Content of the training pictures.
        precision_reason: The reason for the precision.
    """

    config: "TrainConfig"
    name: str
    step: int
    finished: bool
    weights: Path
    best_psnr_y_db: float | None
    trained_s: float
    num_pictures: int
    num_validation: int
    skipped: dict[str, str]
    data_key: str
    precision_reason: str
