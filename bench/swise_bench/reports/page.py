"""A benchmark as one HTML page that loads nothing and reads without JavaScript too."""

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib import resources

from PIL import Image

from swise_bench.measuring.roofline import Prediction
from swise_bench.reports.charts import (
    NUM_COLOURS,
    Point,
    Spread,
    axis_around,
    bars,
    distributions,
    scatter,
)
from swise_bench.reports.roofline_tables import roofline_plot, tables_from_predictions
from swise_bench.reports.showcase import Showcase, describe_score
from swise_bench.reports.tables import tables_from_benchmark
from swise_bench.reports.text_tables import TextTable
from swise_bench.results.values import (
    Benchmark,
    Latency,
    NotMeasured,
    QualityResult,
    SubjectResult,
)
from swise_deploy.evaluation.metrics import METRICS
from swise_deploy.pictures.files import RgbImage

_MAIN = next(iter(METRICS))

# Below this, drift is nothing, and is not painted as if it were something.
LEAST_DRIFT_SCALE_DB = 0.01


def page_from_benchmark(
    benchmark: Benchmark,
    *,
    showcase: Showcase | None = None,
    predictions: Sequence[Prediction] = (),
) -> str:
    """The whole page.

    Args:
        benchmark: What was measured.
        showcase: Crops for the slider and the figure; None leaves both out.
        predictions: Rooflines of devices that are not here.
    """
    sections = [
        ("summary", "Tables", "".join(_table(t) for t in tables_from_benchmark(benchmark))),
        ("tradeoff", "Quality against cost", _tradeoffs(benchmark)),
        ("latency", "Latency distributions", _latency_plots(benchmark)),
        ("layers", "Layers by time", _layer_plots(benchmark)),
        ("drift", "Drift by picture", _heat_maps(benchmark)),
        ("pictures", "Pictures", _pictures(showcase)),
        ("prediction", "Predicted for devices", _predictions(predictions)),
        ("machine", "How it was measured", _machine(benchmark)),
    ]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>'
        for key, title, content in sections
    )
    names = ", ".join(subject.name for subject in benchmark.subjects)
    warning = benchmark.quietness.warning
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>swise-bench: {escape(names)}</title>
<link rel="icon" href="data:,">
<style>{_resource("report.css")}</style>
</head>
<body>
<header><h1>swise-bench report</h1><button id="mode" type="button">Dark or light</button></header>
<p>{escape(names)}</p>
<p class="note">{escape(benchmark.created)} on {escape(_machine_name(benchmark))}: \
<code>{escape(benchmark.command)}</code></p>
{f'<p class="warning" role="note">{escape(warning)}</p>' if warning else ""}
<nav aria-label="Sections">{links}</nav>
<main>{body}</main>
<script>{_resource("report.js")}</script>
</body>
</html>
"""


def _resource(name: str) -> str:
    return resources.files("swise_bench.reports").joinpath(name).read_text(encoding="utf-8")


def _absent(reason: str) -> str:
    return f'<p class="note">not measured: {escape(reason)}</p>'


def _notes(lines: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escape(line)}</p>' for line in lines)


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
        f"</thead><tbody>{rows}</tbody></table></div>{_notes(table.notes)}"
    )


def _tradeoffs(benchmark: Benchmark) -> str:
    scored = [
        (index, subject, subject.quality[0])
        for index, subject in enumerate(benchmark.subjects)
        if not isinstance(subject.quality, NotMeasured)
    ]
    if not scored:
        return _absent("give --images DIR")
    scored = [row for row in scored if row[2].values.get(_MAIN) is not None]
    if not scored:
        return _absent("every picture came out equal to the ground truth")
    by_latency = [
        _point(index, subject, quality, subject.latencies[0].timing.p50_ms, "ms")
        for index, subject, quality in scored
    ]
    by_cost = [
        _point(index, subject, quality, subject.costs[0].mult_adds / 1e9, "G Mult-Adds")
        for index, subject, quality in scored
        if not isinstance(subject.costs, NotMeasured)
    ]
    width, height = scored[0][1].latencies[0].lr_size
    images = scored[0][2].images
    plots = [
        _scatter(by_latency, f"p50 latency in ms at LR {width}x{height}"),
        _scatter(by_cost, "Mult-Adds in G at a 1280x720 output"),
    ]
    return "".join(plots) + _notes([f"PSNR-Y on {images}"])


def _point(
    index: int, subject: SubjectResult, quality: QualityResult, x: float, unit: str
) -> Point:
    value = quality.values[_MAIN] or 0.0
    label = f"{subject.name}: {METRICS[_MAIN].text(value)}, {x:.2f} {unit}"
    return Point(label, x, value, index, subject.name.rpartition("/")[2])


def _scatter(points: Sequence[Point], x_label: str) -> str:
    if not points:
        return ""
    values = [p.x for p in points]
    x = axis_around(x_label, values, is_log=0 < 8 * min(values) < max(values))
    y = axis_around("PSNR-Y in dB", [p.y for p in points], least_span=0.1)
    return scatter(f"PSNR-Y against {x_label}", points, x, y)


def _latency_plots(benchmark: Benchmark) -> str:
    groups: dict[tuple[tuple[int, int], int], list[Spread]] = {}
    for subject in benchmark.subjects:
        for latency in subject.latencies:
            key = (latency.lr_size, latency.batch)
            groups.setdefault(key, []).append(_spread(subject.name, latency))
    return "".join(
        distributions(f"Latency, LR {w}x{h}, batch {n}", f"ms, LR {w}x{h}, batch {n}", spreads)
        for ((w, h), n), spreads in groups.items()
    ) + _notes(
        ["dots: every run; bar: 95% confidence interval of the median; ticks: p50, p90, p99"]
    )


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
            parts.append(
                f"<h3>{escape(subject.name)}</h3>{_absent(subject.layer_times.not_measured)}"
            )
            continue
        total = sum(layer.p50_ms for layer in subject.layer_times)
        rows = [
            (f"{x.name} ({x.op_type})", x.p50_ms, f"{x.p50_ms:.2f} ms, {x.p50_ms / total:.0%}")
            for x in subject.layer_times[:20]
        ]
        title = f"Slowest layers of {subject.name}"
        parts.append(f"<h3>{escape(subject.name)}</h3>{bars(title, rows)}")
    return "".join(parts)


def _heat_maps(benchmark: Benchmark) -> str:
    subjects = [s for s in benchmark.subjects if not isinstance(s.quality, NotMeasured)]
    if not subjects:
        return _absent("give --images DIR")
    drifts = {
        s.name: {p.picture: p.drift.get(_MAIN) for q in _qualities(s) for p in q.pictures}
        for s in subjects
    }
    known = [abs(d) for column in drifts.values() for d in column.values() if d is not None]
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
        '<div class="scroll" tabindex="0" role="region" aria-label="Drift by picture">'
        f'<table class="heat"><thead><tr><th scope="col">picture</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + _notes([f"dB of PSNR-Y against fp32 torch; red is a loss; full colour at {most:.2g} dB"])
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


def _pictures(showcase: Showcase | None) -> str:
    if showcase is None:
        return _absent("give --images DIR; the picture that lost most is shown")
    options = "".join(
        f'<option value="{index}">{escape(panel.label)}</option>'
        for index, panel in enumerate(showcase.panels)
    )
    before = options.replace('value="1"', 'value="1" selected')
    after = options.replace('value="2"', 'value="2" selected')
    figures = "".join(
        f'<figure><img data-panel="{index}" alt="{escape(panel.label)}" '
        f'src="{_data_uri(panel.crop)}"><figcaption>{escape(panel.label)}<br>'
        f"{describe_score(panel.score)}</figcaption></figure>"
        for index, panel in enumerate(showcase.panels)
    )
    left, top, width, height = showcase.box
    return (
        '<div class="choices"><label>left <select id="before">'
        f'{before}</select></label><label>right <select id="after">{after}</select></label></div>'
        f'<div class="slider" style="--ratio: {width} / {height}">'
        f'<img class="before" alt="bicubic" src="{_data_uri(showcase.panels[1].crop)}">'
        f'<img class="after" alt="" src="{_data_uri(showcase.panels[-1].crop)}">'
        '<div class="edge"></div><input type="range" min="0" max="100" value="50" '
        'aria-label="How much of the left picture is shown"></div>'
        + _notes([f"{showcase.picture} x{showcase.scale}, {width}x{height} at ({left}, {top})"])
        + '<div class="figure">'
        f'<figure><img alt="whole picture, the crop outlined" src="{_data_uri(showcase.context)}">'
        f"<figcaption>{escape(showcase.picture)}</figcaption></figure>{figures}</div>"
        + _notes(["scores are those of the whole picture"])
    )


def _data_uri(image: RgbImage) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((640, 640))
    data = io.BytesIO()
    picture.save(data, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _predictions(predictions: Sequence[Prediction]) -> str:
    if not predictions:
        return _absent("give --target NAME or --full")
    plots = "".join(
        roofline_plot(prediction, index % NUM_COLOURS)
        for index, prediction in enumerate(predictions[:2])
    )
    return "".join(_table(t) for t in tables_from_predictions(predictions)) + plots


def _machine_name(benchmark: Benchmark) -> str:
    host = benchmark.host
    return ", ".join(part for part in (host.device, host.cpu, *host.gpus) if part)


def _machine(benchmark: Benchmark) -> str:
    host, quiet = benchmark.host, benchmark.quietness
    clocks = "; ".join(
        f"{now:.0f} MHz ({low:.0f} to {high:.0f})" for now, low, high in host.clocks_mhz
    )
    temperatures = ", ".join(f"{t.sensor} {t.celsius:.0f} °C" for t in host.temperatures)
    packages = ", ".join(f"{name} {version}" for name, version in host.packages.items())
    unknown = "not measured: this machine does not tell"
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
        "other programs": f"took {share} of the processors; load before {quiet.load_before:.1f}",
        "warm-up": "each subject until its median settles within 5%, at most 40 runs",
        "command": benchmark.command,
        "schema": str(benchmark.schema_version),
    }
    items = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{items}</dl>"
