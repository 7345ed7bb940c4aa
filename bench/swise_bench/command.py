"""What `swise-bench` does once its options are parsed."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rich.console import Console

from swise_bench.benchmark import Settings, run_benchmark
from swise_bench.measuring.peaks import measure_peaks
from swise_bench.measuring.roofline import (
    PREDICTED_PRECISIONS,
    Prediction,
    device_from_target,
    predict,
)
from swise_bench.measuring.trtexec import measure_trtexec
from swise_bench.reports.page import page_from_benchmark
from swise_bench.reports.roofline_tables import document_from_prediction, tables_from_predictions
from swise_bench.reports.showcase import Showcase, make_showcase, write_figure
from swise_bench.reports.tables import csv_from_benchmark, tables_from_benchmark
from swise_bench.reports.text_tables import TextTable, markdown_from_tables, print_tables
from swise_bench.results.document import (
    Benchmark,
    NotMeasured,
    TrtexecResult,
    document_from_benchmark,
    read_document,
)
from swise_bench.results.regression import compare_documents, describe_changes, differing_conditions
from swise_bench.subjects.input_sizes import choose_lr_sizes
from swise_bench.subjects.resolve_auto import resolve_auto
from swise_bench.subjects.spec import (
    NETWORK_RUNNERS,
    Subject,
    onnx_path,
    open_subject,
    parse_subject,
)
from swise_bench.table1 import find_sets, measure_table, text_from_rows
from swise_deploy.command.console import choose, progress
from swise_deploy.errors import InputError, QualityGateError
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.pictures.folders import find_images, picture_names
from swise_deploy.runner import upscale
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import json_text, write_json, writing
from swise_engines.targets.catalogue import find_target, load_targets
from swise_export.graph.counting import count_onnx

_MAX_REGRESS = 0.05


def run_subjects(options: argparse.Namespace) -> int:
    """Measure the subjects, print and write the results, compare with a baseline.

    Raises:
        InputError: No subjects, or one that cannot be used.
        QualityGateError: Slower than the baseline allows.
    """
    if not options.subjects:
        raise InputError(
            "nothing to measure. Give a file or a network, such as: swise-bench swisenet:2@torch"
        )
    _check(options)
    baseline = read_document(options.baseline) if options.baseline else None
    cache = options.cache or cache_folder("bench")
    parsed = [parse_subject(text) for text in dict.fromkeys(options.subjects)]
    subjects = [subject for subject in parsed if subject.runner != "trtexec"]
    if not subjects:
        raise InputError(
            "trtexec is measured beside other subjects, to compare with. Give the engine too: "
            f"swise-bench {parsed[0].path} {parsed[0].name}"
        )
    settings = Settings(
        subjects=tuple(resolve_auto(s, threads=options.threads, cache=cache) for s in subjects),
        lr_sizes=choose_lr_sizes(options.lr or [], subjects),
        batches=tuple(options.batch or [1]),
        threads=options.threads,
        min_runs=options.runs,
        max_seconds=options.seconds,
        images=tuple(options.images),
        with_memory=options.memory or options.full,
        with_energy=options.energy or options.full,
        energy_seconds=options.energy_seconds,
        with_layers=options.layers or options.full,
        cache=cache,
    )
    benchmark = dataclasses.replace(run_benchmark(settings), trtexec=_trtexec(parsed, settings))
    predictions = _predict(options, settings, benchmark)
    document = document_from_benchmark(benchmark)
    with_layers = bool(options.target)  # every device's layers would be megabytes
    document["predictions"] = [
        document_from_prediction(p, with_layers=with_layers or p.measured_ms is not None)
        for p in predictions
    ]
    tables = [*tables_from_benchmark(benchmark), *tables_from_predictions(predictions)]
    if options.output:  # first: what was measured is not lost where a report cannot be made
        write_json(options.output, document)
    _write(options.markdown, markdown_from_tables(tables))
    _write(options.csv, csv_from_benchmark(benchmark))
    if options.html or options.figure:
        showcase = _showcase(settings, benchmark)
        if options.figure and showcase is not None:
            write_figure(options.figure, showcase)
            progress(f"wrote {options.figure}")
        page = page_from_benchmark(benchmark, showcase=showcase, predictions=predictions)
        _write(options.html, page)
    _print(document, tables, as_json=options.json)
    if baseline is not None:
        max_regress = _MAX_REGRESS if options.max_regress is None else options.max_regress
        for name, (before, now) in differing_conditions(baseline, document).items():
            progress(
                f"warning: {options.baseline} was measured with {name} {before!r}, this run with "
                f"{now!r}: a change may come from that"
            )
        changes = compare_documents(baseline, document, max_regress=max_regress)
        progress(describe_changes(changes, max_regress=max_regress))
        slower = [change.what for change in changes if change.is_regression]
        if slower:
            raise QualityGateError(
                f"slower than {options.baseline} by more than {max_regress:.1%}: "
                f"{'; '.join(slower)}. Find what changed, or measure a new baseline"
            )
    return 0


def _check(options: argparse.Namespace) -> None:
    """Say what cannot be done before minutes are measured."""
    for folder in options.images:
        find_images(folder)
    for target in options.target:
        find_target(target)
    if options.figure and not options.images:
        raise InputError("--figure needs pictures. Give --images DIR")
    if options.max_regress is not None and options.baseline is None:
        raise InputError(f"--max-regress {options.max_regress:.1%} needs --baseline JSON")
    for path in (options.output, options.csv, options.markdown, options.html, options.figure):
        if path is not None and path.is_dir():
            raise InputError(f"cannot write {path}: {path} is a folder. Give the name of a file")


def _trtexec(subjects: Sequence[Subject], settings: Settings) -> tuple[TrtexecResult, ...]:
    """Engines that ask for trtexec, at every size and batch, after everything else."""
    return tuple(
        measure_trtexec(subject.name, subject.path, lr_size=size, batch=batch)
        for subject in subjects
        if subject.runner == "trtexec" and subject.path is not None
        for size in settings.lr_sizes
        for batch in settings.batches
    )


def _predict(
    options: argparse.Namespace, settings: Settings, benchmark: Benchmark
) -> list[Prediction]:
    """Every target that was asked for, in fp16 and int8; with --full this machine too."""
    names = list(load_targets()) if options.full else options.target
    devices = [device_from_target(find_target(name)) for name in names]
    predictions: list[Prediction | None] = []
    seen: set[Path] = set()
    own_device = measure_peaks(settings.threads) if options.full else None
    for subject, result in zip(settings.subjects, benchmark.subjects, strict=True):
        path = onnx_path(subject, settings.cache / "exported")
        if path is None:
            continue
        if own_device is not None:
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
        counts = count_onnx(path)
        for device in devices:
            predictions += [
                predict(subject.name, counts, device, precision=precision)
                for precision in PREDICTED_PRECISIONS
            ]
    return [prediction for prediction in predictions if prediction is not None]


def _showcase(settings: Settings, benchmark: Benchmark) -> Showcase | None:
    """The picture that lost most, through every subject of the first one's scale."""
    first = benchmark.subjects[0]
    if not settings.images or isinstance(first.quality, NotMeasured):
        return None
    worst = first.quality[0].worst.picture
    names = picture_names(find_images(settings.images[0]))
    path = next(path for path, name in names.items() if name == worst)
    with ExitStack() as stack:
        upscalers = {}
        for subject, result in zip(settings.subjects, benchmark.subjects, strict=True):
            if result.scale == first.scale:
                runner = open_subject(
                    subject, threads=settings.threads, folder=settings.cache / "exported"
                )
                upscalers[subject.name] = partial(upscale, stack.enter_context(runner))
        return make_showcase(path, first.scale, upscalers)


