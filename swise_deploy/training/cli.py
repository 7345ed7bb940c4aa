"""swise-train: flags to settings; config.py explains the settings."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from swise_deploy.command.console import add_version, progress, run_command
from swise_deploy.command.dependencies import require
from swise_deploy.command.options import CommandParser, add_old_spelling
from swise_deploy.storage.files import json_text
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.settings import recipe_names, recipe_text
from swise_deploy.training.signals import STOPPED, StopSignals
from swise_deploy.training.step.allocator import keep_freed_memory

if TYPE_CHECKING:
    from swise_deploy.training.command import TrainReport
    from swise_deploy.training.start.trained_form import MakeForm

_EXAMPLES = f"""\
examples:
  swise-train --data DIV2K -o runs/x2 --recipe quick-cpu
  swise-train --data DIV2K --data Flickr2K --data-weights 1,3 --val Set5/HR -o runs/df2k
  swise-train --data HR --lr-images LR -o runs/pairs --model fsrcnn
  swise-train --data HR --degradation noise-jpeg -o runs/jpeg --model fsrcnn
  swise-train --data Set5/HR --degradation noise-jpeg --write-lr Set5/LR_jpeg
  swise-train --data HR -o runs/mine --model mynetwork:make --scale 4
  swise-train --resume -o runs/x2 --steps 20000

Settings come from the defaults, then --recipe, then --config, then flags; later ones win.
--show-recipe prints a recipe to copy and change. Several processes or machines: torchrun.

