"""Gain of the SUM at an equal budget, in SwiseNet or in another network's head.

    python bench/scripts/sum_ablation.py --data DIR --out DIR --scale 2 --steps 2000 [--test DIR]
    python bench/scripts/sum_ablation.py --model carn_m --init FILE ...

SwiseNet is trained with the plain head and with every combination of branches, another network with
its own head and with the whole SUM. Same pictures, crops, seed, steps and learning rates for all;
the body starts from the same weights (--init; `--init none`: random ones), the head is fresh.
Writes sum_ablation.md, .png, .json. A variant that is finished is not trained again, so that an
interrupted ablation goes on.
"""

import argparse
import copy
import dataclasses
import itertools
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from swise_deploy.checkpoints.load import open_network
from swise_deploy.checkpoints.shipped import shipped_weights
from swise_deploy.command.console import progress, run_command
from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import mean_quality
from swise_deploy.networks.parts.scale_wise import BRANCHES
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.storage.files import write_json, writing
from swise_deploy.timing import ratio, time_calls
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.loop import train
from swise_deploy.training.run.run_files import read_config, read_log, read_state, state_path
from swise_deploy.training.run.validation import pairs_from_folder, score_network

SWISENET = "swisenet"
PLAIN_HEAD = "no_sum"
WITH_SUM = "sum"
# What SUM replaces, by any of the networks' names: `upsampler`, CARN's `upsample` and `exit`.
HEAD = ("upsample*", "exit.*")
HR_SIZE = (1280, 720)
# A variant so far below the median would press the others onto a line.
_OFF_THE_PICTURE_DB = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Quality and cost of one variant.

    Attributes:
        variant: Branches joined by "+", "sum" or "no_sum".
        val_psnr_y_db: On held-out training pictures.
        test_psnr_y_db: By test set.
        params: Of the whole network.
        mult_adds_g: At a 1280x720 output, convolutions only.
        latency_ratio: Of eager torch on this machine, to the plain head's.
    """

    variant: str
    val_psnr_y_db: float
    test_psnr_y_db: dict[str, float]
    params: int
    mult_adds_g: float
    latency_ratio: float


_MODELS = [SWISENET, *(n for n, known in NETWORKS.items() if "sum" in known.upsamplers)]


@dataclasses.dataclass(frozen=True, slots=True)
class AblationConfig:
    """One ablation.

    Attributes:
        data: Training pictures.
        out: Folder of the runs and the table.
        model: Name in the registry.
        scale: Output size over input size.
        steps: Training steps of each variant.
        batch_size: Crops a step.
        patch_size: Side of a crop, in LR pixels.
        seed: Seed of weights and crops.
        init: Weights of the body, "none" for random ones, "" for the shipped ones of SwiseNet.
        test: Folders to score on.
        holdout: Training pictures held out for validation.
        cache: Cache folder of the training pictures.
    """

    data: Path
    out: Path
    model: str
    scale: int
    steps: int
    batch_size: int
    patch_size: int
    seed: int
    init: str
    test: tuple[Path, ...]
    holdout: int
    cache: Path | None


def main() -> int:
    """Train and measure every variant, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and the table")
    parser.add_argument("--model", choices=_MODELS, default=SWISENET)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--patch-size", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", default="", help="weights of the body (SwiseNet: shipped ones)")
    parser.add_argument("--test", type=Path, action="append", default=[], help="folder to score on")
    parser.add_argument("--holdout", type=int, default=8)
    parser.add_argument("--cache", type=Path, default=None)
    options = parser.parse_args()
    config = AblationConfig(
        data=options.data,
        out=options.out,
        model=options.model,
        scale=options.scale,
        steps=options.steps,
        batch_size=options.batch_size,
        patch_size=options.patch_size,
        seed=options.seed,
        init=options.init,
        test=tuple(options.test),
        holdout=options.holdout,
        cache=options.cache,
    )
    return run_command(lambda: _run(config))


def variants(model: str) -> list[str]:
    """The plain head, then every non-empty combination of branches, or the whole SUM."""
    if model != SWISENET:
        return [PLAIN_HEAD, WITH_SUM]
    combinations = itertools.chain.from_iterable(
        itertools.combinations(BRANCHES, count) for count in range(1, len(BRANCHES) + 1)
    )
    return [PLAIN_HEAD, *("+".join(combination) for combination in combinations)]


def mult_adds_g(network: nn.Module, scale: int) -> float:
    """Mult-Adds in G at a 1280x720 output, LR sides rounded up; torch counts 2 for each."""
    height, width = -(-HR_SIZE[1] // scale), -(-HR_SIZE[0] // scale)
    network = copy.deepcopy(network).to("meta")
    with torch.device("meta"), torch.no_grad():
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.empty(1, 3, height, width))
    return counter.get_total_flops() / 2e9


