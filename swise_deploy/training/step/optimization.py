"""Optimisers and learning rates."""

import math

from torch import nn, optim
from torch.optim import Optimizer

from swise_deploy.command.dependencies import require
from swise_deploy.training.config import TrainConfig


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """Learning rate of step number `step`, counted from 0.

    Linear growth over `warmup_steps`, then constant, halved every `halve_every` steps, or half a
    cosine down to `final_learning_rate` at the last step.
    """
    peak = config.learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "step":
        return float(peak * 0.5 ** (step // config.halve_every))
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
        lowest = min(peak, config.final_learning_rate)
        return lowest + (peak - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return peak


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def make_optimizer(config: TrainConfig, network: nn.Module) -> Optimizer:
    """The optimiser that the config names, over all parameters.

    Raises:
        BackendMissingError: "adamp" without the package that has it.
    """
    parameters = list(network.parameters())
    rate, betas, decay = config.learning_rate, config.betas, config.weight_decay
    if config.optimizer in ("adam", "adamw"):
        make = optim.Adam if config.optimizer == "adam" else optim.AdamW
        # One kernel for all tensors; but it takes the loss scale of fp16 upon itself, and Fabric
        # does not clip gradients that are still scaled.
        fused = config.precision != "fp16"
        return make(parameters, lr=rate, betas=betas, weight_decay=decay, fused=fused)
    module = require("pytorch_optimizer", extra="train", purpose="the optimizer adamp")
    # foreach=None lets a GPU decide by itself which tensors to project, without a wait for each.
    optimizer: Optimizer = module.AdamP(
        parameters, lr=rate, betas=betas, weight_decay=decay, foreach=None
    )
    return optimizer
