"""The README's two pictures: a crop by LR, bicubic, SwiseNet and HR; bars of speed against rivals.

    python bench/scripts/docs/readme_pictures.py docs/images \
        bench/results/latency/speed_*_x[24].json

Writes upscaled.png, from a shipped sample, and speed.png, from what `bench/scripts/speed.py` wrote.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swise_deploy.checkpoints.load import open_network
from swise_deploy.command.console import run_command
from swise_deploy.command.dependencies import require
from swise_deploy.evaluation.metrics import quality
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.pictures.imresize import imresize
from swise_deploy.runner import upscale
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.documents import read_document
from swise_deploy.storage.files import writing

SAMPLE = "guitar"
SCALE = 4
CROP = (36, 20, 148, 132)  # left, top, right, bottom in HR pixels; multiples of SCALE
ZOOM = 4
GAP, CAPTION = 10, 40

LABELS = {
    "plain": "plain torch.onnx.export, ONNX Runtime",
    "compile": "torch.compile",
    "torch": "torch eager",
    "deploy-ncnn": "this export, ncnn",
    "plain-openvino": "plain export, OpenVINO",
    "deploy": "this export, ONNX Runtime",
    "deploy-openvino": "this export, OpenVINO",
}
OURS = "#1a7f64"
RIVALS = "#9aa5b1"


@dataclass(frozen=True, slots=True)
class Bar:
    """One runner's time, relative to the reference of its run, with its 95% interval."""

    kind: str
    times: float
    low: float
    high: float


def main() -> int:
    """Write both pictures into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    options = parser.parse_args()
    return run_command(lambda: _run(options.folder, options.results))


def _run(folder: Path, results: Sequence[Path]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    _save_png(_crops(), folder / "upscaled.png")
    _draw_bars({path: _read_bars(path) for path in results}, folder / "speed.png")
    return 0


def _crops() -> Image.Image:
    path = next(path for path in sample_paths() if path.stem == SAMPLE)
    pair = pair_from_hr(path.name, read_rgb(path), SCALE)
    bicubic = np.asarray(imresize(pair.lr, Fraction(SCALE)), np.uint8)
    with TorchRunner(open_network("swisenet", scale=SCALE)) as runner:
        swisenet = upscale(runner, pair.lr)
    lr = pair.lr.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    panels = [
        (f"input, {pair.lr.shape[1]}x{pair.lr.shape[0]}", "", lr),
        ("bicubic", _score_text(bicubic, pair.hr), bicubic),
        (f"SwiseNet x{SCALE}", _score_text(swisenet, pair.hr), swisenet),
        (f"original, {pair.hr.shape[1]}x{pair.hr.shape[0]}", "", pair.hr),
    ]
    left, top, right, bottom = CROP
    width, height = (right - left) * ZOOM, (bottom - top) * ZOOM
    sheet = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, score, picture) in enumerate(panels):
        x = index * (width + GAP)
        crop = Image.fromarray(picture[top:bottom, left:right])
        sheet.paste(crop.resize((width, height), Image.Resampling.NEAREST), (x, 0))
        pen.text((x + 2, height + 8), name, fill="#111", font=ImageFont.load_default(24))
        if score:
            font = ImageFont.load_default(24)
            pen.text((x + width - 2, height + 8), score, fill="#555", font=font, anchor="ra")
    return sheet


def _score_text(sr: RgbImage, hr: RgbImage) -> str:
    return f"{quality(sr, hr, border=SCALE).psnr_y_db:.1f} dB"


def _read_bars(path: Path) -> list[Bar]:
    advice = "Make them with bench/scripts/speed.py"
    document = read_document(path, dict[str, Any], what="the results", advice=advice)
    reference = document["ratios"][0]["reference"]
    bars = [Bar(reference.partition("@")[2], 1.0, 1.0, 1.0)]
    for ratio in document["ratios"]:
        slower = ratio["times_slower"]
        kind = ratio["subject"].partition("@")[2]
        bars.append(Bar(kind, slower["value"], slower["low"], slower["high"]))
    return sorted(bars, key=lambda bar: -list(LABELS).index(bar.kind))


def _draw_bars(runs: dict[Path, list[Bar]], out: Path) -> None:
    matplotlib = require("matplotlib", extra="export", purpose="a chart")
    matplotlib.use("Agg")
    figures = require("matplotlib.figure", extra="export", purpose="a chart")
    figure = figures.Figure(figsize=(3.2 + 2.2 * len(runs), 2.9), dpi=200, layout="constrained")
    for axis, (path, bars) in zip(
        figure.subplots(1, len(runs), sharey=True), runs.items(), strict=True
    ):
        positions = range(len(bars))
        colours = [OURS if bar.kind.startswith("deploy") else RIVALS for bar in bars]
        errors = [[b.times - b.low for b in bars], [b.high - b.times for b in bars]]
        axis.barh(positions, [bar.times for bar in bars], color=colours, height=0.72)
        axis.errorbar(
            [bar.times for bar in bars], positions, xerr=errors, fmt="none", ecolor="#333", lw=1
        )
        for position, bar in zip(positions, bars, strict=True):
            axis.text(bar.high + 0.15, position, f"{bar.times:.2f}", va="center", fontsize=9)
        axis.set_yticks(positions, [LABELS[bar.kind] for bar in bars], fontsize=9)
        axis.set_xlim(0, 1.16 * max(bar.high for bar in bars))
        axis.set_title(f"SwiseNet {path.stem.rpartition('_')[2]}", fontsize=10, loc="left")
        axis.tick_params(axis="both", length=0, labelsize=9)
        axis.set_xticks([])
        for side in ("top", "right", "bottom", "left"):
            axis.spines[side].set_visible(False)
    figure.supxlabel("time relative to this export in ONNX Runtime; shorter is faster", fontsize=9)
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        _save_png(Image.open(buffer).convert("RGB"), out)


def _save_png(picture: Image.Image, out: Path) -> None:
    with writing(out) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
