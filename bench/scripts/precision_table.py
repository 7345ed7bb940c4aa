"""Share, drift and time of every precision of a network, in every runtime of this machine.

    python bench/scripts/precision_table.py --data SETS --set Set5 --set B100:20 --set Urban100:20 \
        --crop 256 swisenet:2 fmen_s:4=FILE --output bench/results/precision/table.json

SETS and the sets are those of int8_table.py; --crop takes the middle of every picture. Drift is
against fp32 torch: in ONNX Runtime and OpenVINO as they compute here, in TensorRT by emulated
rounding. Times are processor times relative to fp32 in the same runtime, from runs in turn. Every
row is written when it is measured, and rows that OUTPUT has already are measured again with --again
alone. --precision and --runtime take rows of that precision and in that runtime alone.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from scripts.int8_table import opened, spread
from swise_bench.results.host import describe_host
from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.command.console import progress, run_command
from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.errors import InputError, SwiseError
from swise_deploy.evaluation.pairs import Pair, evaluate, read_pairs
from swise_deploy.pictures.folders import calibration_paths, sample_paths
from swise_deploy.precision import (
    EXPORT_PRECISIONS,
    ExportPrecision,
    RestPrecision,
    quantised_precision,
)
from swise_deploy.runner import Runner, upscale
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.documents import document_from_value, read_document
from swise_deploy.storage.files import write_json
from swise_deploy.timing import Interval, cpu_ratio, picture_call, time_calls
from swise_export.precision.recipe import QuantisationRecipe
from swise_export.precision.search.quantisation import QuantisationConfig, QuantisationSearch
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.runtimes.table import RUNTIMES, open_runner
from swise_export.tracing.trace import export_onnx, opset_of, traced_form
from swise_export.verification.budget import DEFAULT_DRIFT_DB, DriftBudget

SCHEMA_VERSION = 1
_TIMED_LR_SIZE = (160, 90)
_TIMED_SECONDS = 20.0
EMULATED = "TensorRT, emulated"
_Subject = tuple[ExportPrecision, str, str]
_SUBJECTS: tuple[_Subject, ...] = (
    ("fp16", EMULATED, "tensorrt"),
    ("bf16", EMULATED, "tensorrt"),
    ("int8", EMULATED, "tensorrt"),
    ("fp8", EMULATED, "tensorrt"),
    ("int8", "onnxruntime", "onnxruntime"),
    ("int8", "openvino", "openvino"),
    ("fp32", "openvino-bf16", "openvino"),
    ("int8", "openvino-bf16", "openvino"),
)
"""Precision of the file, runtime that runs it, and runtime that the file is made for."""


@dataclass(frozen=True, slots=True)
class Row:
    """A precision of a network in a runtime.

    Attributes:
        share: Of the Mult-Adds in INT8 or FP8; 0 without.
        psnr_y_db: Of fp32 torch, mean by test set.
        drift_db: Against it, mean by test set.
        worst: Picture with the largest loss, and the loss.
        time: Processor time relative to fp32 in the same runtime; None where it does not run here.
        failed: Reason why it does not run; "" where it does.
    """

    network: str
    scale: int
    precision: str
    runtime: str
    share: float
    psnr_y_db: Mapping[str, float]
    drift_db: Mapping[str, float]
    worst: tuple[str, float] | None
    time: Interval | None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The document.

    Attributes:
        sets: NAME, or NAME:N for N pictures spread over the set.
        crop: Side of the middle of each picture, HR pixels; 0 for whole pictures.
        host: Machine and versions.
    """

    rows: tuple[Row, ...]
    sets: tuple[str, ...]
    crop: int
    threads: int
    timed_lr_size: tuple[int, int]
    host: Mapping[str, object]
    schema_version: int = SCHEMA_VERSION


