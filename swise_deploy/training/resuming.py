"""Settings that a resumed run may change, and those that would make it another run."""

import dataclasses
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.training.config import TrainConfig

CHANGEABLE = frozenset(
    {"steps", "learning_rate", "clip_norm", "max_minutes", "log_every", "save_every", "val_every"}
    | {"test", "test_lr", "cache", "workers", "accelerator", "devices", "num_nodes"}
    | {"val", "val_lr", "tensorboard", "track", "keep", "patience"}
)
"""Settings that the steps already made do not depend on."""

CHECKED_BY_CONTENT = frozenset({"data", "lr", "teacher", "init"})
"""Paths that may change: the run compares the pictures' and teachers' content with its state's.

The weights of `init` are in the state already.
"""


def refuse_other_run(stored: TrainConfig, wanted: TrainConfig) -> list[str]:
    """List the settings that a resumed run changes; refuse those that would make it another run.

    Returns:
        One sentence for each setting that changed.

    Raises:
        InputError: A setting changed that the steps already made depend on.
    """
    changes = []
    for field in dataclasses.fields(TrainConfig):
        old, new = (_comparable(getattr(c, field.name)) for c in (stored, wanted))
        if old == new or field.name == "out":
            continue
        shown = _shown(old), _shown(new)
        if field.name not in CHANGEABLE | CHECKED_BY_CONTENT:
            raise InputError(
                f"--resume with {field.name} = {shown[1]}, but the run in {wanted.out} was made "
                f"with {shown[0]}. Leave it as it was, or start another run (--init FILE -o DIR)"
            )
        changes.append(f"{field.name} is now {shown[1]}, was {shown[0]}")
    return changes


def _comparable(value: object) -> object:
    """A setting with absolute paths; a folder by itself as a tuple of one."""
    if isinstance(value, Path):
        return (value.absolute(),)
    if isinstance(value, tuple):
        return tuple(v.absolute() if isinstance(v, Path) else v for v in value)
    return value


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same run, described so that it can be resumed from another working directory."""
    changed: dict[str, object] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Path):
            changed[field.name] = value.absolute()
        elif isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
            changed[field.name] = tuple(item.absolute() for item in value)
    if Path(config.degradation).suffix == ".toml":
        changed["degradation"] = str(Path(config.degradation).absolute())
    return dataclasses.replace(config, **changed)  # type: ignore[arg-type]  # paths stay paths
