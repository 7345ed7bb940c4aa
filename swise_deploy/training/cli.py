"""swise-train: flags to settings; config.py explains the settings."""

import argparse
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, get_type_hints

from swise_deploy.command.console import progress, run_command
from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.storage.files import json_text
from swise_deploy.training.config import (
    TrainConfig,
    config_from_layers,
    recipe_names,
    recipe_text,
    refuse_other_run,
    settings_from_file,
    settings_from_toml,
)
from swise_deploy.training.step.allocator import keep_freed_memory

if TYPE_CHECKING:
    from swise_deploy.training.start.trained_form import MakeForm

# Flags that stand for a setting of TrainConfig, by group; all others are spelled out in _parser.
_HELP: dict[str, dict[str, str]] = {
    "what to train": {
        "model": "network of the registry (default: swisenet)",
        "option": "its variant; for SwiseNet the SUM's branches, as in magnify+equal, or no_sum",
        "upsampler": "'sum' puts SwiseNet's upsampler into another network",
        "init": "weights to start from, of any scale",
        "teacher_share": "share of the loss that is the distance to the teachers (default: 0.7)",
        "qat": "precision plan of swise-export --int8: learn to give what --init gives, in INT8",
        "weight_norm": "patterns of modules to train weight-normalised, comma-separated",
        "init_exclude": "patterns of tensors that --init does not give, comma-separated",
    },
    "data": {
        "val": "folder to validate on (default: --holdout pictures of --data)",
        "holdout": "pictures held out of --data for validation",
        "val_crop": "validate on centre crops of this side, in HR pixels; 0: whole pictures",
        "patch_size": "side of a crop, in LR pixels",
        "batch_size": "crops per step, over all processes together",
        "workers": "threads that prepare batches",
        "cache": "folder for decoded pictures",
    },
    "optimisation": {
        "steps": "optimiser steps of the whole run",
        "max_minutes": "stop cleanly after so long; --resume goes on",
        "learning_rate": "after the warm-up",
        "schedule": "constant, step or cosine",
        "warmup_steps": "steps of linear growth",
        "loss": "l1; mse or psnr to finish with",
        "optimizer": "adamp, adam or adamw",
        "clip_norm": "largest norm of the gradients; 0 does not clip",
        "ema_decay": "of the averaged weights; 0 averages nothing",
        "seed": "of fresh weights and crops",
    },
    "machine": {
        "precision": "auto (measures), fp32, bf16 or fp16",
        "accelerator": "auto, cpu, cuda or mps",
        "devices": "processes per machine; torchrun sets it by itself",
        "num_nodes": "machines",
        "log_every": "steps between log records",
        "save_every": "steps between saves: what a kill can cost at most",
        "val_every": "steps between validations",
    },
}

_SWITCHES = {
    "teacher_ensemble": "teachers upscale a picture in its 8 orientations: better, 8 times as slow",
    "channels_last": "batches in NHWC memory order",
    "compile": "through torch.compile",
    "cuda_graph": "replay the passes of a step as a CUDA graph; on one GPU, else nothing",
    "tensorboard": "events for TensorBoard beside the JSONL log",
}


