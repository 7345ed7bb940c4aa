"""One run of `swise-train`: settings merged, the network trained, the model card written."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swise_deploy.command.console import progress
from swise_deploy.errors import InputError
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.degradation import read_degradation
from swise_deploy.training.data.lr_pictures import write_lr_pictures
from swise_deploy.training.loop import train
from swise_deploy.training.resuming import refuse_other_run
from swise_deploy.training.run.display import Display
from swise_deploy.training.run.model_card import write_model_card
from swise_deploy.training.run.run_files import read_config, read_log
from swise_deploy.training.run.testing import TestScores
from swise_deploy.training.settings import (
    config_from_layers,
    recipe_text,
    settings_from_file,
    settings_from_toml,
)
from swise_deploy.training.signals import StopSignals
from swise_deploy.training.start.trained_form import MakeForm
from swise_deploy.training.state import TrainResult
from swise_deploy.training.step.optimization import learning_rate_at


@dataclass(frozen=True, slots=True)
class TrainCommand:
    """A call of `swise-train`.

    Attributes:
        settings: Settings given as flags, by the names of TrainConfig.
        recipe: A recipe that ships with the package, or "".
        config: A TOML file of settings, or None.
        resume: Continue the run in the folder `out` of the settings.
        write_lr: Write the LR pictures of `data` into this folder instead of training, or None.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    recipe: str = ""
    config: Path | None = None
    resume: bool = False
    write_lr: Path | None = None


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The outcome of a call: of the run, and the scores on its test folders."""

    result: TrainResult
    test: Mapping[str, TestScores]


def run_training(
    command: TrainCommand, *, signals: StopSignals, make_form: MakeForm | None
) -> TrainReport | None:
    """Train, and write the model card; None in all processes but the first.

    Raises:
        SwiseError: As `train` and `write_model_card`.
    """
    config = config_of_command(command, note=progress)
    with signals.installed():
        result = train(
            config,
            resume=command.resume,
            stop=signals.requested,
            make_form=make_form,
            while_training=signals.while_training,
        )
        return None if result is None else TrainReport(result, write_model_card(result))


def write_lr(command: TrainCommand) -> int:
    """Write the LR pictures of a call; returns their number.

    Raises:
        SwiseError: As `write_lr_pictures`.
    """
    assert command.write_lr is not None, "asked for"
    # No run is made: its folder need not be given.
    settings = {"out": command.write_lr, **command.settings}
    config = config_of_command(dataclasses.replace(command, settings=settings), note=progress)
    degradation = read_degradation(config.degradation) if config.degradation else None
    with Display(quiet=False) as display:
        return write_lr_pictures(
            config.data_folders,
            command.write_lr,
            config.scale,
            degradation=degradation,
            report=display.report,
        )


def config_of_command(command: TrainCommand, *, note: Callable[[str], None]) -> TrainConfig:
    """Merge the settings of a call: recipe, file, flags; those of the run for a resumed one.

    Args:
        command: The call.
        note: Receives a line for each setting that a resumed run changes.

    Raises:
        InputError: A setting is unknown, wrong or missing, or would make it another run.
    """
    if command.resume:
        if command.recipe or command.config:
            raise InputError(
                "--resume with --recipe or --config; a resumed run keeps the settings that it "
                "began with. Change single ones by flags"
            )
        return _resumed_config(command.settings, note)
    layers: dict[str, Mapping[str, object]] = {}
    if command.recipe:
        source = f"recipe {command.recipe}"
        layers[source] = settings_from_toml(recipe_text(command.recipe), source=source)
    if command.config:
        layers[str(command.config)] = settings_from_file(command.config)
    return config_from_layers({**layers, "flags": command.settings})


def _resumed_config(flags: Mapping[str, object], note: Callable[[str], None]) -> TrainConfig:
    if "out" not in flags:
        raise InputError("--resume needs the folder of the run. Give --output DIR")
    out = Path(str(flags["out"]))
    stored = read_config(out)
    kept = {f.name: getattr(stored, f.name) for f in dataclasses.fields(stored)}
    wanted = config_from_layers({str(out): kept, "flags": flags})
    for change in refuse_other_run(stored, wanted):
        note(change)
    if stored.steps != wanted.steps and wanted.schedule == "cosine":
        step = max((record["step"] for record in read_log(out)), default=0)
        before, after = (learning_rate_at(config, step) for config in (stored, wanted))
        note(
            f"the cosine schedule now ends at step {wanted.steps}: the learning rate at step "
            f"{step} is {after:.3g}, was {before:.3g}"
        )
    return wanted
