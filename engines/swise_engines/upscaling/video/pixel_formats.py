"""The pixel format of a result: as deep, as fine in colour and as transparent as the source's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swise_deploy.command.dependencies import require

if TYPE_CHECKING:
    import av

_WIDE = 64  # a width at which every chroma sampling is a whole number


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Facts of an FFmpeg pixel format.

    Attributes:
        name: FFmpeg's name.
        bits: Largest depth of a sample.
        chroma: Chroma samples for each luma sample along (width, height); (0, 0) for greyscale.
        has_alpha: True with an alpha channel.
        is_rgb: True for RGB, a palette included.
    """

    name: str
    bits: int
    chroma: tuple[float, float]
    has_alpha: bool
    is_rgb: bool

    @property
    def is_deep(self) -> bool:
        """True for more than 8 bits a sample."""
        return self.bits > 8


def pixel_format(name: str) -> PixelFormat:
    """Look up a pixel format by FFmpeg's name."""
    pyav = require("av", extra="video", purpose="upscaling a video")
    form: av.VideoFormat = pyav.VideoFormat(name, _WIDE, _WIDE)
    is_rgb = form.is_rgb or form.has_palette
    colours = [c for c in form.components if not c.is_alpha]
    if is_rgb:
        chroma = (1.0, 1.0)
    elif len(colours) < 3:
        chroma = (0.0, 0.0)
    else:
        chroma = form.chroma_width(_WIDE) / _WIDE, form.chroma_height(_WIDE) / _WIDE
    return PixelFormat(
        name=name,
        bits=8 if form.has_palette else max((c.bits for c in colours), default=0),
        chroma=chroma,
        has_alpha=form.has_palette or any(c.is_alpha for c in form.components),
        is_rgb=is_rgb,
    )


def choose_pixel_format(source: str, formats: Sequence[str], *, is_odd: bool) -> str:
    """The encoder's format that loses least of the source's, and adds least to it.

    Args:
        source: Format of the source.
        formats: Those of the encoder; empty where it names none.
        is_odd: True if a side of the result is odd: halved chroma needs even ones.
    """
    wanted = pixel_format(source)
    plain = [name for name in formats if not name.startswith("yuvj")]
    usable = [form for form in map(pixel_format, plain or formats) if form.bits]
    if is_odd:
        usable = [form for form in usable if min(form.chroma) in (0, 1)] or usable
    if not usable:
        return formats[0] if formats else source

    def cost(form: PixelFormat) -> tuple[bool | float, ...]:
        is_grey, wants_colour = form.chroma == (0, 0), wanted.chroma != (0, 0)
        changes_kind = form.is_rgb and form.name != source
        return (
            is_grey and wants_colour,
            wanted.has_alpha and not form.has_alpha,
            max(wanted.chroma[0] - form.chroma[0], 0) + max(wanted.chroma[1] - form.chroma[1], 0),
            max(min(wanted.bits, 16) - form.bits, 0),
            changes_kind,
            form.has_alpha and not wanted.has_alpha,
            max(form.bits - wanted.bits, 0),
            sum(form.chroma),
            form.name != source,
        )

    return min(usable, key=cost).name


def losses(source: str, result: str) -> list[str]:
    """Name what a pixel format cannot hold of another one's pictures, alpha left out."""
    before, after = pixel_format(source), pixel_format(result)
    lost = []
    if any(a < b for a, b in zip(after.chroma, before.chroma, strict=True)):
        lost.append(f"colour is stored coarser than in the source: {source} becomes {result}")
    if after.bits < before.bits:
        lost.append(f"{before.bits} bits a sample become {after.bits}: {source} becomes {result}")
    return lost