def run_table1(options: argparse.Namespace) -> int:
    """Reproduce the paper's table.

    Raises:
        InputError: No data given, a set or network that is not there, or no weights.
    """
    for name in options.network:
        choose(name, NETWORKS, what="network")
    choose(options.runner, [name for name in NETWORK_RUNNERS if name != "auto"], what="runner")
    if options.data is None:
        raise InputError(
            "--suite table1 needs --data DIR, a folder with Set5/HR, Set14/HR, B100/HR, Urban100/HR"
        )
    rows = list(
        measure_table(
            find_sets(options.data, options.set),
            weights=options.weights,
            networks=options.network,
            scales=options.scale or (2, 3, 4),
            runner=options.runner,
            threads=options.threads,
            cache=options.cache or cache_folder("bench"),
        )
    )
    if all(isinstance(row.measured, NotMeasured) for row in rows):
        raise InputError(
            f"no weights of {', '.join(options.network)} ship with this version. Give a folder of "
            "them with --weights DIR"
        )
    table = text_from_rows(rows)
    document = {"schema_version": 1, "rows": [dataclasses.asdict(row) for row in rows]}
    _write(options.markdown, markdown_from_tables([table]))
    if options.output:
        write_json(options.output, document)
    _print(document, [table], as_json=options.json)
    return 0


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        progress(f"wrote {path}")


def _print(document: dict[str, object], tables: Sequence[TextTable], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json_text(document) + "\n")
    else:
        print_tables(tables, Console(width=None if sys.stdout.isatty() else 140))
