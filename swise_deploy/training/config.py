"""The settings of a training run as one frozen value."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swise_deploy.command.console import choose
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import NETWORKS, Upsampler
from swise_deploy.precision import TrainingPrecision

TrainPrecision = Literal["auto", TrainingPrecision]
Schedule = Literal["constant", "step", "cosine"]
OptimizerName = Literal["adamp", "adam", "adamw"]
Loss = Literal["l1", "charbonnier", "mse", "psnr"]
Tracker = Literal["wandb", "mlflow"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: Folders of training pictures; one may be given by itself.
        data_weights: Shares of the crops that come from each folder of `data`, in any unit; empty
            draws from all pictures alike.
        lr: The LR pictures of each folder of `data`, matched by name; empty makes them.
        degradation: How LR crops are made: "" for MATLAB's bicubic, a shipped recipe, or a TOML
            file of steps (degradation.py).
        out: Folder for weights, state, logs and model card.
        scale: Output size over input size.
        model: A key of NETWORKS, "package.module:factory", or "spandrel" with `init`.
        option: Passed to the network's `build`; for SwiseNet its branches, as in "magnify+equal".
        upsampler: "sum" puts SwiseNet's upsampling module in place of the network's own.
        val: Folders of validation pictures; empty holds `holdout` pictures of `data` out.
        val_lr: The LR pictures of each folder of `val`; empty makes them as for training.
        test: Folders scored once, at the end, for the model card. They choose nothing.
        test_lr: The LR pictures of each folder of `test`; empty shrinks by MATLAB's bicubic.
        holdout: Pictures held out of `data` where `val` is not given; 0 validates nothing.
        val_crop: Side of the centre crop that is validated, in HR pixels; 0 takes whole pictures.
        init: Weights to start from; weights of another scale are carried over.
        init_exclude: Patterns of tensor names that `init` does not give.
        teacher: Weights of other networks of the registry, at this scale or a larger one. The run
            learns from the mean of their outputs as well.
        teacher_ensemble: Have every teacher upscale a picture in its 8 orientations.
        teacher_share: Share of the loss that is the distance to that mean, above 0 and up to 1; the
            rest is the distance to the HR pictures.
        qat: A precision plan of `swise-export --int8`: its INT8 layers are rounded in training too.
        steps: Optimiser steps of the whole run.
        batch_size: Crops per step over all processes together.
        patch_size: Side of a crop in LR pixels.
        seed: Decides fresh weights, data order and crops.
        loss: "l1"; "charbonnier", its smooth form; or to finish with, "mse", or "psnr", which is
            minus the mean PSNR of the crops and weighs each by its own error.
        optimizer: "adamp" (Heo et al., 2021), "adam" or "adamw".
        learning_rate: After the warm-up.
        final_learning_rate: Where "cosine" ends.
        betas: Of the optimiser.
        weight_decay: Decoupled for "adamp" and "adamw".
        schedule: "step" halves every `halve_every` steps.
        halve_every: Steps between halvings.
        warmup_steps: Steps of linear growth from 0.
        clip_norm: Largest L2 norm of all gradients together; 0 does not clip.
        ema_decay: Of the averaged weights, which are what is saved; 0 averages nothing.
        weight_norm: Patterns of module names (fnmatch) trained weight-normalised; folded on saving.
        precision: "auto" measures what is faster here; see precision.py.
        channels_last: Feed batches in NHWC memory order.
        compile: Run the network through torch.compile.
        cuda_graph: Replay the passes of a step as a CUDA graph; on one GPU, else nothing.
        accelerator: As Lightning Fabric names them: "auto", "cpu", "cuda", "mps".
        devices: Processes per node; under torchrun what it was started with.
        num_nodes: Machines.
        workers: Threads that prepare batches ahead; 0 prepares them in the training thread.
        cache: Folder for decoded pictures; None takes the user's cache folder.
        log_every, save_every, val_every: In steps.
        keep: Weights of so many validations are kept, the latest ones; besides last and best.
        patience: Validations in a row without a better one that end the run; 0 never ends it early.
        max_minutes: Stop cleanly after so long, to be resumed; 0 means no limit.
        tensorboard: Write TensorBoard events besides the JSONL log.
        track: Other trackers that get the same numbers: "wandb", "mlflow".
    """

    data: Path | tuple[Path, ...]
    out: Path
    scale: int = 2
    model: str = "swisenet"
    option: str = ""
    upsampler: Upsampler = "default"
    data_weights: tuple[float, ...] = ()
    lr: tuple[Path, ...] = ()
    degradation: str = ""
    val: Path | tuple[Path, ...] | None = None
    val_lr: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    test_lr: tuple[Path, ...] = ()
    holdout: int = 8
    val_crop: int = 0
    init: Path | None = None
    init_exclude: tuple[str, ...] = ()
    teacher: tuple[Path, ...] = ()
    teacher_ensemble: bool = False
    teacher_share: float = 0.7
    qat: Path | None = None
    steps: int = 10_000
    batch_size: int = 16
    patch_size: int = 48
    seed: int = 0
    loss: Loss = "l1"
    optimizer: OptimizerName = "adamp"
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    halve_every: int = 150_000
    warmup_steps: int = 0
    clip_norm: float = 10.0
    ema_decay: float = 0.999
    weight_norm: tuple[str, ...] = ()
    precision: TrainPrecision = "auto"
    channels_last: bool = True
    compile: bool = False
    cuda_graph: bool = False
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    workers: int = 2
    cache: Path | None = None
    log_every: int = 20
    save_every: int = 100
    val_every: int = 500
    keep: int = 0
    patience: int = 0
    max_minutes: float = 0.0
    tensorboard: bool = True
    track: tuple[Tracker, ...] = ()

    @property
    def data_folders(self) -> tuple[Path, ...]:
        """The folders of `data`."""
        return (self.data,) if isinstance(self.data, Path) else self.data

    @property
    def val_folders(self) -> tuple[Path, ...]:
        """The folders of `val`."""
        return (self.val,) if isinstance(self.val, Path) else self.val or ()

    def __post_init__(self) -> None:
        _check_model(self)
        for name, value in {
            "scale": self.scale,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "patch_size": self.patch_size,
            "halve_every": self.halve_every,
            "devices": self.devices,
            "num_nodes": self.num_nodes,
            "log_every": self.log_every,
            "save_every": self.save_every,
            "val_every": self.val_every,
        }.items():
            _check(value >= 1, name, value, "1 or more")
        for name, number in {
            "seed": self.seed,
            "holdout": self.holdout,
            "val_crop": self.val_crop,
            "warmup_steps": self.warmup_steps,
            "workers": self.workers,
            "clip_norm": self.clip_norm,
            "weight_decay": self.weight_decay,
            "final_learning_rate": self.final_learning_rate,
            "keep": self.keep,
            "patience": self.patience,
            "max_minutes": self.max_minutes,
        }.items():
            _check(math.isfinite(number) and number >= 0, name, number, "0 or more")
        _check(self.seed < 2**32, "seed", self.seed, "less than 2^32")
        rate = self.learning_rate
        _check(math.isfinite(rate) and rate > 0, "learning_rate", rate, "more than 0")
        _check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 and less than 1")
        share = self.teacher_share
        _check(0 < share <= 1, "teacher_share", share, "more than 0 and at most 1")
        _check(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "each in [0, 1)")
        _check_folders(self)
        if self.qat is not None:
            _check(self.init is not None, "init", self.init, "with qat, the weights of the plan")
            names = ", ".join(map(str, self.teacher))
            _check(not self.teacher, "teacher", names, "with qat, none: init teaches")
            _check(not self.weight_norm, "weight_norm", self.weight_norm, "with qat, none")
            exact = self.precision in ("auto", "fp32")
            _check(exact, "precision", self.precision, "with qat, fp32: INT8 is imitated in it")


