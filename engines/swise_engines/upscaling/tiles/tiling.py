"""Pictures of any size in bounded memory: overlapping tiles, cut and put together without seams.

A convolutional network sees a few pixels around each one. Where two tiles overlap by enough, the
pixels that a cut has disturbed are thrown away and the rest equals the full frame exactly. Where
the network averages over the whole picture, tiles differ by a little everywhere; there neighbours
are faded into each other.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
"""(N, 3, H, W), float32, RGB in [0, 1]."""


@dataclass(frozen=True, slots=True)
class TileLimits:
    """Input sizes of one call of a runner, (width, height) in pixels, and its batch sizes.

    Attributes:
        least: Smaller pictures are padded.
        most: Larger pictures are cut into tiles, and tiles have at most this size.
        least_batch: Smaller batches are padded.
        most_batch: Tiles per call.
        whole_pixels: Pictures of up to so many pixels are not cut, whatever their sides.
    """

    least: tuple[int, int] = (1, 1)
    most: tuple[int, int] = (256, 256)
    least_batch: int = 1
    most_batch: int = 1
    whole_pixels: int = 0

    def takes_whole(self, width: int, height: int) -> bool:
        """True if a picture of that size is not cut."""
        fits = width <= self.most[0] and height <= self.most[1]
        return fits or width * height <= self.whole_pixels

    def is_rigid(self, axis: int, step: int) -> bool:
        """True if tiles along an axis (0 is W) cannot be shortened to a multiple of the step."""
        return self.least[axis] > (self.most[axis] - step + 1) // step * step


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap of neighbouring tiles, in pixels of the low resolution.

    Attributes:
        margin: Pixels beside a cut that are thrown away: the receptive field.
        fade: Pixels over which neighbours are faded into each other; 0 joins them on a line.
        step: Tiles start at multiples of it, for networks that shrink their input inside.
    """

    margin: int
    fade: int = 0
    step: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that make no overlap."""
        if self.margin < 0 or self.fade < 0 or self.step < 1:
            raise ValueError(f"{self}: expected margin and fade >= 0 and step >= 1")

    @property
    def width(self) -> int:
        """The least that two neighbours share."""
        return 2 * self.margin + self.fade

    @property
    def smallest_tile(self) -> int:
        """The least length of a tile with which `plan_spans` covers an axis of any length."""
        return _next_multiple(self.width + self.least_advance, self.step) + self.step - 1

    @property
    def least_advance(self) -> int:
        """The least that is won from tile to tile: neither fade may meet the next one."""
        return _next_multiple(max(2 * self.fade, 1), self.step)


def _next_multiple(value: int, step: int) -> int:
    return -(-value // step) * step


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis, in pixels of the low resolution.

    The tile reads start to stop. It contributes from fade_in[0] to fade_out[1], rising over fade_in
    and falling over fade_out; at an edge of the picture both ends of a fade are the edge.
    """

    start: int
    stop: int
    fade_in: tuple[int, int]
    fade_out: tuple[int, int]


def whole_span(length: int) -> Span:
    """One tile for a whole axis."""
    return Span(0, length, (0, 0), (length, length))


