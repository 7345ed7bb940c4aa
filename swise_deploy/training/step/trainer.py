"""Lightning Fabric, set up from a config: one process or many, with one device each."""

import math
import os
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from swise_deploy.errors import InputError
from swise_deploy.precision import TrainingPrecision
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.batches import Batch
from swise_deploy.training.data.device_pictures import DevicePictures
from swise_deploy.training.data.uint8 import float_from_uint8
from swise_deploy.training.start.trained_form import TrainedForm
from swise_deploy.training.state import RunProgress, RunState
from swise_deploy.training.step.averaging import WeightAverage
from swise_deploy.training.step.cuda_graph import CapturedStep, Passes
from swise_deploy.training.step.losses import LOSSES
from swise_deploy.training.step.optimization import (
    learning_rate_at,
    make_optimizer,
    set_learning_rate,
)
from swise_deploy.training.step.precision import FABRIC_NAMES


def launch_fabric(config: TrainConfig, precision: TrainingPrecision) -> Fabric:
    """Start the processes of a run.

    Under torchrun the processes are there already: their number replaces `devices` and `num_nodes`.

    Raises:
        InputError: The processes do not divide the batch, or Fabric refuses the accelerator.
    """
    devices, num_nodes = config.devices, config.num_nodes
    if "LOCAL_WORLD_SIZE" in os.environ and "WORLD_SIZE" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    if config.batch_size % (devices * num_nodes):
        raise InputError(
            f"batch_size is {config.batch_size}, which {devices * num_nodes} processes cannot "
            "share evenly. Use a multiple of their number"
        )
    if precision != "fp32":
        # Operations that autocast keeps in float32 may use TF32: the others are rounded more.
        torch.set_float32_matmul_precision("high")
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy="ddp" if devices * num_nodes > 1 else "auto",
            precision=FABRIC_NAMES[precision],
        )
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot start {devices} x {num_nodes} processes on {config.accelerator!r}: {error}"
        ) from error
    return fabric


def can_capture(fabric: Fabric) -> bool:
    """Tell whether a step can be a CUDA graph: on one GPU, since several communicate in a step."""
    return fabric.device.type == "cuda" and fabric.world_size == 1


@dataclass(frozen=True, slots=True)
class StepResult:
    """Scalars of one step, still on the device: reading them waits for it."""

    loss: Tensor
    gradient_norm: Tensor


class _FromUint8(nn.Module):
    """A network that takes 8-bit pictures, (N, H, W, 3) uint8.

    Fabric rounds what comes in as float to the format it trains in; bf16 moves a picture by up to
    0.5/255.
    """

    def __init__(self, network: nn.Module, *, channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self._channels_last = channels_last

    def forward(self, pixels: Tensor) -> Tensor:
        sr: Tensor = self.network(float_from_uint8(pixels, channels_last=self._channels_last))
        return sr


class Trainer:
    """A network, its optimiser and its average, set up on this process's device.

    Args:
        fabric: Launched.
        config: The run.
        form: What is trained, in place; moved to the device with its teacher.
        pictures: Where crops are cut on the device; None where steps get whole batches.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        form: TrainedForm,
        pictures: DevicePictures | None = None,
    ) -> None:
        self._fabric = fabric
        self._config = config
        self._pictures = pictures
        self._network = network = form.module.train()
        self._teacher = None if form.teacher is None else form.teacher.eval().to(fabric.device)
        self._teacher_share = form.teacher_share
        self._distance = LOSSES[config.loss]
        self._optimizer: Optimizer = make_optimizer(config, network)
        whole: nn.Module = network
        if config.compile:
            whole = cast("nn.Module", torch.compile(network))
        whole = _FromUint8(whole, channels_last=config.channels_last)
        self._model, self._stepper = fabric.setup(whole, self._optimizer)
        self.average = WeightAverage(network, config.ema_decay)
        self._differentiate: Passes = self._pass_eagerly
        if config.cuda_graph and can_capture(fabric):
            self._differentiate = CapturedStep(self._pass, self._clear_gradients)

    def train_step(self, batch: Batch | NDArray[np.int64], step: int) -> StepResult:
        """One optimiser step.

        Args:
            batch: Crops; where to cut them if the pictures are on the device.
            step: From 0.
        """
        # Networks with random layers draw the same numbers after a restart.
        torch.manual_seed((self._config.seed << 32) + step * 1009 + self._fabric.global_rank)
        rate = learning_rate_at(self._config, step)
        set_learning_rate(self._optimizer, rate)
        arrays = batch.arrays if isinstance(batch, Batch) else (batch,)
        inputs = (torch.from_numpy(array) for array in arrays)
        device = self._fabric.device
        loss = self._differentiate(*(given.to(device, non_blocking=True) for given in inputs))
        norm: Tensor = self._fabric.strategy.clip_gradients_norm(
            self._network,
            self._optimizer,
            max_norm=self._config.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        self._stepper.step()
        self.average.update(step + 1)
        return StepResult(loss, norm.detach())

    def _pass_eagerly(self, *inputs: Tensor) -> Tensor:
        self._clear_gradients()
        return self._pass(*inputs)

    def _clear_gradients(self) -> None:
        self._stepper.zero_grad(set_to_none=True)

    def _pass(self, *inputs: Tensor) -> Tensor:
        """Forward and backward."""
        lr, hr, *teacher_sr = inputs if self._pictures is None else self._pictures.cut(*inputs)
        loss = self._loss(self._model(lr), lr, hr, *teacher_sr)
        self._fabric.backward(loss)
        return loss.detach()

    def _loss(self, sr: Tensor, lr: Tensor, hr: Tensor, teacher_sr: Tensor | None = None) -> Tensor:
        """Distance of (N, 3, H, W) to the HR pictures, to the teacher's, or to both."""
        distance = self._distance
        pictures = partial(float_from_uint8, channels_last=self._config.channels_last)
        if teacher_sr is not None:
            example = pictures(teacher_sr)
        elif self._teacher is not None:
            with torch.no_grad(), self._fabric.autocast():
                example = self._teacher(pictures(lr)).to(sr.dtype)
        else:
            return distance(sr, pictures(hr))
        loss = self._teacher_share * distance(sr, example)
        if self._teacher_share < 1:
            loss = loss + (1 - self._teacher_share) * distance(sr, pictures(hr))
        return loss

    def snapshot(self, progress: RunProgress) -> RunState:
        """All that a resumed run needs."""
        return RunState(
            progress=progress,
            network=self._network.state_dict(),
            averages=self.average.state_dict(),
            optimizer=self._optimizer.state_dict(),
            scaler=self._fabric.strategy.precision.state_dict(),
        )

    def restore(self, state: RunState) -> None:
        """Continue from a snapshot."""
        self._network.load_state_dict(state.network)
        self.average.load_state_dict(state.averages)
        self._optimizer.load_state_dict(state.optimizer)
        self._fabric.strategy.precision.load_state_dict(state.scaler)