def main() -> int:
    """Measure the networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NAME:SCALE[=WEIGHTS]")
    parser.add_argument("--data", type=Path, required=True, help="folder with the test sets")
    parser.add_argument("--set", action="append", required=True, dest="sets", metavar="NAME[:N]")
    parser.add_argument("--crop", type=int, default=0, help="side in HR pixels; 0: whole pictures")
    parser.add_argument("--precision", action="append", choices=EXPORT_PRECISIONS)
    parser.add_argument("--runtime", action="append", choices=sorted({s[1] for s in _SUBJECTS}))
    parser.add_argument("--again", action="store_true", help="replace rows that OUTPUT has")
    parser.add_argument("--threads", type=int, default=num_usable_cpus())
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    def run() -> int:
        rows = () if not options.output.exists() else _rows_of(options.output, options)
        for text in options.networks:
            network = opened(text)
            known = {
                (row.precision, row.runtime)
                for row in rows
                if (row.network, row.scale) == (network.name, network.scale)
            }
            subjects = [
                subject
                for subject in _SUBJECTS
                if (options.again or subject[:2] not in known)
                and subject[0] in (options.precision or EXPORT_PRECISIONS)
                and subject[1] in (options.runtime or [subject[1]])
            ]
            if not subjects:
                continue
            sets = {
                name: read_pairs(spread(options.data, name), network.scale, crop=options.crop)
                for name in options.sets
            }
            for row in measured(network, sets, options.threads, subjects):
                rows = (*(r for r in rows if _subject_of(r) != _subject_of(row)), row)
                rows = tuple(sorted(rows, key=partial(_place, rows)))
                table = Table(
                    rows, tuple(options.sets), options.crop, options.threads, _TIMED_LR_SIZE,
                    dataclasses.asdict(describe_host()),
                )  # fmt: skip
                write_json(options.output, document_from_value(table))
        sys.stdout.write(markdown(rows))
        return 0

    return run_command(run)


def _rows_of(path: Path, options: argparse.Namespace) -> tuple[Row, ...]:
    """The rows of a table of the same pictures.

    Raises:
        InputError: They are of others.
    """
    table = read_document(
        path, Table, what="the table", advice="Give another --output", schema_version=SCHEMA_VERSION
    )
    found, asked = (table.sets, table.crop), (tuple(options.sets), options.crop)
    if found != asked:
        raise InputError(
            f"{path} is a table of {found[0]}, cropped to {found[1]}; asked for {asked[0]}, "
            f"cropped to {asked[1]}. Give another --output, or the same pictures"
        )
    return table.rows


def _subject_of(row: Row) -> tuple[str, int, str, str]:
    return row.network, row.scale, row.precision, row.runtime


def _place(rows: Sequence[Row], row: Row) -> tuple[int, int]:
    """The place of a row in the table: networks as they were measured, subjects as listed."""
    networks = list(dict.fromkeys((r.network, r.scale) for r in rows))
    subjects: list[tuple[str, str]] = [subject[:2] for subject in _SUBJECTS]
    return networks.index((row.network, row.scale)), subjects.index((row.precision, row.runtime))


def measured(
    network: LoadedNetwork,
    sets: Mapping[str, Sequence[Pair]],
    threads: int,
    subjects: Sequence[_Subject],
) -> Iterator[Row]:
    """The rows of one network, each when it is measured."""
    with tempfile.TemporaryDirectory() as folder:
        files, shares = artefacts(network, Path(folder), threads, subjects)
        with TorchRunner(network) as torch_runner:
            full = {name: _scores(torch_runner, pairs) for name, pairs in sets.items()}
        means = {name: float(np.mean([*scores.values()])) for name, scores in full.items()}
        for precision, runtime, made_for in subjects:
            progress(f"{network.name} x{network.scale} {precision} in {runtime}")
            is_low = quantised_precision(precision) is not None
            path = files[precision, made_for if is_low else "tensorrt"]
            share = shares.get((precision, made_for), 0.0)
            row = Row(network.name, network.scale, precision, runtime, share, means, {}, None, None)
            try:
                row = _with_drift(row, path, sets, full, threads)
                if runtime != EMULATED:
                    fp32 = files["fp32", "tensorrt"]
                    row = replace(row, time=_time(path, fp32, runtime, threads))
            except SwiseError as error:
                row = replace(row, failed=str(error))
            yield row


def artefacts(
    network: LoadedNetwork, folder: Path, threads: int, subjects: Sequence[_Subject]
) -> tuple[dict[tuple[str, str], Path], dict[tuple[str, str], float]]:
    """A file for each precision and runtime that it is made for, and shares of the Mult-Adds."""
    ranges = [pair.lr for pair in read_pairs(sample_paths()[:4], network.scale)]
    files: dict[tuple[str, str], Path] = {}
    shares: dict[tuple[str, str], float] = {}
    wanted = {subject[0] for subject in subjects} | {"fp32"}
    for precision in [p for p in EXPORT_PRECISIONS if p in wanted]:
        low = quantised_precision(precision)
        if low is None:
            path = files[precision, "tensorrt"] = folder / f"{precision}.onnx"
            export_onnx(network, path, precision=precision, range_images=ranges)
            continue
        for made_for in dict.fromkeys(m for p, _, m in subjects if p == precision):
            rest: RestPrecision = "fp16" if RUNTIMES[made_for].is_emulated else "fp32"
            search = QuantisationSearch(
                traced_form(network, opset=opset_of(precision, rest)),
                read_pairs(calibration_paths(), network.scale),
                scale=network.scale,
                config=QuantisationConfig(
                    precision=low,
                    rest=rest,
                    runtime=made_for,
                    threads=threads,
                    cache=cache_folder("int8"),
                ),
                report=progress,
            )
            plan = search.plan(
                DriftBudget(DEFAULT_DRIFT_DB),
                model_name=network.name,
                scale=network.scale,
                form="deploy",
                weights_sha256=network.weights_sha256,
            )
            path = files[precision, made_for] = folder / f"{precision}_{made_for}.onnx"
            shares[precision, made_for] = plan.mult_adds_share
            recipe = QuantisationRecipe(plan, search.calibration.weights)
            export_onnx(network, path, precision=precision, recipe=recipe, range_images=ranges)
    return files, shares


def _with_drift(
    row: Row,
    path: Path,
    sets: Mapping[str, Sequence[Pair]],
    full: Mapping[str, Mapping[str, float]],
    threads: int,
) -> Row:
    emulates = row.runtime == EMULATED
    runner: Runner = (
        OnnxRunner(path, threads=threads, as_device=True)
        if emulates
        else open_runner(row.runtime, path, threads=threads)
    )
    with runner:
        scores = {name: _scores(runner, pairs) for name, pairs in sets.items()}
    losses = {s: {p: scores[s][p] - full[s][p] for p in full[s]} for s in sets}
    worst = min(((f"{s} {p}", v) for s, of in losses.items() for p, v in of.items()),
                key=lambda entry: entry[1])  # fmt: skip
    drift = {s: float(np.mean([*of.values()])) for s, of in losses.items()}
    return replace(row, drift_db=drift, worst=worst)


def _scores(runner: Runner, pairs: Sequence[Pair]) -> dict[str, float]:
    scores = evaluate(partial(upscale, runner), pairs, runner.scale)
    return {name: score.psnr_y_db for name, score in scores.items()}


def _time(path: Path, fp32: Path, runtime: str, threads: int) -> Interval:
    with ExitStack() as stack:
        # bf16 and INT8 of OpenVINO are compared with its fp32.
        full_runtime = runtime.removesuffix("-bf16")
        runners = {
            "fp32": stack.enter_context(open_runner(full_runtime, fp32, threads=threads)),
            "low": stack.enter_context(open_runner(runtime, path, threads=threads)),
        }
        calls = {name: picture_call(runner, _TIMED_LR_SIZE) for name, runner in runners.items()}
        timings = time_calls(calls, max_seconds=_TIMED_SECONDS)
    return cpu_ratio(timings["low"], timings["fp32"])


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    if not rows:
        return ""
    sets = list(rows[0].psnr_y_db)
    head = ["network", "precision", "runtime", "8-bit share", *sets, "worst picture", "time"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    before = ("", 0)
    for row in rows:
        if (row.network, row.scale) != before:
            before = row.network, row.scale
            full = [f"{row.psnr_y_db[s]:.2f} dB" for s in sets]
            cells = [f"{row.network} x{row.scale}", "fp32", "torch", "", *full, "", "1"]
            lines.append("| " + " | ".join(cells) + " |")
        share = f"{row.share:.1%}" if row.share else ""
        drift = [f"{row.drift_db[s]:+.3f}" if row.drift_db else "does not run" for s in sets]
        worst = "" if row.worst is None else f"{row.worst[0]} {row.worst[1]:+.3f}"
        time = row.time
        text = "" if time is None else f"{time.value:.2f} ({time.low:.2f} to {time.high:.2f})"
        cells = ["", row.precision, row.runtime, share, *drift, worst, text]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
