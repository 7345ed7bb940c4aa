"""What is trained in a network's place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from swise_deploy.training.config import TrainConfig

PLAN_NAME = "precision_plan.json"
"""What a run for INT8 leaves beside its weights, for `swise-export --precision-plan`."""


@dataclass(frozen=True, slots=True)
class TrainedForm:
    """A form of a network that is trained instead of it, and the way back.

    Attributes:
        module: Maps pictures as the network does; its parameters are trained, and it is what
            validation scores.
        plain: Gives the network with the weights of such a module: what is saved.
        teacher: What the module learns to give, from the LR pictures; None for the HR pictures.
        note: A line for the user, or nothing.
        finish: Called at the end with the weights to deploy and the PSNR-Y in dB that the module
            lost (negative) or won against its teacher in validation, None without one.
    """

    module: nn.Module
    plain: Callable[[nn.Module], nn.Module]
    teacher: nn.Module | None = None
    note: str = ""
    finish: Callable[[Path, float | None], None] | None = None


FormOf = Callable[[nn.Module, TrainConfig], TrainedForm]
"""Makes the form that a run trains of its network, before the first step."""


def as_it_is(network: nn.Module, config: TrainConfig) -> TrainedForm:
    """The network itself."""
    del config
    return TrainedForm(network, plain=lambda trained: trained)
