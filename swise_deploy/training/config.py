"""The settings of a training run as one value: defaults, then recipe or TOML file, then flags."""

import dataclasses
import json
import math
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

from swise_deploy.checkpoints.shipped import resolve_weights
from swise_deploy.command.console import choose
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import NETWORKS, Upsampler
from swise_deploy.precision import TrainingPrecision

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Precision = Literal["auto", TrainingPrecision]
Schedule = Literal["constant", "step", "cosine"]
OptimizerName = Literal["adamp", "adam", "adamw"]
Loss = Literal["l1", "mse", "psnr"]

# Settings that a resumed run may change: the steps already made do not depend on them. Changes are
# reported.
CHANGEABLE = frozenset(
    {"steps", "learning_rate", "clip_norm", "max_minutes", "log_every", "save_every", "val_every"}
    | {"val", "test", "cache", "workers", "accelerator", "devices", "num_nodes", "tensorboard"}
)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: Folder of training pictures.
        out: Folder for weights, state, logs and model card.
        scale: Output size over input size.
        model: A key of NETWORKS.
        option: Passed to the network's `build`; for SwiseNet its branches, as in "magnify+equal".
        upsampler: "sum" puts SwiseNet's upsampling module in place of the network's own.
        val: Folder of validation pictures; None holds `holdout` pictures of `data` out.
        test: Folders scored once, at the end, for the model card. They choose nothing.
        holdout: Pictures held out of `data` where `val` is not given; 0 validates nothing.
        val_crop: Side of the centre crop that is validated, in HR pixels; 0 takes whole pictures.
        init: Weights to start from; weights of another scale are carried over.
        init_exclude: Patterns of tensor names that `init` does not give.
        teacher: Weights of other networks of the registry, at this scale or a larger one, which are
            learnt from as well: from the mean of their pictures.
        teacher_ensemble: Have every teacher upscale a picture in its 8 orientations.
        teacher_share: Share of the loss that is the distance to that mean, above 0 and up to 1; the
            rest is the distance to the HR pictures.
        qat: A precision plan of `swise-export --int8`: its INT8 layers are rounded in training too.
        steps: Optimiser steps of the whole run.
        batch_size: Crops per step over all processes together.
        patch_size: Side of a crop in LR pixels.
        seed: Decides fresh weights, data order and crops.
        loss: "l1"; or to finish with, "mse", or "psnr", which is minus the mean PSNR of the crops
            and weighs each by its own error.
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
        max_minutes: Stop cleanly after so long, to be resumed; 0 means no limit.
        tensorboard: Write TensorBoard events besides the JSONL log.
    """

    data: Path
    out: Path
    scale: int = 2
    model: str = "swisenet"
    option: str = ""
    upsampler: Upsampler = "default"
    val: Path | None = None
    test: tuple[Path, ...] = ()
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
    precision: Precision = "auto"
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
    max_minutes: float = 0.0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        choose(self.model, NETWORKS, what="model")
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
        if self.qat is not None:
            _check(self.init is not None, "init", self.init, "with qat, the weights of the plan")
            names = ", ".join(map(str, self.teacher))
            _check(not self.teacher, "teacher", names, "with qat, none: init teaches")
            _check(not self.weight_norm, "weight_norm", self.weight_norm, "with qat, none")
            exact = self.precision in ("auto", "fp32")
            _check(exact, "precision", self.precision, "with qat, fp32: INT8 is imitated in it")


def _check(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"{name} is {value}; expected {expected}")


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    folder = resources.files("swise_deploy.training") / "recipes"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def recipe_text(name: str) -> str:
    """The TOML text of a recipe, comments and all.

    Raises:
        InputError: No recipe has this name.
    """
    choose(name, recipe_names(), what="recipe")
    folder = resources.files("swise_deploy.training") / "recipes"
    return (folder / f"{name}.toml").read_text(encoding="utf-8")


def config_from_layers(layers: Mapping[str, Mapping[str, object]]) -> TrainConfig:
    """Merge layers of settings, the later over the earlier, and check them.

    Args:
        layers: Settings by their source, such as "recipe gpu" or "flags", which messages name.

    Raises:
        InputError: An unknown name, a value of the wrong type, or `data` or `out` missing.
    """
    hints = get_type_hints(TrainConfig)
    merged: dict[str, object] = {}
    for source, settings in layers.items():
        for name, value in settings.items():
            if name not in hints:
                choose(name, hints, what=f"setting in {source}")
            merged[name] = _typed(value, hints[name], name=name, source=source)
    for name in ("data", "out"):
        if name not in merged:
            raise InputError(
                f"{name} is not given. Use --{name} DIR, or `{name} = ...` in the TOML file"
            )
    return TrainConfig(**merged)  # type: ignore[arg-type]  # every value was checked by its hint


def settings_from_toml(text: str, *, source: str) -> dict[str, object]:
    """Read the settings of a TOML document.

    Raises:
        InputError: It is no TOML.
    """
    try:
        return dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is no valid TOML: {error}") from error


def settings_from_file(path: Path) -> dict[str, object]:
    """Read the settings of a TOML file.

    Raises:
        InputError: It cannot be read, or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return settings_from_toml(text, source=str(path))


