"""`swise-train`: training as swise_deploy does it, and with --qat for a precision plan's INT8."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from swise_deploy.training import cli

if TYPE_CHECKING:
    from torch import nn

    from swise_deploy.training.config import TrainConfig
    from swise_deploy.training.start.trained_form import TrainedForm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return cli.main(arguments, make_form=_make_form)


def _make_form(network: "nn.Module", config: "TrainConfig") -> "TrainedForm":
    from swise_export.training.qat import form_from_plan  # torch, after parsing

    return form_from_plan(network, config)


if __name__ == "__main__":
    sys.exit(main())