def plan_spans(length: int, tile: int, overlap: Overlap, *, is_rigid: bool = False) -> list[Span]:
    """Cover an axis with tiles of one length that start at multiples of the step.

    Where the length leaves a rest, the last tile is longer than the others, by less than a step;
    they are short enough for it not to be longer than `tile`.

    Args:
        length: Pixels of the axis, >= 1.
        tile: The most pixels of a tile; the whole axis where it is not longer.
        overlap: How neighbours meet.
        is_rigid: Whether every tile has to have that length; `rigid_length` gives the lengths
            that can be covered so.

    Raises:
        ValueError: The tile is too short for the overlap on both sides, or the axis cannot be
            covered by rigid tiles.
    """
    if length <= tile:
        return [whole_span(length)]
    step = overlap.step
    if is_rigid:
        if length != rigid_length(length, tile, step):
            raise ValueError(f"{length} pixels in tiles of {tile} leave a rest at steps of {step}")
    else:
        tile = (tile - (step - 1 if length % step else 0)) // step * step
    advance = (tile - overlap.width) // step * step
    if advance < overlap.least_advance:
        raise ValueError(
            f"tiles of {tile} pixels are too small for an overlap of {overlap.width} in steps of "
            f"{step}; expected at least {overlap.smallest_tile}"
        )
    last = (length - tile) // step * step
    starts = [*range(0, last, advance), last]
    stops = [start + tile for start in starts[:-1]] + [length]
    # Half-way between the first pixel of a tile and the last of the one before it.
    joints = [
        ((start + stop - overlap.fade) // 2, (start + stop - overlap.fade) // 2 + overlap.fade)
        for start, stop in zip(starts[1:], stops[:-1], strict=True)
    ]
    fades = [(0, 0), *joints, (length, length)]
    return [
        Span(start, stop, fade_in, fade_out)
        for start, stop, (fade_in, fade_out) in zip(
            starts, stops, itertools.pairwise(fades), strict=True
        )
    ]


def rigid_length(length: int, tile: int, step: int) -> int:
    """The least length from `length` on that tiles of `tile` pixels, at steps, end at exactly."""
    return tile if length <= tile else tile + _next_multiple(length - tile, step)


def upscale_tiled(
    infer: Callable[[Planes], Planes],
    lr: Planes,
    *,
    scale: int,
    rows: list[Span],
    columns: list[Span],
    batch: int = 1,
    at: Callable[[Span, Sequence[Span]], None] = lambda _row, _columns: None,
) -> Iterator[tuple[int, Planes]]:
    """Upscale a picture tile by tile, top to bottom.

    Args:
        infer: (n, 3, h, w) to (n, 3, h*scale, w*scale).
        lr: (1, 3, H, W).
        scale: Output size over input size.
        rows: Tiles along H, from `plan_spans`.
        columns: Tiles along W.
        batch: Up to how many tiles of equal size go into one call of `infer`.
        at: Called before each `infer` with the row and the columns of its tiles.

    Yields:
        The row of the output at which a finished band starts, and the band, (1, 3, h, W*scale).
        Bands follow each other without a gap; only one row of tiles is held at a time.
    """
    carried: Planes | None = None
    for row in rows:
        lines = lr[:, :, row.start : row.stop]
        band = _upscale_row(infer, lines, scale, columns, batch=batch, at=partial(at, row))
        top = row.fade_in[0]
        band = band[:, :, (top - row.start) * scale : (row.fade_out[1] - row.start) * scale]
        band = band * _weights(row, scale)[:, None]
        if carried is not None:
            band[:, :, : carried.shape[2]] += carried
        num_done = (row.fade_out[0] - top) * scale
        carried = band[:, :, num_done:]
        yield top * scale, band[:, :, :num_done]


def _upscale_row(
    infer: Callable[[Planes], Planes],
    lr: Planes,
    scale: int,
    columns: list[Span],
    *,
    batch: int,
    at: Callable[[Sequence[Span]], None],
) -> Planes:
    height, width = lr.shape[2] * scale, columns[-1].stop * scale
    band = np.zeros((1, 3, height, width), np.float32)
    for _, group in itertools.groupby(columns, key=lambda span: span.stop - span.start):
        spans = list(group)
        for i in range(0, len(spans), batch):
            chosen = spans[i : i + batch]
            tiles = np.concatenate([lr[:, :, :, span.start : span.stop] for span in chosen])
            at(chosen)
            for span, sr in zip(chosen, infer(tiles), strict=True):
                left, right = span.fade_in[0], span.fade_out[1]
                used = sr[:, :, (left - span.start) * scale : (right - span.start) * scale]
                band[0, :, :, left * scale : right * scale] += used * _weights(span, scale)
    return band


def _weights(span: Span, scale: int) -> NDArray[np.float32]:
    """Share of a tile in the output, fade_in[0] to fade_out[1]; the shares add up to 1."""
    weights = np.ones((span.fade_out[1] - span.fade_in[0]) * scale, np.float32)
    rise = _ramp((span.fade_in[1] - span.fade_in[0]) * scale)
    fall = _ramp((span.fade_out[1] - span.fade_out[0]) * scale)
    weights[: len(rise)] = rise
    weights[len(weights) - len(fall) :] *= 1 - fall
    return weights


def _ramp(length: int) -> NDArray[np.float32]:
    return (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(max(length, 1))
