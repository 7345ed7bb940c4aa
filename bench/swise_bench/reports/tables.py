"""A benchmark as tables of text, and as CSV."""

import csv
import io
import statistics
from collections.abc import Callable, Iterator

from swise_bench.reports.text_tables import MISSING, TextTable
from swise_bench.results.values import (
    Benchmark,
    Cost,
    Energy,
    Latency,
    Memory,
    NotMeasured,
    SubjectResult,
)
from swise_deploy.command.console import size_text
from swise_deploy.evaluation.metrics import METRICS, MetricName


def tables_from_benchmark(benchmark: Benchmark) -> list[TextTable]:
    """Every table that has rows."""
    tables = [
        _latency_table(benchmark),
        _ratio_table(benchmark),
        _trtexec_table(benchmark),
        _cost_table(benchmark),
        _quality_table(benchmark),
        _memory_table(benchmark),
        _layer_table(benchmark),
    ]
    return [table for table in tables if table.rows]


def csv_from_benchmark(benchmark: Benchmark) -> str:
    """One line for every subject, input size and batch; numbers without rounding."""
    columns: dict[str, Callable[[SubjectResult, Latency], object]] = {
        "subject": lambda s, _: s.name,
        "runner": lambda s, _: s.runner,
        "model": lambda s, _: s.model,
        "scale": lambda s, _: s.scale,
        "precision": lambda s, _: s.precision,
        "io": lambda s, _: s.io,
        "size_bytes": lambda s, _: s.size_bytes,
        "lr_width": lambda _, x: x.lr_size[0],
        "lr_height": lambda _, x: x.lr_size[1],
        "batch": lambda _, x: x.batch,
        "threads": lambda _, __: benchmark.threads,
        "p50_ms": lambda _, x: x.timing.p50_ms,
        "p90_ms": lambda _, x: x.timing.p90_ms,
        "p99_ms": lambda _, x: x.timing.p99_ms,
        "median_low_ms": lambda _, x: x.timing.median_ms.low,
        "median_high_ms": lambda _, x: x.timing.median_ms.high,
        "runs": lambda _, x: len(x.timing.samples_ms),
        "first_ms": lambda _, x: x.timing.first_ms,
        "load_ms": lambda s, _: s.load_ms,
        "images_per_second": lambda _, x: x.images_per_second,
        "params": lambda s, _: _first_cost(s, lambda c: c.params),
        "mult_adds": lambda s, _: _first_cost(s, lambda c: c.mult_adds),
        "mult_adds_lr_width": lambda s, _: _first_cost(s, lambda c: c.lr_size[0]),
        "mult_adds_lr_height": lambda s, _: _first_cost(s, lambda c: c.lr_size[1]),
        **{name: _first_value(name) for name in METRICS},
        **{f"drift_{name}": _first_drift(name) for name in METRICS},
        "peak_rss_bytes": lambda s, _: (
            s.memory.peak_rss_bytes if isinstance(s.memory, Memory) else None
        ),
        "joules_per_frame": lambda s, _: (
            s.energy.joules_per_frame if isinstance(s.energy, Energy) else None
        ),
    }
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for subject in benchmark.subjects:
        for latency in subject.latencies:
            writer.writerow(cell(subject, latency) for cell in columns.values())
    return text.getvalue()


def _first_cost(subject: SubjectResult, pick: Callable[[Cost], int]) -> int | None:
    return None if isinstance(subject.costs, NotMeasured) else pick(subject.costs[0])


def _first_value(name: MetricName) -> Callable[[SubjectResult, Latency], float | None]:
    def value(subject: SubjectResult, _: Latency) -> float | None:
        quality = subject.quality
        return None if isinstance(quality, NotMeasured) else quality[0].values.get(name)

    return value


def _first_drift(name: MetricName) -> Callable[[SubjectResult, Latency], float | None]:
    def drift(subject: SubjectResult, _: Latency) -> float | None:
        quality = subject.quality
        return None if isinstance(quality, NotMeasured) else quality[0].drift.get(name)

    return drift


