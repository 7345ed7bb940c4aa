"""What `swise-bench` does once its options are parsed."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from swise_bench.benchmark import Settings, run_benchmark
from swise_bench.gate import compare_documents, describe_changes
from swise_bench.quality import default_cache
from swise_bench.report_tables import (
    TextTable,
    csv_from_benchmark,
    markdown_from_tables,
    print_tables,
    tables_from_benchmark,
)
from swise_bench.results import document_from_benchmark, read_document
from swise_bench.subjects import parse_subject
from swise_bench.table1 import find_sets, measure_table, text_from_rows
from swise_deploy.console import progress
from swise_deploy.errors import InputError, QualityGateError
from swise_deploy.files import write_json, writing


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
    baseline = read_document(options.baseline) if options.baseline else None
    settings = Settings(
        subjects=tuple(parse_subject(text) for text in dict.fromkeys(options.subjects)),
        lr_sizes=tuple(options.lr or [(160, 90)]),
        batches=tuple(options.batch or [1]),
        threads=options.threads,
        min_runs=options.runs,
        max_seconds=options.seconds,
        images=tuple(options.images),
        with_memory=options.memory or options.full,
        with_energy=options.energy or options.full,
        with_layers=options.layers or options.full,
        cache=options.cache or default_cache(),
    )
    benchmark = run_benchmark(settings)
    document = document_from_benchmark(benchmark)
    tables = tables_from_benchmark(benchmark)
    _write(options.markdown, markdown_from_tables(tables))
    _write(options.csv, csv_from_benchmark(benchmark))
    if options.output:
        write_json(options.output, document)
    _print(document, tables, as_json=options.json)
    if baseline is not None:
        changes = compare_documents(baseline, document, max_regress=options.max_regress)
        progress(describe_changes(changes, max_regress=options.max_regress))
        slower = [change.what for change in changes if change.is_regression]
        if slower:
            raise QualityGateError(
                f"slower than {options.baseline} by more than {options.max_regress:.1%}: "
                f"{'; '.join(slower)}. Find what changed, or measure a new baseline"
            )
    return 0


def run_table1(options: argparse.Namespace) -> int:
    """Reproduce the paper's table.

    Raises:
        InputError: No data given, or none of its sets found.
    """
    if options.data is None:
        raise InputError(
            "--suite table1 needs --data DIR, a folder with Set5/HR, Set14/HR, B100/HR, Urban100/HR"
        )
    rows = list(
        measure_table(
            find_sets(options.data, options.set),
            weights=options.weights,
            networks=options.network,
            threads=options.threads,
            cache=options.cache or default_cache(),
        )
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
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        print_tables(tables, Console())
