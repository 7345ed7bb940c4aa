"""Upscale a photograph by 2; runner="auto" would first measure which runtime is fastest here."""

from pathlib import Path

from swise_deploy import read_rgb, sample_paths, write_image
from swise_engines import Upscaler

lr = read_rgb(sample_paths()[0])  # (H, W, 3) uint8; uint16 and float32 in [0, 1] work as well
with Upscaler.open("swisenet", scale=2, runner="onnxruntime") as upscale:
    sr = upscale(lr)
    print(f"{lr.shape[1]}x{lr.shape[0]} to {sr.shape[1]}x{sr.shape[0]} with {upscale.name}")
write_image(Path("upscaled.png"), sr)