def _latency_table(benchmark: Benchmark) -> TextTable:
    rows = []
    for subject, latency in _latencies(benchmark):
        timing = latency.timing
        median = timing.median_ms
        rows.append(
            (
                subject.name,
                size_text(latency.lr_size),
                str(latency.batch),
                f"{timing.p50_ms:.2f}",
                f"{median.low:.2f}..{median.high:.2f}",
                f"{timing.p90_ms:.2f}",
                f"{timing.p99_ms:.2f}",
                f"{latency.images_per_second:.2f}",
                f"{timing.first_ms:.0f}",
                f"{subject.load_ms:.0f}",
                f"{len(timing.samples_ms)}{'' if timing.is_steady else ' *'}",
            )
        )
    notes = [
        f"{s.name}: LR {size_text(x.lr_size)}, batch {x.batch}: the device worked "
        f"{statistics.median(x.device_ms):.3f} ms of it, by its own events, copies left out"
        for s, x in _latencies(benchmark)
        if not isinstance(x.device_ms, NotMeasured)
    ]
    notes += [f"{s.name}: {s.runner}, {s.precision}, {s.io} pictures" for s in benchmark.subjects]
    clocks = dict.fromkeys(x.clock for _, x in _latencies(benchmark))
    notes.append(f"{benchmark.threads} threads, subjects in turn; {', '.join(clocks)}")
    notes += [f"not measured: {failure}" for failure in benchmark.failures]
    if any(not x.timing.is_steady for _, x in _latencies(benchmark)):
        notes.append("* times had not settled when warm-up ended")
    return TextTable(
        "Latency in ms",
        (
            "subject",
            "LR",
            "batch",
            "p50",
            "95% CI",
            "p90",
            "p99",
            "images/s",
            "first",
            "load",
            "runs",
        ),
        tuple(rows),
        tuple(notes),
    )


def _latencies(benchmark: Benchmark) -> Iterator[tuple[SubjectResult, Latency]]:
    for subject in benchmark.subjects:
        for latency in subject.latencies:
            yield subject, latency


def _ratio_table(benchmark: Benchmark) -> TextTable:
    rows = tuple(
        (
            r.subject,
            r.reference,
            size_text(r.lr_size),
            str(r.batch),
            f"{r.times_slower.value:.3f}",
            f"{r.times_slower.low:.3f}..{r.times_slower.high:.3f}",
            f"{r.times_cpu.value:.3f}",
            f"{r.times_cpu.low:.3f}..{r.times_cpu.high:.3f}",
        )
        for r in benchmark.ratios
    )
    return TextTable(
        "Time relative to the first subject",
        (
            "subject",
            "reference",
            "LR",
            "batch",
            "times its time",
            "95% CI",
            "times its CPU time",
            "95% CI",
        ),
        rows,
        (
            _ratio_note(benchmark),
            "CPU time: all threads of the process, those that spin while they wait too",
        ),
    )


def _ratio_note(benchmark: Benchmark) -> str:
    words = "median of the ratios within each round"
    if benchmark.quietness.reliability == "unreliable":
        return f"{words}: unreliable, see the warning"
    return f"{words}: other programs disturb it less than the times"


def _trtexec_table(benchmark: Benchmark) -> TextTable:
    rows = []
    for result in benchmark.trtexec:
        found = result.summary
        where = (result.name, size_text(result.lr_size), str(result.batch))
        if isinstance(found, NotMeasured):
            rows.append((*where, f"not measured: {found.not_measured}", *[MISSING] * 5))
            continue
        gpu, host = found.rows_ms["GPU Compute Time"], found.rows_ms.get("Latency", {})
        figures = [(gpu, "median"), (gpu, "p90"), (gpu, "p99"), (host, "median")]
        texts = [f"{row[key]:.3f}" if key in row else MISSING for row, key in figures]
        rows.append((*where, *texts, f"{found.throughput_qps:.1f}", found.version or MISSING))
    return TextTable(
        "trtexec",
        (
            "subject",
            "LR",
            "batch",
            "GPU p50 ms",
            "GPU p90",
            "GPU p99",
            "host p50",
            "calls/s",
            "TensorRT",
        ),
        tuple(rows),
        (
            "a program of its own, not in turn with the others: compare with the device's own time",
            "TensorRT 11 leaves host copies out by default and replays CUDA graphs; 10 does not",
        ),
    )


def _cost_table(benchmark: Benchmark) -> TextTable:
    rows: list[tuple[str, ...]] = []
    notes = []
    for subject in benchmark.subjects:
        if isinstance(subject.costs, NotMeasured):
            notes.append(f"{subject.name}: not counted: {subject.costs.not_measured}")
            continue
        rows += [_cost_row(subject.name, cost) for cost in subject.costs]
        first = subject.costs[0]
        listed = ", ".join(f"{name} x{count}" for name, count in first.uncounted.items())
        notes.append(
            f"{subject.name}: counted from the {first.counted_from}; "
            f"without Mult-Adds: {listed or 'nothing'}"
        )
        notes += [f"{subject.name}: not counted: {n}: {why}" for n, why in first.unknown.items()]
    return TextTable(
        "Cost, counted",
        ("subject", "LR", "SR", "params", "Mult-Adds G", "activations M", "convs", "traffic GB"),
        tuple(rows),
        (*notes, "1 Mult-Add = 1 MAC; traffic: every operator's inputs and outputs, unfused"),
    )


