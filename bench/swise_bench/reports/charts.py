"""Plots as inline SVG; colours are the page's CSS variables, to follow its light and dark mode.

Written here rather than by a library: what makes static SVG (matplotlib, altair) is large or bakes
colours in, and a page that loads nothing needs four kinds of marks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 18, 14, 44
_ROW = 44
NUM_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled mark.

    Attributes:
        label: Shown on hover and read to screen readers.
        x: Horizontal value.
        y: Vertical value.
        series: Colour, counted from 0.
        text: Written beside the mark; empty for none.
    """

    label: str
    x: float
    y: float
    series: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a plot: label, range and whether it is logarithmic."""

    label: str
    low: float
    high: float
    is_log: bool = False

    def place(self, value: float, start: float, end: float) -> float:
        """Position of a value between two pixel coordinates."""
        low, high, at = (_scaled(v, self.is_log) for v in (self.low, self.high, value))
        return start + (end - start) * (at - low) / ((high - low) or 1)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values to label, about as many as wanted."""
        if self.is_log:
            low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1,) if high - low > 3 else (1, 2, 5) if wanted >= 5 else (1, 3)
            values = [s * 10.0**e for e in range(low, high + 1) for s in steps]
        else:
            step = _round_step((self.high - self.low) / wanted)
            first = math.ceil(self.low / step)
            values = [step * i for i in range(first, math.floor(self.high / step) + 1)]
        return [v for v in values if self.low <= v <= self.high]


def axis_around(
    label: str, values: Sequence[float], *, is_log: bool = False, least_span: float = 0.0
) -> Axis:
    """An axis with a margin around the values; `least_span` keeps noise from filling the plot."""
    low, high = min(values), max(values)
    widen = max(0.0, least_span - (high - low)) / 2
    low, high = low - widen, high + widen
    if is_log:
        return Axis(label, low / 1.4, high * 1.4, is_log=True)
    margin = 0.12 * ((high - low) or abs(high) or 1)
    return Axis(label, low - margin, high + margin)


@dataclass(frozen=True, slots=True)
class Frame:
    """Size of a plot in user units, which are pixels where it is as wide as that."""

    width: int = 720
    height: int = 380

    @property
    def right(self) -> int:
        """Right end of the plotted area."""
        return self.width - _RIGHT

    @property
    def base(self) -> int:
        """Lower end of the plotted area."""
        return self.height - _BOTTOM


WIDE, NARROW = Frame(), Frame(350, 360)


def scatter(
    title: str, points: Sequence[Point], x: Axis, y: Axis, *, extra: str = "", frame: Frame = WIDE
) -> str:
    """Marks with their names beside them; a line leads to a name that has to stand apart.

    Args:
        title: For screen readers.
        points: Marks.
        x: Horizontal axis.
        y: Vertical axis.
        extra: SVG drawn below the marks.
        frame: Size.
    """
    places = [(x.place(p.x, _LEFT, frame.right), y.place(p.y, frame.base, _TOP)) for p in points]
    labels = _labels([p.text for p in points], places, frame)
    marks = []
    for point, (px, py), label in zip(points, places, labels, strict=True):
        marks.append(
            f'<g class="s{point.series % NUM_COLOURS}">{label}<circle cx="{px:.1f}" '
            f'cy="{py:.1f}" r="5"><title>{escape(point.label)}</title></circle></g>'
        )
    return _svg(title, frame, _axes(x, y, frame) + extra + "".join(marks))


_CHARACTER = 6.7
_LINE = 15


def _labels(texts: Sequence[str], places: Sequence[tuple[float, float]], frame: Frame) -> list[str]:
    """A text near each mark, none on another text or mark; "" where there is no room."""
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in places]
    found = []
    for text, (px, py) in zip(texts, places, strict=True):
        box = next(
            (box for box in _boxes(px, py, len(text) * _CHARACTER) if _fits(box, taken, frame)),
            None,
        )
        if not text or box is None:
            found.append("")
            continue
        taken.append(box)
        left, top, right, bottom = box
        middle = (top + bottom) / 2
        end = left - 2 if left > px else right + 2 if right < px else (left + right) / 2
        is_apart = math.hypot(end - px, middle - py) > 16
        leader = (
            f'<line class="leader" x1="{px:.1f}" y1="{py:.1f}" x2="{end:.1f}" y2="{middle:.1f}"/>'
        )
        found.append(
            f'{leader if is_apart else ""}<text x="{left:.1f}" y="{bottom - 4:.1f}">'
            f"{escape(text)}</text>"
        )
    return found


def _boxes(px: float, py: float, width: float) -> Iterator[tuple[float, float, float, float]]:
    """Places for a text around a mark, the nearest first."""
    for away in (9, 22, 38, 56, 76, 98, 124):
        for lift in (0, -1, 1, -0.5, 0.5):
            top = py - _LINE / 2 + lift * away
            yield px + away, top, px + away + width, top + _LINE
            yield px - away - width, top, px - away, top + _LINE
        for sign in (-1, 1):
            top = py - _LINE / 2 + sign * (away + 4)
            yield px - width / 2, top, px + width / 2, top + _LINE


