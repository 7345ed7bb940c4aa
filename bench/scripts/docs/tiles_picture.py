"""Draws docs/images/tiles.png: tiles beside the full frame, and how they differ from it.

    python bench/scripts/docs/tiles_picture.py --out docs/images/tiles.png

SwiseNet x2 on a shipped photograph of 192x192, in tiles of 64: by default, and with --exact.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from swise_deploy.command.console import run_command
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.storage.files import writing
from swise_engines.upscaling.upscaler import Upscaler

TILE = 64
GAIN = 16
_HEADER = 16
_GAP = 4
_SHOWN = 256  # the lower right corner


def main() -> int:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--picture", type=Path, help="instead of the shipped one")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG")
    arguments = parser.parse_args()
    picture = arguments.picture or next(p for p in sample_paths() if p.stem == "city")
    return run_command(lambda: _run(picture, arguments.out))


def _run(picture: Path, out: Path) -> int:
    image = read_rgb(picture)
    whole, tiled = _upscaled(image, 1 << 16), _upscaled(image, TILE)
    exact = _upscaled(image, TILE, exact=True)
    panels = {
        "full frame": whole,
        f"tiles of {TILE}": tiled,
        f"tiles: difference x{GAIN}, up to {_largest(tiled, whole)}": _difference(tiled, whole),
        f"--exact: difference x{GAIN}, up to {_largest(exact, whole)}": _difference(exact, whole),
    }
    height, width = (min(side, _SHOWN) for side in whole.shape[:2])
    sheet = Image.new("RGB", ((width + _GAP) * len(panels) - _GAP, height + _HEADER), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (title, panel) in enumerate(panels.items()):
        draw.text((place * (width + _GAP), 2), title, fill="black")
        shown = np.ascontiguousarray(panel[-height:, -width:])
        sheet.paste(Image.fromarray(shown), (place * (width + _GAP), _HEADER))
    with writing(out) as temporary:
        sheet.quantize(128, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)
    return 0


def _upscaled(image: NDArray[np.uint8], tile: int, *, exact: bool = False) -> NDArray[np.uint8]:
    with Upscaler.open("swisenet:2", runner="onnxruntime", tile=tile, exact=exact) as upscaler:
        return upscaler(image)


def _largest(sr: NDArray[np.uint8], whole: NDArray[np.uint8]) -> int:
    return int(np.abs(sr.astype(int) - whole).max())


def _difference(sr: NDArray[np.uint8], whole: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Amplified, around mid grey."""
    return np.clip(128 + GAIN * (sr.astype(int) - whole), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