def _cost_row(name: str, cost: Cost) -> tuple[str, ...]:
    return (
        name,
        size_text(cost.lr_size),
        size_text(cost.sr_size),
        f"{cost.params:,}",
        f"{cost.mult_adds / 1e9:.2f}",
        f"{cost.activations / 1e6:.1f}",
        str(cost.num_convolutions),
        f"{cost.traffic_bytes / 1e9:.2f}",
    )


_PROTOCOL = (
    "Y of BT.601, border of `scale` pixels left out, LR by MATLAB's bicubic; drift: against fp32 "
    "torch, minus is a loss"
)


def _quality_table(benchmark: Benchmark) -> TextTable:
    rows = []
    notes = []
    main, main_metric = next(iter(METRICS.items()))
    for subject in benchmark.subjects:
        if isinstance(subject.quality, NotMeasured):
            continue
        for quality in subject.quality:
            worst = quality.worst
            lost = _signed(worst.drift.get(main), main_metric.drift_digits - 1)
            rows.append(
                (
                    subject.name,
                    quality.images,
                    str(len(quality.pictures)),
                    *(_text(quality.values.get(n), m.digits) for n, m in METRICS.items()),
                    *(_signed(quality.drift.get(n), m.drift_digits) for n, m in METRICS.items()),
                    f"{worst.picture} {lost}",
                )
            )
            notes += [
                f"{subject.name}: {name} of {quality.images} skipped: {why}"
                for name, why in quality.skipped.items()
            ]
            if quality.exact:
                notes.append(
                    f"{len(quality.exact)} of {len(quality.pictures)} pictures of {quality.images} "
                    f"come back exactly in a subject: {main_metric.title} leaves them out"
                )
    return TextTable(
        "Quality",
        (
            "subject",
            "images",
            "n",
            *(metric.header for metric in METRICS.values()),
            *(f"drift {metric.header}" for metric in METRICS.values()),
            "worst",
        ),
        tuple(rows),
        (
            _PROTOCOL,
            *dict.fromkeys(notes),
        ),
    )


def _text(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:+.{digits}f}"


def _memory_table(benchmark: Benchmark) -> TextTable:
    rows = []
    asked = [
        s
        for s in benchmark.subjects
        if not all(_is_unasked(value) for value in (s.memory, s.energy))
    ]
    for subject in asked:
        memory, energy = subject.memory, subject.energy
        rows.append(
            (
                subject.name,
                *(
                    (
                        f"{memory.peak_rss_bytes / 2**20:.0f}",
                        f"{memory.before_load_rss_bytes / 2**20:.0f}",
                        f"{memory.device_bytes / 2**20:.0f}"
                        if isinstance(memory.device_bytes, int)
                        else f"not measured: {memory.device_bytes.not_measured}",
                    )
                    if isinstance(memory, Memory)
                    else (f"not measured: {memory.not_measured}", MISSING, MISSING)
                ),
                f"{energy.joules_per_frame:.3f} ({energy.sensor})"
                if isinstance(energy, Energy)
                else f"not measured: {energy.not_measured}",
            )
        )
    return TextTable(
        "Memory in MiB, energy",
        ("subject", "peak RSS", "of it before loading", "device", "J per frame above idle"),
        tuple(rows),
        ("each subject in a process of its own",),
    )


def _is_unasked(value: object) -> bool:
    return isinstance(value, NotMeasured) and value.not_measured.startswith("not asked for")


def _layer_table(benchmark: Benchmark) -> TextTable:
    rows = []
    for subject in benchmark.subjects:
        if isinstance(subject.layer_times, NotMeasured):
            continue
        total = sum(layer.p50_ms for layer in subject.layer_times)
        rows += [
            (
                subject.name,
                layer.name,
                layer.op_type,
                f"{layer.p50_ms:.3f}",
                f"{layer.p50_ms / total:.1%}",
            )
            for layer in subject.layer_times[:10]
        ]
    return TextTable(
        "Slowest layers",
        ("subject", "layer", "operator", "p50 ms", "share"),
        tuple(rows),
        ("the runtime's own profiler, the optimised graph, medians of 5 runs",),
    )
