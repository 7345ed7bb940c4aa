"""The form in which a network is trained: itself, or one with rounded layers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from swise_deploy.training.config import TrainConfig
from swise_deploy.training.start.teachers import MeanOfNetworks, open_teacher

PLAN_NAME = "precision_plan.json"
"""File of an INT8 run beside its weights, for `swise-export --precision-plan`."""


@dataclass(frozen=True, slots=True)
class TrainedForm:
    """A form of a network that is trained instead of it, and the way back.

    Attributes:
        module: Maps pictures as the network does; its parameters are trained, and
            validation scores it.
        plain: Gives the network with the weights of such a module, to be saved.
        teacher: Upscales LR pictures to learn from, where a batch does not contain its output;
            None trains on the HR pictures alone.
        teacher_share: Share of the loss that is the distance to the teacher's pictures; the rest is
            the distance to the HR pictures.
        note: A line for the user, or nothing.
        finish: Called at the end with the weights to deploy and the PSNR-Y in dB that the module
            lost (negative) or won against its teacher in validation, None without one.
    """

    module: nn.Module
    plain: Callable[[nn.Module], nn.Module]
    teacher: nn.Module | None = None
    teacher_share: float = 1.0
    note: str = ""
    finish: Callable[[Path, float | None], None] | None = None


MakeForm = Callable[[nn.Module, TrainConfig], TrainedForm]
"""Makes the trained form of a network, before the first step."""


def plain_form(network: nn.Module, config: TrainConfig) -> TrainedForm:
    """The network itself, with the teachers that the config names.

    Raises:
        InputError: A teacher cannot be read, is of no known network, or of a smaller scale.
    """
    form = TrainedForm(network, plain=lambda trained: trained)
    if not config.teacher:
        return form
    teachers = [
        open_teacher(file, config.scale, ensemble=config.teacher_ensemble)
        for file in config.teacher
    ]
    titles = " and ".join(teacher.title for teacher in teachers)
    how = " in 8 orientations" if config.teacher_ensemble else ""
    return replace(
        form,
        teacher=MeanOfNetworks([teacher.module for teacher in teachers]),
        teacher_share=config.teacher_share,
        note=f"learning {config.teacher_share:.0%} from {titles}{how}",
    )
