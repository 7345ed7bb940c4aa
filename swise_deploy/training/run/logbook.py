"""The log of a run: JSON lines for programs, TensorBoard and other trackers for people."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from swise_deploy.command.dependencies import require
from swise_deploy.errors import SwiseError, first_line
from swise_deploy.storage.context import Closing
from swise_deploy.training.config import TrainConfig

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """A program that draws the numbers of runs."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers of a step, by names such as "val/psnr_y_db"."""

    def close(self) -> None:
        """Send what is left."""


class Logbook(Closing):
    """Appends records to log.jsonl and sends their numbers to trackers.

    Args:
        config: The run.
        first_step: The step at which this session starts; TensorBoard forgets later ones.
        quiet: Write nothing, as in all processes but the first.

    Raises:
        BackendMissingError: A tracker is wanted and not installed.
        SwiseError: A tracker cannot start.
    """

    def __init__(self, config: TrainConfig, *, first_step: int, quiet: bool = False) -> None:
        self._trackers: list[Tracker] = []
        if not quiet:
            if config.tensorboard:
                self._trackers.append(_TensorBoard(config.out, first_step))
            self._trackers += [_started(name, config) for name in config.track]
        self._file = None if quiet else (config.out / "log.jsonl").open("a", encoding="utf-8")

    def record(self, kind: str, step: int, values: Mapping[str, object]) -> None:
        """Append a record of a kind ("train", "val", "event"), at once on disk."""
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._file.flush()
        numbers = {
            f"{kind}/{name}": float(value)
            for name, value in values.items()
            if isinstance(value, (int, float))
        }
        for tracker in list(self._trackers):
            try:
                tracker.log(step, numbers)
            except Exception as error:  # noqa: BLE001  # a tracker that fails costs no training
                logger.warning("a tracker failed and is left out: %s", first_line(error))
                self._trackers.remove(tracker)

    def close(self) -> None:
        """Close the log and all trackers."""
        if self._file is not None:
            self._file.close()
        for tracker in self._trackers:
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001  # as above
                logger.warning("a tracker failed at its end: %s", first_line(error))


def _started(name: str, config: TrainConfig) -> Tracker:
    try:
        return _TRACKERS[name](config)
    except SwiseError:
        raise
    except Exception as error:
        raise SwiseError(
            f"--track {name} cannot start: {first_line(error)}. Set its environment variables, or "
            "leave the option out"
        ) from error


class _TensorBoard:
    def __init__(self, out: Path, first_step: int) -> None:
        purpose = "the TensorBoard log"
        module = require("torch.utils.tensorboard", extra="train", purpose=purpose)
        self._writer: Any = module.SummaryWriter(out / "tensorboard", purge_step=first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run of W&B; its environment variables (WANDB_PROJECT, WANDB_MODE, ...) count."""

    def __init__(self, config: TrainConfig) -> None:
        module = require("wandb", extra="wandb", purpose="--track wandb")
        self._run: Any = module.init(
            dir=config.out, name=config.out.name, config=_plain(config), resume="allow"
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """A run of MLflow; its environment variables (MLFLOW_TRACKING_URI, ...) count."""

    def __init__(self, config: TrainConfig) -> None:
        self._module: Any = require("mlflow", extra="mlflow", purpose="--track mlflow")
        self._module.start_run(run_name=config.out.name)
        self._module.log_params(_plain(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log_metrics({k.replace("/", "."): v for k, v in values.items()}, step=step)

    def close(self) -> None:
        self._module.end_run()


_TRACKERS: Mapping[str, Callable[[TrainConfig], Tracker]] = {
    "wandb": _WeightsAndBiases,
    "mlflow": _MLflow,
}


def _plain(config: TrainConfig) -> dict[str, str | int | float | bool]:
    """The settings as values that every tracker takes."""
    values = dataclasses.asdict(config)
    return {k: v if isinstance(v, (bool, int, float)) else str(v) for k, v in values.items()}
