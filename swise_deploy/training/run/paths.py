"""Paths and packages of a run, checked before minutes are spent on pictures and measurements."""

from collections.abc import Sequence
from pathlib import Path

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.evaluation.own_pairs import match_by_name
from swise_deploy.pictures.folders import find_images
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.data.degradation import read_degradation


def check_paths(config: TrainConfig, *, resume: bool) -> None:
    """Refuse folders without pictures, missing files and packages that the end of the run needs.

    Args:
        config: The run.
        resume: Weights to start from and to learn from may be gone: the state has what it needs.

    Raises:
        InputError: A folder or file cannot be used; the message has the option's name.
        BackendMissingError: A package is not installed.
    """
    _check_folders("data", config.data_folders, config.lr, config.scale)
    _check_folders("val", config.val_folders, config.val_lr, config.scale)
    _check_folders("test", config.test, config.test_lr, config.scale)
    if config.degradation:
        read_degradation(config.degradation)
    files = {"qat": [config.qat]}
    if not resume:
        files |= {"init": [config.init], "teacher": list(config.teacher)}
    for option, paths in files.items():
        for path in paths:
            if path is not None and not path.is_file():
                raise InputError(f"--{option}: no file at {path}. Check the path")
    require("matplotlib", extra="train", purpose="drawing the training curve")
    if config.tensorboard:
        require("tensorboard", extra="train", purpose="the TensorBoard log")
    for tracker in config.track:
        require(tracker, extra=tracker, purpose=f"--track {tracker}")


def _check_folders(option: str, folders: Sequence[Path], lr: Sequence[Path], scale: int) -> None:
    for position, folder in enumerate(folders):
        try:
            paths = find_images(folder)
            if lr:
                match_by_name(paths, find_images(lr[position], ground_truth=False), scale)
        except InputError as error:
            raise InputError(f"--{option}: {error}") from error
