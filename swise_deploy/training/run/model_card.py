"""The model card of a run: README.md and curve.png beside the weights."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from swise_deploy.command.dependencies import require
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.pictures.folders import printable
from swise_deploy.storage.files import writing
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.run.display import clock
from swise_deploy.training.run.run_files import read_log
from swise_deploy.training.run.testing import TestScores, test_scores
from swise_deploy.training.settings import toml_from_config
from swise_deploy.training.start.trained_form import PLAN_NAME
from swise_deploy.training.state import TrainResult


def write_model_card(result: TrainResult) -> dict[str, TestScores]:
    """Write README.md and curve.png; score a finished run on its test folders before.

    Returns:
        Mean quality on each test folder, by its name; empty for a run that is to go on.

    Raises:
        InputError: A test folder cannot be used.
        BackendMissingError: matplotlib is not installed.
        OutputError: The run's folder cannot be written.
    """
    scores = test_scores(result) if result.finished else {}
    out = result.config.out
    records = read_log(out)
    draw_curve(records, out / "curve.png")
    with writing(out / "README.md") as temporary:
        temporary.write_text(card_text(result, records, scores), encoding="utf-8")
    return scores


def card_text(
    result: TrainResult, records: Sequence[Mapping[str, Any]], scores: Mapping[str, TestScores]
) -> str:
    """The model card as Markdown.

    Args:
        result: Where the run stands.
        records: Its log.
        scores: Mean quality by test set.
    """
    config = result.config
    known = NETWORKS.get(config.model)
    network = known.title if known is not None else f"{result.name} ({config.model})"
    published = f": {known.paper}" if known is not None else ""
    speeds = [r["steps_per_s"] for r in records if r["kind"] == "train"]
    speed = f"{sorted(speeds)[len(speeds) // 2]:.3g} step/s" if speeds else "unknown"
    reached = "all" if result.finished else f"stopped after {result.step}"
    skipped = "".join(f"- {name}: {reason}\n" for name, reason in result.skipped.items())
    sections = [
        f"# {network} x{config.scale}",
        (
            f"`{result.weights.name}`{published}. Input (N, 3, H, W), RGB in [0, 1]; output "
            f"{config.scale} times as high and wide."
        ),
        _results(result, scores),
        "![Loss and validation PSNR-Y over the steps](curve.png)",
        (
            "## Training\n\n"
            f"- Steps: {config.steps} ({reached}); {clock(result.trained_s)} h of training, median "
            f"{speed}\n"
            f"- Precision: {config.precision}, {result.precision_reason}\n"
            f"- Machine: {platform.machine()}, torch {torch.__version__}, Python "
            f"{platform.python_version()}\n"
            f"- Started from {printable(config.init.name) if config.init else 'random weights'}\n"
            f"- Loss: {config.loss}\n"
            f"{_teachers_line(config)}"
            f"- Averaged weights (decay {config.ema_decay:g}) are what is saved"
        ),
        f"## Data\n\n{result.num_pictures} pictures trained on, {result.num_validation} validated "
        f"on; content {result.data_key}. {_lr_line(config)}"
        + (f" Left out:\n\n{skipped}" if skipped else ""),
        (
            "## Settings\n\n"
            "`swise-train --config settings.toml --data DIR -o DIR` with these settings:\n\n"
            f"```toml\n{_shareable_settings(config)}```"
        ),
        f"## Use\n\n```\n{_export_command(result)}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _export_command(result: TrainResult) -> str:
    config = result.config
    precision = "--fp16" if config.qat is None else f"--int8 --precision-plan {PLAN_NAME}"
    model = "" if config.model in NETWORKS else f"--model {shlex.quote(config.model)} "
    return f"swise-export {model}--weights {shlex.quote(result.weights.name)} {precision}"


def _teachers_line(config: TrainConfig) -> str:
    if config.teacher:
        names = ", ".join(printable(file.name) for file in config.teacher)
        how = ", each in 8 orientations" if config.teacher_ensemble else ""
        return (
            f"- Learnt {config.teacher_share:.0%} from the mean of the pictures of {names}{how}, "
            "the rest from the HR pictures\n"
        )
    if config.qat is None:
        return ""
    return (
        f"- Learnt to give what these weights give in fp32, rounded to INT8 by {config.qat.name}\n"
    )


def _shareable_settings(config: TrainConfig) -> str:
    """The settings less the folders of the machine that it ran on."""
    own = {
        "data",
        "lr",
        "out",
        "cache",
        "val",
        "val_lr",
        "test",
        "test_lr",
        "init",
        "teacher",
        "qat",
    }
    lines = toml_from_config(config).splitlines(keepends=True)
    return "".join(line for line in lines if line.split(" =")[0] not in own)


def _lr_line(config: TrainConfig) -> str:
    if config.lr:
        return "LR pictures: the user's own."
    if config.degradation:
        return f"LR crops: made by the degradation {printable(Path(config.degradation).stem)}."
    return "LR pictures: MATLAB's bicubic."


def _results(result: TrainResult, scores: Mapping[str, TestScores]) -> str:
    rows = [
        f"| {printable(name)} | {s.psnr_y_db:.2f} | {s.ssim_y:.4f} | {s.psnr_rgb_db:.2f} | "
        f"{s.bicubic_psnr_y_db:.2f} | {'own' if s.own_lr else 'bicubic'} |"
        for name, s in scores.items()
    ]
    best = result.best_psnr_y_db
    lines = ["## Results"]
    if best is not None:
        lines.append(
            f"Validation, by which these weights were chosen: PSNR-Y {best:.3f} dB on "
            f"{result.num_validation} pictures that were not trained on."
        )
    if rows:
        table = [
            "| test set | PSNR-Y (dB) | SSIM-Y | PSNR-RGB (dB) | bicubic PSNR-Y (dB) | LR |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
        lines.append(
            "Test sets, scored once at the end, having chosen nothing (LR by MATLAB's bicubic or "
            "the set's own, 8-bit output, BT.601 luma, border "
            f"{result.config.scale} left out):\n\n" + "\n".join(table)
        )
    if len(lines) == 1 and not result.finished:
        lines.append("The run is not finished.")
    elif len(lines) == 1:
        lines.append("Neither validated nor tested: give --val or --holdout, and --test.")
    return "\n\n".join(lines)


def draw_curve(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and validation PSNR-Y over the steps as a PNG.

    Raises:
        BackendMissingError: matplotlib is not installed.
    """
    purpose = "drawing the training curve"
    figures = require("matplotlib.figure", extra="train", purpose=purpose)
    figure = figures.Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    train = [r for r in records if r["kind"] == "train"]
    axes.plot([r["step"] for r in train], [r["loss"] for r in train], color="tab:blue", lw=0.8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss", color="tab:blue")
    if all(r["loss"] > 0 for r in train):  # minus a PSNR is in dB already
        axes.set_yscale("log")
    val = [r for r in records if r["kind"] == "val"]
    if val:
        right = axes.twinx()
        right.plot(
            [r["step"] for r in val], [r["psnr_y_db"] for r in val], color="tab:orange", marker="."
        )
        right.set_ylabel("validation PSNR-Y (dB)", color="tab:orange")
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120)