exit codes: 0 done, 1 failed, 2 usage, 3 a package is missing, 130 and 143 interrupted before the
first step, {STOPPED} stopped and saved before the last one by Ctrl-C, SIGTERM, SIGUSR1 or
--max-minutes: go on with --resume.
"""

# Flags that stand for a setting of TrainConfig, by group.
_HELP: dict[str, dict[str, str]] = {
    "data": {
        "data": "folder of training pictures, with its subfolders; may be repeated (required)",
        "data_weights": "shares of the crops from each --data, as in 1,3 (default: all alike)",
        "lr": "the LR pictures of each --data, matched by name (default: MATLAB's bicubic)",
        "degradation": "how LR crops are made: noise-jpeg, real-esrgan or a TOML file of steps",
        "val": "folder to validate on; may be repeated (default: --holdout pictures of --data)",
        "val_lr": "the LR pictures of each --val",
        "holdout": "pictures held out of --data for validation (default: 8)",
        "val_crop": "validate on centre crops of this side in HR pixels; 0: whole pictures",
        "test": "folder scored once, at the end, for the model card; may be repeated",
        "test_lr": "the LR pictures of each --test",
        "patch_size": "side of a crop in LR pixels (default: 48)",
        "batch_size": "crops per step, over all processes together (default: 16)",
        "workers": "threads that prepare batches (default: 2)",
        "cache": "folder for decoded pictures (default: the user's cache)",
    },
    "network": {
        "model": "a network by name, package.module:factory, or spandrel with --init "
        "(default: swisenet)",
        "scale": "output size over input size (default: 2)",
        "option": "its variant; for SwiseNet the SUM's branches, as in magnify+equal, or no_sum",
        "upsampler": "'sum' puts SwiseNet's upsampler into another network",
        "init": "weights to start from, of any scale",
        "init_exclude": "patterns of tensors that --init does not give, comma-separated",
        "teacher": "weights of a network to learn from as well, at this scale or a larger one; "
        "may be repeated",
        "teacher_share": "share of the loss that is the distance to the teachers (default: 0.7)",
        "qat": "precision plan of swise-export --int8: learn the output of --init, in INT8",
        "weight_norm": "patterns of modules to train weight-normalised, comma-separated",
    },
    "optimisation": {
        "steps": "optimiser steps of the whole run (default: 10000)",
        "learning_rate": "after the warm-up (default: 1e-3)",
        "schedule": "of the learning rate (default: cosine)",
        "warmup_steps": "steps of linear growth (default: 0)",
        "loss": "mse and psnr are to finish with (default: l1)",
        "optimizer": "(default: adamp)",
        "clip_norm": "largest norm of the gradients; 0 does not clip (default: 10)",
        "ema_decay": "of the averaged weights; 0 averages nothing (default: 0.999)",
        "patience": "end early after so many validations without a better one; 0: never",
        "seed": "of fresh weights, crops and degradations (default: 0)",
    },
    "machine": {
        "precision": "number format; auto measures what is faster (default: auto)",
        "accelerator": "auto, cpu, cuda or mps (default: auto)",
        "devices": "processes per machine; torchrun sets it (default: 1)",
        "num_nodes": "machines; torchrun sets it (default: 1)",
    },
    "saving": {
        "max_minutes": "stop cleanly after so long, with exit code 75; 0: no limit",
        "log_every": "steps between log records (default: 20)",
        "save_every": "steps between saves: the most that a kill can cost (default: 100)",
        "val_every": "steps between validations (default: 500)",
        "keep": "keep the weights of so many latest validations too (default: 0)",
        "track": "send the numbers to wandb or mlflow as well; may be repeated",
    },
}

_SWITCHES = {
    "teacher_ensemble": "teachers upscale a picture in its 8 orientations: better, 8 times as slow",
    "channels_last": "batches in NHWC memory order",
    "compile": "train through torch.compile",
    "cuda_graph": "replay the passes of a step as a CUDA graph, on one GPU",
    "tensorboard": "write TensorBoard events beside the JSONL log",
}

_REPEATED = frozenset({"data", "lr", "val", "val_lr", "test", "test_lr", "teacher", "track"})
# Spelt as in the other commands, or alike; the settings keep their names.
_NEW_FLAGS = {"lr": "--lr-images", "val_lr": "--val-lr-images", "test_lr": "--test-lr-images"}
_COMMA_SEPARATED = frozenset({"weight_norm", "init_exclude", "data_weights"})


def main(arguments: Sequence[str] | None = None, *, make_form: "MakeForm | None" = None) -> int:
    """Run `swise-train`; `make_form` makes the trained form for --qat. Returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options, make_form))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="swise-train",
        usage="swise-train --data DIR -o DIR [options]",
        description="Train a super-resolution network on folders of pictures.",
        epilog=_EXAMPLES,
    )
    add_version(parser)
    output = parser.add_argument(
        "-o",
        "--output",
        dest="out",
        metavar="DIR",
        help="folder for weights, state, logs and model card (required)",
    )
    add_old_spelling(parser, "--out", output)
    parser.add_argument("--recipe", metavar="NAME", help=f"one of {', '.join(recipe_names())}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument("--show-recipe", action="store_true", help="print the recipe and stop")
    parser.add_argument(
        "--write-lr",
        type=Path,
        metavar="DIR",
        help="write the LR pictures that --degradation makes of --data, and stop",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    types = get_type_hints(TrainConfig)
    for title, flags in _HELP.items():
        group = parser.add_argument_group(title)
        for name, text in flags.items():
            convert = types[name] if types[name] in (int, float) else str
            option = group.add_argument(
                _NEW_FLAGS.get(name, _flag(name)),
                dest=name,
                type=convert,
                action="append" if name in _REPEATED else "store",
                metavar=_metavar(name, types[name]),
                help=text,
            )
            if name in _NEW_FLAGS:
                add_old_spelling(group, _flag(name), option)
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


def _metavar(name: str, hint: object) -> str:
    if hint in (int, float):
        return "N"
    if name in ("init", "qat", "teacher"):
        return "FILE"
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    return "DIR" if "Path" in str(hint) else "X"


def _run(options: argparse.Namespace, make_form: "MakeForm | None") -> int:
    if options.show_recipe:
        sys.stdout.write(recipe_text(options.recipe or "quick-cpu"))
        return 0
    # Threads that wait for each other sleep instead of spinning: on a machine that does other work
    # as well, spinning made a step on 2 cores 3 to 4 times slower. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    require("swise_deploy.training.loop", extra="train", purpose="training")
    from swise_deploy.training.command import (  # torch, after parsing
        TrainCommand,
        run_training,
        write_lr,
    )

    command = TrainCommand(
        settings=_settings_from_flags(options),
        recipe=options.recipe or "",
        config=options.config,
        resume=options.resume,
        write_lr=options.write_lr,
    )
    if command.write_lr is not None:
        print(f"{write_lr(command)} pictures in {command.write_lr}")
        return 0
    report = run_training(command, signals=StopSignals(), make_form=make_form)
    return 0 if report is None else _print(report, as_json=options.json)


def _print(report: "TrainReport", *, as_json: bool) -> int:
    result = report.result
    if as_json:
        facts = {
            "weights": str(result.weights),
            "step": result.step,
            "finished": result.finished,
            "trained_s": result.trained_s,
            "best_psnr_y_db": result.best_psnr_y_db,
            "test": {name: dataclasses.asdict(scores) for name, scores in report.test.items()},
        }
        print(json_text(facts))
    else:
        print(f"{result.weights}")
    if result.finished:
        return 0
    progress(
        f"stopped at step {result.step} of {result.config.steps}; "
        f"go on with: swise-train --resume -o {result.config.out}"
    )
    return STOPPED


def _settings_from_flags(options: argparse.Namespace) -> dict[str, object]:
    names = [f.name for f in dataclasses.fields(TrainConfig)]
    given = {name: getattr(options, name, None) for name in names}
    settings: dict[str, object] = {name: v for name, v in given.items() if v is not None}
    for name in _COMMA_SEPARATED & settings.keys():
        parts = [part.strip() for part in str(settings[name]).split(",") if part.strip()]
        settings[name] = [_number(p) for p in parts] if name == "data_weights" else parts
    return settings


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # refused with the name of the setting


if __name__ == "__main__":
    sys.exit(main())
