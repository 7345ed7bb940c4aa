"""Crops of pictures through every subject: for sliders, and as the figure of a paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swise_bench.measuring.quality import Upscale
from swise_deploy.evaluation.metrics import METRICS, Quality, quality
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.imresize import imresize
from swise_deploy.storage.files import writing


@dataclass(frozen=True, slots=True)
class Panel:
    """One method's crop, and the scores of its whole picture; none for the ground truth."""

    label: str
    crop: RgbImage
    score: Quality | None


@dataclass(frozen=True, slots=True)
class Showcase:
    """A picture, the place of the crop in it, and the crop by every method: HR, bicubic, subjects.

    Attributes:
        picture: File name.
        scale: Output size over input size.
        box: Left, top, width and height of the crop, in HR pixels.
        panels: HR, bicubic, then the subjects.
        context: The whole ground truth with the crop outlined, small.
    """

    picture: str
    scale: int
    box: tuple[int, int, int, int]
    panels: tuple[Panel, ...]
    context: RgbImage


def make_showcase(
    path: Path, scale: int, subjects: Mapping[str, Upscale], *, side: int = 160
) -> Showcase:
    """Upscale a picture by every subject and cut out the part that tells them apart.

    That is where the subjects' outputs differ most; where they do not differ, where the first of
    them is furthest from the ground truth.

    Args:
        path: The ground truth.
        scale: Output size over input size.
        subjects: Functions that upscale, by name.
        side: Largest side of the crop, in HR pixels.
    """
    pair = pair_from_hr(path.name, read_rgb(path), scale)
    bicubic = np.asarray(imresize(pair.lr, Fraction(scale)), np.uint8)
    own = {name: run(pair.lr) for name, run in subjects.items()}
    box = _telling_box(pair.hr, list(own.values()), side)
    panels = [Panel("HR", _cut(pair.hr, box), None)]
    panels += [
        Panel(name, _cut(sr, box), quality(sr, pair.hr, border=scale))
        for name, sr in {"bicubic": bicubic, **own}.items()
    ]
    return Showcase(path.name, scale, box, tuple(panels), _outlined(pair.hr, box))


def write_figure(path: Path, showcase: Showcase, *, columns: int = 4) -> None:
    """Write the panels side by side as a PNG, PSNR and SSIM under each.

    Raises:
        OutputError: The file cannot be written.
    """
    magnify = max(1, 320 // max(showcase.box[2:]))
    width, height = (side * magnify for side in showcase.box[2:])
    gap, caption = 12, 46
    rows = -(-len(showcase.panels) // columns)
    columns = -(-len(showcase.panels) // rows)
    context = Image.fromarray(showcase.context)
    tall = rows * (height + caption) + gap
    context.thumbnail((2 * width, tall - gap - caption))
    left = context.width + 2 * gap
    canvas = Image.new("RGB", (left + columns * (width + gap), tall), "white")
    canvas.paste(context, (gap, gap))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    draw.text(
        (gap, gap + context.height + 4), f"{showcase.picture} x{showcase.scale}", "black", font
    )
    for index, panel in enumerate(showcase.panels):
        x = left + (index % columns) * (width + gap)
        y = gap + (index // columns) * (height + caption)
        crop = Image.fromarray(panel.crop).resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(crop, (x, y))
        label = _fitting(draw, font, panel.label, width)
        draw.text((x, y + height + 3), label, "black", font)
        draw.text((x, y + height + 21), describe_score(panel.score), "black", font)
    with writing(path) as temporary:
        canvas.save(temporary, format="PNG")


def describe_score(score: Quality | None) -> str:
    """PSNR/SSIM as papers print them under a crop."""
    if score is None:
        return " / ".join(metric.title.partition("-")[0] for metric in METRICS.values())
    return " / ".join(metric.text(score[name]) for name, metric in METRICS.items())


def _telling_box(hr: RgbImage, outputs: Sequence[RgbImage], side: int) -> tuple[int, int, int, int]:
    """The square in which outputs differ most, on a grid of half its side."""
    stack = np.stack([output.astype(np.float32).mean(axis=2) for output in outputs])
    spread = stack.max(axis=0) - stack.min(axis=0)
    if not spread.any():
        spread = np.abs(stack[0] - hr.astype(np.float32).mean(axis=2))
    height, width = (min(side, s) for s in hr.shape[:2])
    places = [
        (top, left) for top in _grid(hr.shape[0], height) for left in _grid(hr.shape[1], width)
    ]
    top, left = max(
        places, key=lambda p: float(spread[p[0] : p[0] + height, p[1] : p[1] + width].mean())
    )
    return left, top, width, height


def _grid(whole: int, side: int) -> list[int]:
    """Starts of squares, half a side apart, the last at the end."""
    last = max(0, whole - side)
    return sorted({*range(0, last + 1, max(1, side // 2)), last})


def _cut(image: RgbImage, box: tuple[int, int, int, int]) -> RgbImage:
    left, top, width, height = box
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _outlined(hr: RgbImage, box: tuple[int, int, int, int]) -> RgbImage:
    left, top, width, height = box
    image = Image.fromarray(hr)
    corners = (left, top, left + width - 1, top + height - 1)
    ImageDraw.Draw(image).rectangle(corners, outline="red", width=max(2, image.width // 200))
    return np.asarray(image, np.uint8)


def _fitting(
    draw: ImageDraw.ImageDraw,
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
    text: str,
    width: int,
) -> str:
    while len(text) > 4 and draw.textlength(text, font) > width:
        text = f"...{text[4:]}"
    return text
