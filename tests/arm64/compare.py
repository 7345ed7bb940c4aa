"""Draw a test picture, or compare the pictures that two processors made of it."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

# ONNX Runtime has other kernels on each processor, which add in another order. Fp16 sums then round
# to a neighbouring 8-bit level here and there; an int8 activation that lands on the other side of a
# rounding boundary is one step of the quantiser off, and that spreads to the pixels it feeds.
# Int8 whose outputs are quantised too fails on x86-64 without VNNI, where 16-bit sums saturate:
# docs/jetson.md.
LEAST_PSNR_DB = 45.0


def main() -> int:
    """Run `compare.py draw PICTURE` or `compare.py compare HERE THERE`; 1 where they differ."""
    if sys.argv[1] == "draw":
        draw(Path(sys.argv[2]))
        return 0
    return 0 if compare(Path(sys.argv[2]), Path(sys.argv[3])) else 1


def draw(path: Path) -> None:
    """Save a 24x16 picture with edges in every direction, smooth colour and grain.

    It is small because arithmetic is slow under emulation: half a minute for this one in fp16.
    """
    y, x = np.mgrid[0:16, 0:24].astype(np.float64)
    rings = 128 + 127 * np.sin(((x - 12) ** 2 + (y - 8) ** 2) / 10)
    channels = [rings, 10.6 * x, 255 * ((x // 4 + y // 4) % 2)]
    grain = np.random.default_rng(0).normal(0, 4, (16, 24, 3))
    Image.fromarray(np.clip(np.stack(channels, -1) + grain, 0, 255).astype(np.uint8)).save(path)


def compare(here: Path, there: Path) -> bool:
    """Print how far two pictures are apart; whether they are the same within the tolerance."""
    first, second = (np.asarray(Image.open(path), np.int64) for path in (here, there))
    assert first.shape == second.shape, (first.shape, second.shape)
    difference = np.abs(first - second)
    mse = float((difference**2).mean())
    psnr_db = float("inf") if mse == 0 else 10 * float(np.log10(255**2 / mse))
    same = 100 * float((difference == 0).mean())
    sys.stdout.write(
        f"{there.name}: {same:.2f} % of values equal, largest difference {difference.max()}, "
        f"PSNR {psnr_db:.1f} dB (at least {LEAST_PSNR_DB})\n"
    )
    return psnr_db >= LEAST_PSNR_DB


if __name__ == "__main__":
    sys.exit(main())
