"""The files in a run's folder, each written whole, so that a kill at any moment loses no state.

config.toml                  every setting, for --resume
state.pt                     weights, averages, optimiser, loss scale, step: what resuming needs
log.jsonl                    one JSON object a line: train, val and event records
last.safetensors             averaged weights, weight norm folded, as of the last state
best.safetensors             the same, at the best validation
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from swise_deploy.errors import InputError, first_line
from swise_deploy.storage.files import read_json_lines, writing
from swise_deploy.training.config import (
    TrainConfig,
    config_from_layers,
    settings_from_toml,
    toml_from_config,
)
from swise_deploy.training.state import RunState

SCHEMA_VERSION = 1


def state_path(out: Path) -> Path:
    """The file with a run's state."""
    return out / "state.pt"


def write_state(out: Path, state: RunState) -> None:
    """Write the state, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    document = {name: getattr(state, name) for name in RunState.__slots__}
    with writing(state_path(out)) as temporary:
        torch.save({"schema_version": SCHEMA_VERSION, **document}, temporary)


def read_state(out: Path) -> RunState:
    """Read the state of a run; no code in it is executed.

    Raises:
        InputError: There is none, or it is damaged or of another version.
    """
    path = state_path(out)
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(
            f"nothing to resume: no {path}. Leave --resume out, or give the run's --out"
        ) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, OSError, EOFError) as error:
        raise InputError(
            f"cannot read {path}: {first_line(error)}. Start anew with --init"
        ) from error
    version = document.pop("schema_version", None) if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {version}; expected {SCHEMA_VERSION}. "
            "Resume it with the version of swise-deploy that wrote it"
        )
    return RunState(**document)


def write_config(config: TrainConfig) -> None:
    """Write config.toml into the run's folder."""
    with writing(config.out / "config.toml") as temporary:
        temporary.write_text(toml_from_config(config), encoding="utf-8")


def read_config(out: Path) -> TrainConfig:
    """Read config.toml of a run.

    Raises:
        InputError: The folder holds no run.
    """
    path = out / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"nothing to resume: cannot read {path}: {first_line(error)}. "
            "Leave --resume out, or give the run's --out"
        ) from error
    return config_from_layers({str(path): settings_from_toml(text, source=str(path))})


def write_weights(path: Path, network: nn.Module, facts: Mapping[str, str]) -> None:
    """Write plain weights as safetensors, with facts about them in its header.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}
    with writing(path) as temporary:
        save_file(tensors, temporary, metadata=dict(facts))


def read_log(out: Path) -> list[dict[str, Any]]:
    """The records of log.jsonl; a line that a kill cut short is left out."""
    return read_json_lines(out / "log.jsonl")


def rewind_log(out: Path, step: int) -> None:
    """Drop the records of steps that will be made again.

    Raises:
        OutputError: The log cannot be written.
    """
    kept = [record for record in read_log(out) if record["step"] <= step]
    with writing(out / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