def _run(config: AblationConfig) -> int:
    weights = {}
    for variant in variants(config.model):
        training = _training(config, variant)
        resume = state_path(training.out).exists()
        if not resume or read_state(training.out).progress.step < training.steps:
            progress(f"--- {variant}")
            train(read_config(training.out) if resume else training, resume=resume)
        weights[variant] = training.out / "last.safetensors"
    rows = _measure(config, weights)
    document = {
        "model": config.model,
        "scale": config.scale,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "patch_size": config.patch_size,
        "seed": config.seed,
        "init": Path(config.init).name or "shipped weights",
        "torch": torch.__version__,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_json(config.out / "sum_ablation.json", document)
    table = table_text(rows, config)
    with writing(config.out / "sum_ablation.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    _draw(rows, config.out / "sum_ablation.png")
    sys.stdout.write(table)
    return 0


def _training(config: AblationConfig, variant: str) -> TrainConfig:
    own = config.model == SWISENET
    init: Path | None = Path(config.init) if config.init else None
    if init is None and own:
        init = shipped_weights(SWISENET, config.scale)
    if config.init == "none":
        init = None
    elif init is None:
        raise InputError(f"no weights of {config.model} are shipped: give --init FILE or none")
    return TrainConfig(
        data=config.data,
        out=config.out / variant,
        scale=config.scale,
        model=config.model,
        option=variant if own else "",
        upsampler="sum" if variant == WITH_SUM else "default",
        init=init,
        init_exclude=HEAD,
        steps=config.steps,
        batch_size=config.batch_size,
        patch_size=config.patch_size,
        seed=config.seed,
        optimizer="adam",
        learning_rate=6e-4,
        warmup_steps=min(50, config.steps // 10),
        clip_norm=1.0,
        ema_decay=0.998,
        holdout=config.holdout,
        val_crop=240,
        val_every=config.steps,
        save_every=max(1, min(100, config.steps // 4)),
        cache=config.cache,
        tensorboard=False,
    )


def _measure(config: AblationConfig, weights: dict[str, Path]) -> list[Row]:
    cpu = torch.device("cpu")
    networks = {
        variant: open_network(scale=config.scale, weights=path).module
        for variant, path in weights.items()
    }
    lr = torch.rand(1, 3, 90, 160)

    def call(variant: str) -> object:
        with torch.inference_mode():
            return networks[variant](lr)

    calls: dict[str, Callable[[], object]] = {v: partial(call, v) for v in networks}
    timings = time_calls(calls, max_seconds=60)
    sets = {
        (f.parent if f.name == "HR" else f).name: pairs_from_folder(f, config.scale)
        for f in config.test
    }
    rows = []
    for variant, network in networks.items():
        val = [r for r in read_log(config.out / variant) if r["kind"] == "val"]
        scores = {
            name: mean_quality(score_network(network, pairs, config.scale, device=cpu))
            for name, pairs in sets.items()
        }
        rows.append(
            Row(
                variant=variant,
                val_psnr_y_db=val[-1]["psnr_y_db"],
                test_psnr_y_db={name: score.psnr_y_db for name, score in scores.items()},
                params=sum(p.numel() for p in network.parameters()),
                mult_adds_g=mult_adds_g(network, config.scale),
                latency_ratio=ratio(timings[variant], timings[PLAIN_HEAD]).value,
            )
        )
    return rows


def table_text(rows: list[Row], config: AblationConfig) -> str:
    """The table as Markdown, with how it was obtained above it."""
    sets = list(rows[0].test_psnr_y_db)
    head = ["upsampler", "val PSNR-Y", *sets, "params (K)", "Mult-Adds (G)", "latency"]
    lines = [
        (
            f"{NETWORKS[config.model].title} x{config.scale}, {config.steps} steps of "
            f"{config.batch_size} crops of {config.patch_size} LR pixels, seed {config.seed}; "
            "the body starts from "
            f"{'random weights' if config.init == 'none' else 'the same trained weights'}, every "
            "head from random ones. PSNR-Y in dB (validation: centre crops of held-out "
            "training pictures). Mult-Adds at a 1280x720 output, convolutions only. Latency: eager "
            "torch on one CPU, LR 160x90, as a ratio to the plain head within the same rounds."
        ),
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for row in rows:
        name = "plain PixelShuffle" if row.variant == PLAIN_HEAD else row.variant
        cells = [
            name,
            f"{row.val_psnr_y_db:.3f}",
            *(f"{row.test_psnr_y_db[s]:.3f}" for s in sets),
            f"{row.params / 1e3:.0f}",
            f"{row.mult_adds_g:.1f}",
            f"{row.latency_ratio:.2f}x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _draw(rows: list[Row], path: Path) -> None:
    figures = require("matplotlib.figure", extra="train", purpose="drawing the ablation")
    figure = figures.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    middle = statistics.median(row.val_psnr_y_db for row in rows)
    shown = [row for row in rows if row.val_psnr_y_db > middle - _OFF_THE_PICTURE_DB]
    for i, row in enumerate(sorted(shown, key=lambda row: row.mult_adds_g)):
        axes.scatter(row.mult_adds_g, row.val_psnr_y_db, color="tab:blue")
        axes.annotate(
            row.variant,
            (row.mult_adds_g, row.val_psnr_y_db),
            textcoords="offset points",
            xytext=(0, -12 if i % 2 else 6),
            ha="center",
            fontsize=8,
        )
    axes.margins(0.15)
    below = [f"{r.variant}: {r.val_psnr_y_db:.2f} dB" for r in rows if r not in shown]
    if below:
        axes.set_title(f"below the picture: {', '.join(below)}", fontsize=8, loc="left")
    axes.set_xlabel("Mult-Adds at a 1280x720 output (G)")
    axes.set_ylabel("validation PSNR-Y (dB)")
    axes.grid(alpha=0.3)
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