def toml_from_config(config: TrainConfig) -> str:
    """Write a config as TOML; unset paths are left out."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's strings, booleans and integers are TOML's; so are its finite floats. TOML has no pairs
    # of surrogates and wants DEL escaped.
    text = json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")


def refuse_other_run(stored: TrainConfig, wanted: TrainConfig) -> list[str]:
    """List the settings that a resumed run changes; refuse those that would make it another run.

    Returns:
        One sentence for each setting that changed.

    Raises:
        InputError: A setting changed that the steps already done depend on.
    """
    changes = []
    for field in dataclasses.fields(TrainConfig):
        old, new = getattr(stored, field.name), getattr(wanted, field.name)
        if old == new or field.name == "out":
            continue
        if field.name not in CHANGEABLE:
            raise InputError(
                f"--resume with {field.name} = {new}, but the run in {wanted.out} was made with "
                f"{old}. Leave it as it was, or start another run (--init FILE --out DIR)"
            )
        changes.append(f"{field.name} is now {new}, was {old}")
    return changes


def _typed(value: object, hint: object, *, name: str, source: str) -> object:
    """Check a setting against its type; TOML's arrays become tuples, strings become paths."""
    converted = _convert(value, hint)
    if converted is _WRONG:
        raise InputError(f"{name} in {source} is {value!r}; expected {_words(hint)}")
    if name == "init" and isinstance(converted, Path):
        return resolve_weights(str(converted))
    if name == "teacher" and isinstance(converted, tuple):
        return tuple(resolve_weights(str(path)) for path in converted)
    return converted


_WRONG = object()


def _convert(value: object, hint: object) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    converted = _WRONG
    if origin in (Union, types.UnionType):
        tried = (_convert(value, option) for option in arguments)
        converted = next((v for v in tried if v is not _WRONG), _WRONG)
    elif origin is tuple:
        converted = _convert_items(value, arguments)
    elif origin is Literal:
        converted = value if value in arguments else _WRONG
    elif hint is Path and isinstance(value, (str, Path)):
        converted = Path(value)
    elif hint is float and type(value) is int:
        converted = float(value)
    elif isinstance(hint, type) and type(value) is hint:
        converted = value
    return converted


def _convert_items(value: object, arguments: tuple[object, ...]) -> object:
    if not isinstance(value, (list, tuple)):
        return _WRONG
    repeated = len(arguments) == 2 and arguments[1] is Ellipsis
    if not repeated and len(value) != len(arguments):
        return _WRONG
    hints = [arguments[0]] * len(value) if repeated else arguments
    items = tuple(_convert(item, hint) for item, hint in zip(value, hints, strict=True))
    return _WRONG if _WRONG in items else items


def _words(hint: object) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