def _fits(
    box: tuple[float, float, float, float],
    taken: Sequence[tuple[float, float, float, float]],
    frame: Frame,
) -> bool:
    left, top, right, bottom = box
    if left < _LEFT + 2 or right > frame.right or top < 2 or bottom > frame.base - 2:
        return False
    return not any(left < r and right > x and top < b and bottom > y for x, y, r, b in taken)


def line(x: Axis, y: Axis, points: Sequence[tuple[float, float]], *, frame: Frame = WIDE) -> str:
    """A polyline for the `extra` of a scatter plot."""
    path = " ".join(
        f"{x.place(a, _LEFT, frame.right):.1f},{y.place(b, frame.base, _TOP):.1f}"
        for a, b in points
    )
    return f'<polyline class="roof" points="{path}"/>'


@dataclass(frozen=True, slots=True)
class Spread:
    """Samples of one thing and their landmarks."""

    label: str
    samples: Sequence[float]
    median: float
    low: float
    high: float
    p90: float
    p99: float


def distributions(title: str, x_label: str, spreads: Sequence[Spread]) -> str:
    """Every sample as a dot; a bar for the median's interval, ticks at p50, p90 and p99."""
    values = [v for spread in spreads for v in spread.samples]
    x = axis_around(x_label, values, is_log=max(values) > 8 * min(values))
    frame = Frame(WIDE.width, _TOP + _BOTTOM + _ROW * len(spreads))
    rows = []
    for index, spread in enumerate(spreads):
        centre = _TOP + _ROW * index + _ROW * 0.62

        def at(value: float) -> float:
            return x.place(value, _LEFT, frame.right)

        dots = "".join(
            f'<circle cx="{at(v):.1f}" cy="{centre + 5 * _spread(i):.1f}" r="2.2"/>'
            for i, v in enumerate(spread.samples)
        )
        landmarks = "".join(
            f'<line x1="{at(v):.1f}" x2="{at(v):.1f}" y1="{centre - h}" y2="{centre + h}"/>'
            for v, h in ((spread.median, 12), (spread.p90, 8), (spread.p99, 5))
        )
        rows.append(
            f'<g class="s{index % NUM_COLOURS}"><text x="{_LEFT}" y="{centre - 15:.1f}">'
            f"{escape(spread.label)}</text>{dots}"
            f'<rect class="ci" x="{at(spread.low):.1f}" y="{centre - 12:.1f}" height="24" '
            f'width="{max(1.0, at(spread.high) - at(spread.low)):.1f}"/>{landmarks}'
            f"<title>{escape(_describe(spread))}</title></g>"
        )
    return _svg(title, frame, _axes(x, None, frame) + "".join(rows))


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars: label, value, text at the end."""
    step = 26
    frame = Frame(WIDE.width, _TOP + step * len(rows) + 8)
    most = max((value for _, value, _ in rows), default=1.0) or 1.0
    start = 330
    marks = []
    for index, (label, value, text) in enumerate(rows):
        y = _TOP + step * index
        width = (frame.width - start - 130) * value / most
        marks.append(
            f'<g class="s0"><text x="{start - 8}" y="{y + 14}" text-anchor="end">'
            f'{escape(_shorten(label, 44))}</text><rect x="{start}" y="{y + 2}" height="16" '
            f'width="{width:.1f}"/>'
            f'<text x="{start + width + 6:.1f}" y="{y + 14}">{escape(text)}</text>'
            f"<title>{escape(label)}: {escape(text)}</title></g>"
        )
    return _svg(title, frame, "".join(marks))


def _axes(x: Axis, y: Axis | None, frame: Frame) -> str:
    base = frame.base
    wanted = 5 if frame.width >= WIDE.width else 3
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{frame.right}" y1="{base}" y2="{base}"/>']
    for tick in x.ticks(wanted):
        px = x.place(tick, _LEFT, frame.right)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{_TOP}" y2="{base}"/>')
        parts.append(_tick(px, base + 16, "middle", tick))
    parts.append(
        f'<text class="label" x="{(frame.right + _LEFT) / 2}" y="{frame.height - 8}" '
        f'text-anchor="middle">{escape(x.label)}</text>'
    )
    if y is not None:
        for tick in y.ticks():
            py = y.place(tick, base, _TOP)
            ends = f'x1="{_LEFT}" x2="{frame.right}" y1="{py:.1f}" y2="{py:.1f}"'
            parts.append(f'<line class="grid" {ends}/>')
            parts.append(_tick(_LEFT - 6, py + 4, "end", tick))
        middle = (base + _TOP) / 2
        parts.append(
            f'<text class="label" transform="rotate(-90 14 {middle})" x="14" y="{middle}" '
            f'text-anchor="middle">{escape(y.label)}</text>'
        )
    return "".join(parts)


def _tick(x: float, y: float, anchor: str, value: float) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{value:.6g}</text>'


def _svg(title: str, frame: Frame, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(title)}">{body}</svg>'
    )


def _scaled(value: float, is_log: bool) -> float:
    return math.log10(value) if is_log else value


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= step)


def _spread(index: int) -> float:
    """A repeatable jitter in -1..1: the golden-ratio sequence."""
    return 2 * ((index * 0.618_033_988_749_895) % 1) - 1


def _describe(spread: Spread) -> str:
    return (
        f"{spread.label}: p50 {spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f}), "
        f"p90 {spread.p90:.2f}, p99 {spread.p99:.2f}, {len(spread.samples)} runs"
    )


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"...{text[3 - length :]}"