def main(arguments: Sequence[str] | None = None, *, make_form: "MakeForm | None" = None) -> int:
    """Run `swise-train`; `make_form` makes what --qat trains. Returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options, make_form))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swise-train",
        description="Train a super-resolution network on a folder of pictures.",
        epilog="Settings: defaults, then --recipe, then --config, then flags. "
        "All of them: swise_deploy/training/config.py; several processes: torchrun.",
    )
    parser.add_argument("--data", help="folder of training pictures, with its subfolders")
    parser.add_argument("--out", help="folder for weights, state, logs and model card")
    parser.add_argument("--scale", type=int, help="2, 3 or 4 (default: 2)")
    parser.add_argument("--recipe", metavar="NAME", help=f"one of {', '.join(recipe_names())}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--show-recipe", action="store_true", help="print the recipe and stop")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--test",
        action="append",
        default=[],
        metavar="DIR",
        help="folder scored once at the end, for the model card; may be repeated",
    )
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="FILE",
        help="weights of another network, at this scale or a larger one, to learn from as well; "
        "may be repeated",
    )
    types = get_type_hints(TrainConfig)
    for title, flags in _HELP.items():
        group = parser.add_argument_group(title)
        for name, text in flags.items():
            convert = types[name] if types[name] in (int, float) else str
            group.add_argument(_flag(name), dest=name, type=convert, metavar="X", help=text)
    switches = parser.add_argument_group("switches")
    for name, text in _SWITCHES.items():
        switches.add_argument(
            _flag(name),
            dest=name,
            action=argparse.BooleanOptionalAction,
            default=None,
            help=text,
        )
    return parser


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _run(options: argparse.Namespace, make_form: "MakeForm | None") -> int:
    if options.show_recipe:
        sys.stdout.write(recipe_text(options.recipe or "quick-cpu"))
        return 0
    # Threads that wait for each other sleep instead of spinning: on a machine that does other work
    # as well, spinning made a step on 2 cores 3 to 4 times slower. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    config = _config(options)
    require("swise_deploy.training.loop", extra="train", purpose="training")
    from swise_deploy.training.loop import train  # torch, after parsing
    from swise_deploy.training.run.model_card import write_model_card

    result = train(config, resume=options.resume, stop=_StopFlag(), make_form=make_form)
    if result is None:
        return 0
    scores = write_model_card(result)
    if options.json:
        facts = {
            "weights": str(result.weights),
            "step": result.step,
            "finished": result.finished,
            "trained_s": result.trained_s,
            "best_psnr_y_db": result.best_psnr_y_db,
            "test": {name: dataclasses.asdict(quality) for name, quality in scores.items()},
        }
        print(json_text(facts))
        return 0
    if not result.finished:
        progress(
            f"stopped at step {result.step} of {config.steps}; "
            f"go on with: swise-train --resume --out {config.out}"
        )
    print(f"{result.weights}")
    return 0


def _config(options: argparse.Namespace) -> TrainConfig:
    flags = _settings_from_flags(options)
    if options.resume:
        if options.recipe or options.config:
            raise InputError(
                "--resume with --recipe or --config; a resumed run keeps the settings that it "
                "began with. Change single ones by flags"
            )
        return _resumed_config(flags)
    layers: dict[str, dict[str, object]] = {}
    if options.recipe:
        source = f"recipe {options.recipe}"
        layers[source] = settings_from_toml(recipe_text(options.recipe), source=source)
    if options.config:
        layers[str(options.config)] = settings_from_file(options.config)
    return config_from_layers({**layers, "flags": flags})


def _resumed_config(flags: dict[str, object]) -> TrainConfig:
    from swise_deploy.training.run.run_files import read_config  # torch, after parsing

    if "out" not in flags:
        raise InputError("--resume needs the folder of the run. Give --out DIR")
    out = Path(str(flags["out"]))
    stored = read_config(out)
    kept = {f.name: getattr(stored, f.name) for f in dataclasses.fields(stored)}
    wanted = config_from_layers({str(out): kept, "flags": flags})
    for change in refuse_other_run(stored, wanted):
        progress(change)
    return wanted


def _settings_from_flags(options: argparse.Namespace) -> dict[str, object]:
    names = [f.name for f in dataclasses.fields(TrainConfig)]
    given = {name: getattr(options, name, None) for name in names}
    settings: dict[str, object] = {
        name: value for name, value in given.items() if value not in (None, [])
    }
    for name in ("weight_norm", "init_exclude"):
        if isinstance(text := settings.get(name), str):
            settings[name] = [part for part in text.split(",") if part]
    return settings


class _StopFlag:
    """Set by the first Ctrl-C or SIGTERM; the second one interrupts at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()
        progress("stopping after this step; once more to stop at once")

    def __call__(self) -> bool:
        return self._asked.is_set()


if __name__ == "__main__":
    sys.exit(main())
