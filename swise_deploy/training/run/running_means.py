"""Running means of loss, gradient norm and speed over the steps between two log records."""

import time
from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from swise_deploy.training.data.batches import BatchData, BatchStream
from swise_deploy.training.step.trainer import StepResult


@dataclass(frozen=True, slots=True)
class Summary:
    """Averages over some steps.

    Attributes:
        loss: Over all processes.
        gradient_norm: Before clipping; infinite or NaN if that of any step was.
        seconds: Wall-clock time of these steps.
        steps_per_s: Steps over seconds.
        data_ms: Mean time that a step waited for its batch.
    """

    loss: float
    gradient_norm: float
    seconds: float
    steps_per_s: float
    data_ms: float


class RunningMeans:
    """Sums over the steps since the last record, kept on the device: no step waits for them."""

    def __init__(self, stream: BatchStream[BatchData]) -> None:
        self._stream = stream
        self.restart()

    def restart(self) -> None:
        """Reset the sums and the clock."""
        self.num_steps = 0
        self._loss = self._norm = torch.zeros(())
        self._waited_s = self._stream.waited_s
        self._start_s = time.perf_counter()

    def add(self, result: StepResult) -> None:
        """Add the result of a step."""
        self.num_steps += 1
        self._loss = result.loss + self._loss.to(result.loss.device)
        self._norm = result.gradient_norm + self._norm.to(result.gradient_norm.device)

    def summary(self, fabric: Fabric) -> Summary:
        """Averages over steps and processes; every process has to call this."""
        loss = cast("Tensor", fabric.all_reduce(self._loss / self.num_steps, reduce_op="mean"))
        norm = self._norm / self.num_steps
        seconds = time.perf_counter() - self._start_s
        return Summary(
            float(loss),
            float(norm),
            seconds,
            self.num_steps / seconds,
            (self._stream.waited_s - self._waited_s) * 1000 / self.num_steps,
        )
