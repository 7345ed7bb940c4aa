"""Draws LR, SwiseNet fp32, fp16 and their difference side by side, on a shipped sample.

python bench/scripts/docs/fp16_picture.py OUT.png
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swise_deploy.checkpoints.load import open_network
from swise_deploy.command.console import run_command
from swise_deploy.evaluation.metrics import psnr, quality
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.runner import upscale
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.files import writing
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import export_onnx

SCALE = 4
ZOOM = 2
GAIN = 60
SAMPLE = "dog"


def main() -> int:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT.png")
    out = parser.parse_args().out
    return run_command(lambda: _draw(out))


def _draw(out: Path) -> int:
    path = next(path for path in sample_paths() if path.stem == SAMPLE)
    pair = pair_from_hr(path.name, read_rgb(path), SCALE)
    network = open_network("swisenet", scale=SCALE)
    with tempfile.TemporaryDirectory() as folder, TorchRunner(network) as reference:
        fp32 = upscale(reference, pair.lr)
        artefact = Path(folder) / "fp16.onnx"
        export_onnx(network, artefact, precision="fp16", range_images=[pair.lr])
        with OnnxRunner(artefact, as_device=True) as runner:
            fp16 = upscale(runner, pair.lr)
    difference = np.abs(fp16.astype(int) - fp32)
    scores = [quality(sr, pair.hr, border=SCALE).psnr_y_db for sr in (fp32, fp16)]
    apart = psnr(fp16.astype(np.float64), fp32.astype(np.float64))
    panels = [
        (f"LR {pair.lr.shape[1]}x{pair.lr.shape[0]}", pair.lr),
        (f"SwiseNet x{SCALE} fp32, {scores[0]:.2f} dB", fp32),
        (f"fp16, {scores[1]:.2f} dB", fp16),
        (
            f"|fp16 - fp32| x {GAIN}: {apart:.1f} dB, max {difference.max()}",
            np.minimum(difference * GAIN, 255).astype(np.uint8),
        ),
    ]
    side, text, gap = fp32.shape[0] * ZOOM, 28, 8
    sheet = Image.new("RGB", (len(panels) * (side + gap) - gap, side + text), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for i, (title, image) in enumerate(panels):
        left = i * (side + gap)
        panel = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(panel, (left, text))
        pen.text((left + 4, 5), title, fill="black", font=font)
    with writing(out) as temporary:
        sheet.save(temporary, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
