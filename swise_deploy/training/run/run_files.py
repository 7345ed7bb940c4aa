"""The files in a run's folder, each written whole, so that a kill at any moment loses no state.

config.toml                  every setting, for --resume
state.pt                     weights, averages, optimiser, loss scale, step: what resuming needs
log.jsonl                    one JSON object a line: train, val and event records
last.safetensors             averaged weights, weight norm folded, as of the last state
best.safetensors             the same, at the best validation
step_N.safetensors           the same, at the latest validations, as many as --keep has
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import nn

from swise_deploy.errors import InputError, OutputError, first_line
from swise_deploy.storage.files import read_json_lines, size_of_regular, writing
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.resuming import with_absolute_paths
from swise_deploy.training.settings import (
    config_from_layers,
    settings_from_file,
    toml_from_config,
)
from swise_deploy.training.state import BestValidation, RunProgress, RunState

SCHEMA_VERSION = 2

_TENSORS = ("network", "averages", "optimizer", "scaler")


def state_path(out: Path) -> Path:
    """The file with a run's state."""
    return out / "state.pt"


def write_state(out: Path, state: RunState) -> None:
    """Write the state, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = {name: getattr(state, name) for name in _TENSORS}
    progress = dataclasses.asdict(state.progress)
    with writing(state_path(out)) as temporary:
        torch.save({"schema_version": SCHEMA_VERSION, "progress": progress, **tensors}, temporary)


def read_state(out: Path) -> RunState:
    """Read the state of a run; no code in it is executed.

    Raises:
        InputError: There is none, or it is damaged or of another version.
    """
    path = state_path(out)
    try:
        size_of_regular(path)
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(
            f"nothing to resume: no {path}. Leave --resume out, or give the run's --output"
        ) from error
    except Exception as error:  # the reader raises anything on damaged bytes
        raise InputError(
            f"cannot read {path}: {first_line(error)}. Start anew with --init"
        ) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    readers = {1: _state_of_version_1, SCHEMA_VERSION: _state_of_version_2}
    if type(version) is not int or version not in readers:
        raise InputError(
            f"{path} has schema_version {version}; expected {SCHEMA_VERSION}. "
            "Resume it with the version of swise-deploy that wrote it"
        )
    try:
        return readers[version](document)
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds a wrong value: {first_line(error)}. Start anew with --init"
        ) from error


def _state_of_version_2(document: dict[str, Any]) -> RunState:
    progress = msgspec.convert(document["progress"], RunProgress)
    return RunState(progress, *_tensors(document))


def _tensors(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in _TENSORS:
        yield msgspec.convert(document[name], dict[str, Any])


def _state_of_version_1(document: dict[str, Any]) -> RunState:
    """The state of a run of 2026, before version 0.1.0: PSNR-Y alone decided."""
    psnr_y_db, step = document["best_psnr_y_db"], document["step"]
    best = None if psnr_y_db is None else BestValidation(psnr_y_db, psnr_y_db, step)
    progress = RunProgress(step, document["data_key"], best=best, trained_s=document["trained_s"])
    return RunState(progress, *_tensors(document))


def write_config(config: TrainConfig) -> None:
    """Write config.toml into the run's folder, with absolute paths."""
    text = toml_from_config(with_absolute_paths(config))
    with writing(config.out / "config.toml") as temporary:
        temporary.write_bytes(os.fsencode(text))


def read_config(out: Path) -> TrainConfig:
    """Read config.toml of a run.

    Raises:
        InputError: The folder holds no run.
    """
    path = out / "config.toml"
    if not path.is_file():
        raise InputError(
            f"nothing to resume: no {path}. Leave --resume out, or give the run's --output"
        )
    return config_from_layers({str(path): settings_from_file(path)})


@contextlib.contextmanager
def run_lock(out: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second run writes into it at the same time.

    Only the first process of a run holds it. A folder that is empty at the end is removed.

    Raises:
        InputError: Another run holds it.
        OutputError: The folder cannot be written.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK")):
        yield
        return
    path = out / ".lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"another process trains into {out}. Wait until it ends, or choose another --output"
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write to {out}: {error.strerror or error}. Choose a folder that is writable"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            out.rmdir()


def write_weights(path: Path, network: nn.Module, facts: Mapping[str, str]) -> None:
    """Write plain weights as safetensors, with facts about them in its header.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = {n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}
    with writing(path) as temporary:
        save_file(tensors, temporary, metadata=dict(facts))


def read_log(out: Path) -> list[dict[str, Any]]:
    """The records of log.jsonl; a line that a kill cut short or that is damaged is left out."""
    return [record for record in read_json_lines(out / "log.jsonl") if _is_record(record)]


_NUMBERS = {"train": ("loss", "steps_per_s"), "val": ("psnr_y_db",), "event": ()}
"""Kinds of records, and the numbers that are read from them."""


def _is_record(value: object) -> bool:
    if not isinstance(value, dict) or type(value.get("step")) is not int:
        return False
    names = _NUMBERS.get(str(value.get("kind")))
    return names is not None and all(isinstance(value.get(n), (int, float)) for n in names)


def rewind_log(out: Path, step: int) -> None:
    """Drop the records of steps that will be made again.

    Raises:
        OutputError: The log cannot be written.
    """
    kept = [record for record in read_log(out) if record["step"] <= step]
    with writing(out / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")


def drop_old_weights(out: Path, *, keep: int) -> None:
    """Delete the weights of all but the latest validations."""
    numbered = sorted(out.glob("step_*.safetensors"), key=lambda path: int(path.stem[5:]))
    for path in numbered[: len(numbered) - keep]:
        path.unlink(missing_ok=True)
