"""A training run as values: the state that resuming needs, and the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from swise_deploy.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run, all that resuming needs.

    Attributes:
        step: Optimiser steps done.
        network: Tensors of the network as it is trained.
        averages: Their moving averages.
        optimizer: The optimiser's own state dict.
        data_key: Content of the training pictures; see picture_cache.py.
        scaler: State of the fp16 loss scaling; empty for other formats.
        best_psnr_y_db: Best validation so far; None before the first.
        trained_s: Seconds spent training so far, over all sessions of the run.
    """

    step: int
    data_key: str
    network: "dict[str, Tensor]"
    averages: "dict[str, Tensor]"
    optimizer: dict[str, Any]  # torch's own type for it
    scaler: dict[str, Any]  # torch's own type for it
    best_psnr_y_db: float | None
    trained_s: float


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of a run when it stops.

    Attributes:
        config: With the precision that was used.
        step: Optimiser steps done.
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
    step: int
    weights: Path
    best_psnr_y_db: float | None
    trained_s: float
    num_pictures: int
    num_validation: int
    skipped: dict[str, str]
    data_key: str
    precision_reason: str

    @property
    def finished(self) -> bool:
        """True once all steps were made."""
        return self.step >= self.config.steps
