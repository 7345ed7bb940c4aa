"""The folded sections of the page: tables, distributions, layers, drift, the machine."""

import dataclasses
from collections.abc import Sequence
from html import escape

from swise_bench.prediction.roofline import Prediction
from swise_bench.reports.charts import (
    NARROW,
    NUM_COLOURS,
    WIDE,
    Point,
    Spread,
    axis_around,
    bars,
    distributions,
    scatter,
)
from swise_bench.reports.roofline_tables import roofline_plot, tables_from_predictions
from swise_bench.reports.tables import tables_from_benchmark
from swise_bench.reports.text_tables import TextTable
from swise_bench.reports.verdict import MAIN
from swise_bench.results.values import (
    Benchmark,
    Latency,
    NotMeasured,
    QualityResult,
    SubjectResult,
)
from swise_deploy.evaluation.metrics import METRICS

LEAST_DRIFT_SCALE_DB = 0.01
"""Below this, drift is nothing, and is not painted as if it were something."""

_SECTIONS = {
    "latency": ("Latency", ("Latency in ms", "Time relative to the first subject", "trtexec")),
    "quality": ("Quality", ("Quality",)),
    "cost": ("Cost", ("Cost, counted",)),
    "memory": ("Memory and energy", ("Memory in MiB, energy",)),
    "layers": ("Layers", ("Slowest layers",)),
}
"""Folded sections: key, title, and the tables in them by title."""


def notes(lines: Sequence[str]) -> str:
    """Small print."""
    return "".join(f'<p class="note">{escape(line)}</p>' for line in lines)