def _check_model(config: TrainConfig) -> None:
    if config.model == "spandrel":
        _check(config.init is not None, "init", None, "with model spandrel, a checkpoint")
    elif ":" not in config.model:
        choose(config.model, NETWORKS, what="model")
    if config.model not in NETWORKS:
        _check(not config.option, "option", config.option, "none with a network of your own")
        _check(config.upsampler == "default", "upsampler", config.upsampler, "default")


def _check_folders(config: TrainConfig) -> None:
    folders, given = config.data_folders, ", ".join(map(str, config.lr))
    _check(bool(folders), "data", "empty", "at least one folder")
    pairs = {"lr": (config.lr, folders), "val_lr": (config.val_lr, config.val_folders)}
    for name, (lr, hr) in {**pairs, "test_lr": (config.test_lr, config.test)}.items():
        hr_name = "data" if name == "lr" else name.removesuffix("_lr")
        expected = f"one folder for each of {hr_name} ({len(hr)})"
        _check(not lr or len(lr) == len(hr), name, f"{len(lr)} folders", expected)
    weights = config.data_weights
    expected = f"one positive number for each folder of data ({len(folders)})"
    good = not weights or len(weights) == len(folders)
    good = good and all(math.isfinite(w) and w > 0 for w in weights)
    _check(good, "data_weights", weights, expected)
    _check(not (config.lr and config.degradation), "lr", given, "none with degradation")
    if config.scale == 1:
        made = bool(config.lr or config.degradation)
        _check(made, "scale", 1, "2 or more without lr or degradation: bicubic changes nothing")


def _check(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"{name} is {value}; expected {expected}")
