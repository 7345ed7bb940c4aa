"""The runs of `swise-bench`: measure, report, compare with a baseline."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from swise_bench.benchmark import Settings, run_benchmark
from swise_bench.config import MAX_REGRESS, BenchConfig, Outputs, TableConfig
from swise_bench.measuring.peaks import measure_peaks
from swise_bench.measuring.trtexec import measure_trtexec, result_from_folder
from swise_bench.prediction.latency_model import load_latency_model, with_expectation
from swise_bench.prediction.roofline import (
    PREDICTED_PRECISIONS,
    Prediction,
    device_from_target,
    devices_from_target,
    predict,
)
from swise_bench.reports.names import renamed, short_names
from swise_bench.reports.page import page_from_benchmark
from swise_bench.reports.roofline_tables import document_from_prediction, tables_from_predictions
from swise_bench.reports.showcase import Showcase, write_figure
from swise_bench.reports.tables import csv_from_benchmark, tables_from_benchmark
from swise_bench.reports.terminal import markdown_from_summary, print_summary
from swise_bench.reports.text_tables import TextTable, markdown_from_tables, print_tables
from swise_bench.reports.verdict import Summary, summarize
from swise_bench.results.document import document_from_benchmark, read_benchmark
from swise_bench.results.regression import (
    compare_benchmarks,
    describe_changes,
    differing_conditions,
)
from swise_bench.results.values import Benchmark, NotMeasured, TrtexecResult
from swise_bench.subjects.input_sizes import choose_batches, choose_lr_sizes
from swise_bench.subjects.resolve_auto import resolve_auto
from swise_bench.subjects.spec import (
    NETWORK_RUNNERS,
    Subject,
    onnx_path,
    parse_subject,
)
from swise_bench.table1 import document_from_rows, find_sets, measure_table, text_from_rows
from swise_bench.worst_pictures import showcases_of
from swise_deploy.command.console import choose, progress, rich_console
from swise_deploy.errors import InputError, QualityGateError, SwiseError, UndecidedError
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.pictures.folders import find_images
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import json_text, write_json, writing
from swise_engines.targets.catalogue import find_target, load_targets
from swise_export.counting import count_onnx


def run_subjects(config: BenchConfig) -> int:
    """Measure the subjects, print and write the results, compare with a baseline.

    Results are written as they come: what is finished stays where a later part fails, or where the
    run is interrupted.

    Raises:
        InputError: A subject, folder or option cannot be used.
        QualityGateError: Slower than the baseline allows.
        UndecidedError: The measurement is too noisy to decide whether it is slower.
        SwiseError: A part could not be measured; the rest is printed and written.
    """
    for folder in config.images:
        find_images(folder)
    for folder in config.lr_images:
        find_images(folder, ground_truth=False)
    for target in config.targets:
        find_target(target)
    baseline = read_benchmark(config.baseline) if config.baseline else None
    parsed, settings = _settings(config)
    from_devices = tuple(map(result_from_folder, config.trtexec_results))
    kept: list[Benchmark] = []

    def keep(benchmark: Benchmark) -> None:
        kept[:] = [benchmark]
        if config.outputs.document:
            write_json(config.outputs.document, document_from_benchmark(benchmark))

    try:
        benchmark = run_benchmark(settings, keep=keep)
    except KeyboardInterrupt:
        if kept:
            progress("interrupted: what follows is incomplete")
            _report(config.outputs, kept[0], [], [], with_layers=False)
        raise
    measured = (*_trtexec(parsed, settings), *from_devices)
    benchmark = dataclasses.replace(benchmark, trtexec=measured)
    keep(benchmark)  # what was measured is not lost where a report cannot be made
    predictions = _predict(config, settings, benchmark)
    wanted = config.outputs.html or config.outputs.figure
    showcases = showcases_of(settings, benchmark) if wanted else []
    # Every device's layers would be megabytes.
    _report(config.outputs, benchmark, predictions, showcases, with_layers=bool(config.targets))
    if baseline is not None:
        _compare(config, baseline, benchmark)
    if benchmark.failures:
        raise SwiseError(f"not everything could be measured: {'; '.join(benchmark.failures)}")
    return 0


def _settings(config: BenchConfig) -> tuple[list[Subject], Settings]:
    """All subjects, and the settings of those that run in turn."""
    parsed = [parse_subject(text) for text in dict.fromkeys(config.subjects)]
    subjects = [subject for subject in parsed if subject.runner != "trtexec"]
    if not subjects:
        raise InputError(
            "trtexec is measured beside other subjects, to compare with. Give the engine too: "
            f"swise-bench {parsed[0].path} {parsed[0].name}"
        )
    return parsed, Settings(
        subjects=tuple(subjects),
        lr_sizes=choose_lr_sizes(config.lr_sizes, subjects),
        batches=choose_batches(config.batches, subjects),
        threads=config.threads,
        min_runs=config.min_runs,
        max_seconds=config.max_seconds,
        images=config.images,
        lr_images=config.lr_images,
        with_memory=config.with_memory or config.is_full,
        with_energy=config.with_energy or config.is_full,
        energy_seconds=config.energy_seconds,
        with_layers=config.with_layers or config.is_full,
        cache=config.cache or cache_folder("bench"),
    )


def _report(
    outputs: Outputs,
    benchmark: Benchmark,
    predictions: Sequence[Prediction],
    showcases: Sequence[Showcase],
    *,
    with_layers: bool,
) -> None:
    """Write and print everything that is asked for."""
    document = document_from_benchmark(benchmark)
    document["predictions"] = [
        document_from_prediction(p, with_layers=with_layers or p.measured_ms is not None)
        for p in predictions
    ]
    if outputs.document:
        write_json(outputs.document, document)
    names = short_names([subject.name for subject in benchmark.subjects])
    shown = renamed(benchmark, names)
    summary = summarize(shown)
    tables = [
        *tables_from_benchmark(shown),
        *tables_from_predictions(
            [dataclasses.replace(p, subject=names.get(p.subject, p.subject)) for p in predictions]
        ),
    ]
    _write(outputs.markdown, markdown_from_summary(summary) + markdown_from_tables(tables))
    _write(outputs.csv, csv_from_benchmark(benchmark))
    if outputs.figure and showcases:
        write_figure(outputs.figure, showcases[0])
        progress(f"wrote {outputs.figure}")
    if outputs.html:
        page = page_from_benchmark(benchmark, showcases=showcases, predictions=predictions)
        _write(outputs.html, page)
    _print(document, tables, summary, as_json=outputs.as_json)


def _compare(config: BenchConfig, baseline: Benchmark, benchmark: Benchmark) -> None:
    max_regress = MAX_REGRESS if config.max_regress is None else config.max_regress
    for name, (before, now) in differing_conditions(baseline, benchmark).items():
        progress(
            f"warning: {config.baseline} was measured with {name} {before!r}, this run with "
            f"{now!r}: a change may come from that"
        )
    changes = compare_benchmarks(baseline, benchmark, max_regress=max_regress)
    progress(describe_changes(changes, max_regress=max_regress))
    slower = [change.what for change in changes if change.is_regression]
    if slower:
        raise QualityGateError(
            f"slower than {config.baseline} by more than {max_regress:.1%}: "
            f"{'; '.join(slower)}. Find what changed, or measure a new baseline"
        )
    undecided = {change.undecided_reason for change in changes if change.undecided_reason}
    if undecided:
        raise UndecidedError(
            f"cannot decide whether this is slower than {config.baseline}: "
            f"{'; '.join(sorted(undecided))}. Measure again on a quiet machine"
        )


def _trtexec(subjects: Sequence[Subject], settings: Settings) -> tuple[TrtexecResult, ...]:
    """Engines that ask for trtexec, at every size and batch, after everything else."""
    return tuple(
        measure_trtexec(subject.name, subject.path, lr_size=size, batch=batch)
        for subject in subjects
        if subject.runner == "trtexec" and subject.path is not None
        for size in settings.lr_sizes
        for batch in settings.batches
    )


def _predict(config: BenchConfig, settings: Settings, benchmark: Benchmark) -> list[Prediction]:
    """Every target that was asked for, in its power modes, fp16 and int8.

    With --full every target in its first mode, and this machine.
    """
    devices = [
        device for name in config.targets for device in devices_from_target(find_target(name))
    ]
    if config.is_full:
        devices = [device_from_target(target) for target in load_targets().values()]
    predictions: list[Prediction | None] = []
    seen: set[Path] = set()
    own_device = measure_peaks(settings.threads) if config.is_full else None
    for subject, result in zip(settings.subjects, benchmark.subjects, strict=True):
        path = None if "opening" in result.failures else _file_of(subject, settings)
        if path is None or isinstance(result.costs, NotMeasured):
            continue
        if own_device is not None and result.latencies:
            latency = result.latencies[0]
            own = predict(
                subject.name,
                count_onnx(path, lr_size=latency.lr_size),
                own_device,
                precision="fp32",
                measured_ms=latency.timing.p50_ms / latency.batch,
            )
            predictions.append(own)
        if path in seen:
            continue
        seen.add(path)
        for counts in [count_onnx(path, lr_size=size) for size in config.lr_sizes or (None,)]:
            for device in devices:
                predictions += [
                    predict(subject.name, counts, device, precision=precision)
                    for precision in PREDICTED_PRECISIONS
                ]
    model = load_latency_model()
    return [
        prediction if prediction.measured_ms is not None else with_expectation(prediction, model)
        for prediction in predictions
        if prediction is not None
    ]


def _file_of(subject: Subject, settings: Settings) -> Path | None:
    resolved = resolve_auto(subject, threads=settings.threads, cache=settings.cache)
    return onnx_path(resolved, settings.cache / "exported")


def run_table1(config: TableConfig) -> int:
    """Reproduce the paper's table.

    Raises:
        InputError: A set or network that is not there, or no weights.
    """
    for name in config.networks:
        choose(name, NETWORKS, what="network")
    choose(config.runner, [name for name in NETWORK_RUNNERS if name != "auto"], what="runner")
    rows = list(
        measure_table(
            find_sets(config.data, config.sets),
            weights=config.weights,
            networks=config.networks,
            scales=config.scales,
            runner=config.runner,
            threads=config.threads,
            cache=config.cache or cache_folder("bench"),
        )
    )
    if all(isinstance(row.measured, NotMeasured) for row in rows):
        raise InputError(
            f"no weights of {', '.join(config.networks)} ship with this version. Give a folder of "
            "them with --weights DIR"
        )
    table = text_from_rows(rows)
    document = document_from_rows(rows)
    _write(config.outputs.markdown, markdown_from_tables([table]))
    if config.outputs.document:
        write_json(config.outputs.document, document)
    _print(document, [table], None, as_json=config.outputs.as_json)
    return 0


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        progress(f"wrote {path}")


def _print(
    document: dict[str, object],
    tables: Sequence[TextTable],
    summary: Summary | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        sys.stdout.write(json_text(document) + "\n")
        return
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = rich_console(width=None if has_width else 140)
    if summary is not None:
        print_summary(summary, console)
        console.print()
    print_tables(tables, console)
