"""A benchmark as one HTML page that loads nothing and reads without JavaScript too.

The verdict comes first, then quality against latency, then pictures; everything else is folded. The
page names no folder of this machine, so that it can be shared.
"""

from collections.abc import Sequence
from html import escape
from importlib import resources

from swise_bench.prediction.roofline import Prediction
from swise_bench.reports.charts import (
    Point,
)
from swise_bench.reports.names import renamed, short_names
from swise_bench.reports.page_details import both_widths, folded_sections, machine_name, notes
from swise_bench.reports.page_pictures import pictures_section
from swise_bench.reports.showcase import Showcase
from swise_bench.reports.verdict import LARGE_DB, MAIN, Summary, Verdict, summarize
from swise_bench.results.values import (
    Benchmark,
    NotMeasured,
)
from swise_deploy.command.console import size_text
from swise_deploy.evaluation.metrics import METRICS

MANY = 12
"""From this number of subjects on, rows are denser and the plot names only those that stand out."""


def page_from_benchmark(
    benchmark: Benchmark,
    *,
    showcases: Sequence[Showcase] = (),
    predictions: Sequence[Prediction] = (),
) -> str:
    """The whole page.

    Args:
        benchmark: The results.
        showcases: Crops for the sliders, the worst picture first.
        predictions: Rooflines of devices that are not here.
    """
    names = short_names([subject.name for subject in benchmark.subjects])
    shown = renamed(benchmark, names)
    summary = summarize(shown)
    sections = [
        ("verdict", "Verdict", _verdict(summary)),
        ("tradeoff", "Quality against latency", _tradeoff(shown, summary)),
        ("pictures", "Pictures, the worst first", pictures_section(showcases, names)),
    ]
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>'
        for key, title, content in sections
        if content
    )
    folded = "".join(
        f'<details id="{key}"><summary><h2>{title}</h2></summary>{content}</details>'
        for key, title, content in folded_sections(shown, predictions, names)
        if content
    )
    title = ", ".join(subject.name for subject in shown.subjects)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>swise-bench: {escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_resource("report.css")}</style>
</head>
<body>
<header><h1>swise-bench</h1><p class="note">{escape(benchmark.created[:10])}, \
{escape(machine_name(benchmark))}</p>\
<button id="mode" type="button">Dark or light</button></header>
<main>{body}{folded}</main>
<script>{_resource("report.js")}</script>
</body>
</html>
"""


def _resource(name: str) -> str:
    return resources.files("swise_bench.reports").joinpath(name).read_text(encoding="utf-8")


def _verdict(summary: Summary) -> str:
    most = max((v.share.value for v in summary.verdicts if v.share), default=1.0) * 1.12
    rows = "".join(_verdict_row(v, most) for v in summary.verdicts)
    dense = " dense" if len(summary.verdicts) > MANY else ""
    warning = f'<p class="warning" role="note">{escape(summary.warning)}</p>'
    return (
        f'<p class="headline">{escape(summary.headline)}</p>'
        f"{warning if summary.warning else ''}"
        f'<ol class="verdicts{dense}">{rows}</ol>{notes([summary.conditions])}'
    )


def _verdict_row(verdict: Verdict, most: float) -> str:
    kinds = [
        name
        for name, holds in (
            ("fastest", verdict.is_fastest),
            ("best", verdict.is_best),
            ("reference", verdict.is_reference),
            ("loss", verdict.loss is not None and verdict.loss <= -LARGE_DB),
        )
        if holds
    ]
    badges = "".join(f' <span class="badge {kind}">{kind}</span>' for kind in kinds)
    return (
        f'<li class="{" ".join(kinds)}"><span class="who"><b>{escape(verdict.name)}</b>{badges}'
        f" <small>{escape(verdict.facts)}</small></span>{_bar(verdict, most)}"
        f'<span class="words" title="{escape(verdict.words)}">{escape(verdict.words)}</span></li>'
    )


def _bar(verdict: Verdict, most: float) -> str:
    share = verdict.share
    if share is None:
        return '<span class="bar"></span>'
    low, high = (100 * min(value, most) / most for value in (share.low, share.high))
    width = 100 * share.value / most
    line = f'<i class="ci" style="left:{low:.2f}%;width:{max(high - low, 0.2):.2f}%"></i>'
    return (
        f'<span class="bar" title="{share.value:.3f} ({share.low:.3f} to {share.high:.3f})">'
        f'<i class="fill" style="width:{width:.2f}%"></i>'
        f"{'' if verdict.is_reference else line}</span>"
    )


def _tradeoff(benchmark: Benchmark, summary: Summary) -> str:
    by_name = {verdict.name: verdict for verdict in summary.verdicts}
    points = [
        (by_name[subject.name], latency, value)
        for subject in benchmark.subjects
        if subject.latencies
        for latency in subject.latencies[:1]
        if (value := by_name[subject.name].quality) is not None
    ]
    if len(points) < 2:
        return ""
    names_all = len(points) <= MANY
    marks = [
        Point(
            f"{v.name}: {METRICS[MAIN].text(value)}, {latency.timing.p50_ms:.4g} ms",
            latency.timing.p50_ms,
            value,
            v.number - 1,
            v.name if names_all or v.is_fastest or v.is_best or v.is_reference else str(v.number),
        )
        for v, latency, value in points
    ]
    first = points[0][1]
    images = next(
        s.quality[0].images for s in benchmark.subjects if not isinstance(s.quality, NotMeasured)
    )
    label = f"median latency in ms at LR {size_text(first.lr_size)}"
    return both_widths(marks, label) + notes(
        [f"{METRICS[MAIN].title} on {images}; upper left is better"]
    )