def scrolled(svg: str) -> str:
    """A plot that scrolls sideways where the window is narrow."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Plot">{svg}</div>'


def folded_sections(
    benchmark: Benchmark, predictions: Sequence[Prediction], names: dict[str, str]
) -> list[tuple[str, str, str]]:
    """Key, title and content of the folded sections; empty content is not shown."""
    tables = {table.title: table for table in tables_from_benchmark(benchmark)}
    plots = {
        "latency": _latency_plots(benchmark),
        "quality": _heat_maps(benchmark),
        "cost": _cost_plot(benchmark),
        "layers": _layer_plots(benchmark),
    }
    found = [
        (
            key,
            title,
            "".join(_table(tables[name]) for name in titles if name in tables) + plots.get(key, ""),
        )
        for key, (title, titles) in _SECTIONS.items()
    ]
    return [
        *found,
        ("prediction", "Predicted for devices", _predictions(predictions, names)),
        ("machine", "How it was measured", _machine(benchmark)),
    ]


def _table(table: TextTable) -> str:
    heads = "".join(
        f'<th scope="col"><button type="button">{escape(c)}</button></th>' for c in table.columns
    )
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(table.title)}"><table class="sortable"><thead><tr>{heads}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{notes(table.notes)}"
    )


def _cost_plot(benchmark: Benchmark) -> str:
    points = []
    for index, subject in enumerate(benchmark.subjects):
        if isinstance(subject.quality, NotMeasured) or isinstance(subject.costs, NotMeasured):
            continue
        value = subject.quality[0].values.get(MAIN)
        giga = subject.costs[0].mult_adds / 1e9
        if value is not None and giga > 0:
            label = f"{subject.name}: {METRICS[MAIN].text(value)}, {giga:.2f} G Mult-Adds"
            points.append(Point(label, giga, value, index, subject.name))
    return both_widths(points, "Mult-Adds in G at a 1280x720 output") if len(points) > 1 else ""


def _latency_plots(benchmark: Benchmark) -> str:
    groups: dict[tuple[tuple[int, int], int], list[Spread]] = {}
    for subject in benchmark.subjects:
        for latency in subject.latencies:
            key = (latency.lr_size, latency.batch)
            groups.setdefault(key, []).append(_spread(subject.name, latency))
    return "".join(
        scrolled(
            distributions(f"Latency, LR {w}x{h}, batch {n}", f"ms, LR {w}x{h}, batch {n}", spreads)
        )
        for ((w, h), n), spreads in groups.items()
    ) + notes(["dots: every run; bar: 95% confidence interval of the median; ticks: p50, p90, p99"])


def _spread(name: str, latency: Latency) -> Spread:
    timing = latency.timing
    median = timing.median_ms
    return Spread(
        name,
        timing.samples_ms,
        timing.p50_ms,
        median.low,
        median.high,
        timing.p90_ms,
        timing.p99_ms,
    )


def _layer_plots(benchmark: Benchmark) -> str:
    parts = []
    for subject in benchmark.subjects:
        if isinstance(subject.layer_times, NotMeasured):
            continue
        total = sum(layer.p50_ms for layer in subject.layer_times)
        rows = [
            (f"{x.name} ({x.op_type})", x.p50_ms, f"{x.p50_ms:.2f} ms, {x.p50_ms / total:.0%}")
            for x in subject.layer_times[:20]
        ]
        title = f"Slowest layers of {subject.name}"
        parts.append(f"<h3>{escape(subject.name)}</h3>{scrolled(bars(title, rows))}")
    return "".join(parts)


def _heat_maps(benchmark: Benchmark) -> str:
    subjects = [s for s in benchmark.subjects if not isinstance(s.quality, NotMeasured)]
    if not subjects:
        return ""
    drifts = {
        s.name: {p.picture: p.drift.get(MAIN) for q in _qualities(s) for p in q.pictures}
        for s in subjects
    }
    known = [abs(d) for column in drifts.values() for d in column.values() if d is not None]
    if not known:
        return ""
    most = max([*known, LEAST_DRIFT_SCALE_DB])
    pictures = list(dict.fromkeys(name for column in drifts.values() for name in column))
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in drifts)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(_heat_cell(column.get(name), most) for column in drifts.values())
        + "</tr>"
        for name in pictures
    )
    return (
        "<h3>Drift by picture</h3>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Drift by picture">'
        f'<table class="heat"><thead><tr><th scope="col">picture</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + notes([f"dB of PSNR-Y against fp32 torch; red is a loss; full colour at {most:.2g} dB"])
    )


def _qualities(subject: SubjectResult) -> Sequence[QualityResult]:
    return () if isinstance(subject.quality, NotMeasured) else subject.quality


def _heat_cell(drift: float | None, most: float) -> str:
    if drift is None:
        return "<td>-</td>"
    share = min(100.0, 70 * abs(drift) / most)
    colour = "var(--c5)" if drift < 0 else "var(--c2)"
    style = f"background: color-mix(in srgb, {colour} {share:.0f}%, transparent)"
    return f'<td style="{style}">{drift:+.4f}</td>'


def both_widths(points: Sequence[Point], x_label: str) -> str:
    """The plot for wide windows and for phones; the page shows one of them."""
    values = [p.x for p in points]
    x = axis_around(x_label, values, is_log=0 < 8 * min(values) < max(values))
    y = axis_around(METRICS[MAIN].header, [p.y for p in points], least_span=0.02)
    title = f"{METRICS[MAIN].title} against {x_label}"
    return (
        f'<div class="wide">{scatter(title, points, x, y, frame=WIDE)}</div>'
        f'<div class="narrow">{scatter(title, points, x, y, frame=NARROW)}</div>'
    )


def _predictions(predictions: Sequence[Prediction], names: dict[str, str]) -> str:
    if not predictions:
        return ""
    shown = [dataclasses.replace(p, subject=names.get(p.subject, p.subject)) for p in predictions]
    plots = "".join(
        scrolled(roofline_plot(prediction, index % NUM_COLOURS))
        for index, prediction in enumerate(shown[:2])
    )
    return "".join(_table(t) for t in tables_from_predictions(shown)) + plots


def machine_name(benchmark: Benchmark) -> str:
    """The machine in a line."""
    host = benchmark.host
    return ", ".join(part for part in (host.device, host.cpu, *host.gpus) if part)


def _machine(benchmark: Benchmark) -> str:
    host, quiet = benchmark.host, benchmark.quietness
    clocks = "; ".join(
        f"{now:.0f} MHz ({low:.0f} to {high:.0f})" for now, low, high in host.clocks_mhz
    )
    temperatures = ", ".join(f"{t.sensor} {t.celsius:.0f} °C" for t in host.temperatures)
    packages = ", ".join(f"{name} {version}" for name, version in host.packages.items())
    unknown = "unknown: this machine does not report it"
    share = unknown if quiet.other_share is None else f"{quiet.other_share:.0%}"
    facts = {
        "device": host.device or unknown,
        "processor": f"{host.cpu}, {host.num_cpus} usable, {' '.join(host.cpu_flags)}",
        "clocks": clocks or unknown,
        "governor": ", ".join(host.governors) or unknown,
        "power mode": host.power_mode or "not measured: no nvpmodel here",
        "jetson_clocks": "not measured: no Jetson GPU here"
        if host.jetson_clocks is None
        else ("on" if host.jetson_clocks else "off"),
        "GPU": "; ".join(host.gpus) or "not measured: no NVIDIA GPU here",
        "temperature": temperatures or "not measured: no thermal zone here",
        "memory": f"{host.memory_gib:.1f} GiB",
        "system": f"{host.system}, Python {host.python}",
        "packages": packages,
        "environment": ", ".join(f"{k}={v}" for k, v in host.environment.items()) or "nothing set",
        "threads": str(benchmark.threads),
        "other programs": f"{share}; load before {quiet.load_before:.1f}",
        "warm-up": "each subject until its median settles within 5%, at most 40 runs",
        "command": benchmark.command,
        "schema": str(benchmark.schema_version),
    }
    items = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{items}</dl>"
