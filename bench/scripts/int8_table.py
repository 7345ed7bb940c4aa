"""Drift, INT8 share and time of fp32, fp16 and INT8, side by side, on whole test sets.

    python bench/scripts/int8_table.py --data SETS --set Set5 --set Urban100:20 \
        swisenet:2 swisenet:4 vdsr:2=FILE --output bench/results/int8.json

SETS holds a folder with HR pictures, or NAME/HR, for each set; NAME:20 takes 20 pictures spread
over it. INT8 is calibrated and placed on the shipped photographs or --calib, never on a test set.
What was scored is kept in OUTPUT.partial, so that a run that was stopped goes on. Prints the table
as Markdown.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from swise_deploy.checkpoints.load import LoadedNetwork, open_network
from swise_deploy.command.console import progress, run_command
from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import quality
from swise_deploy.evaluation.pairs import Pair, read_pairs
from swise_deploy.pictures.folders import calibration_paths, find_images, sample_paths
from swise_deploy.runner import upscale
from swise_deploy.runners.torch_cpu import TorchRunner
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import append_json_line, read_json_lines, sha256_of, write_json
from swise_deploy.timing import Interval, picture_call, ratio, time_calls
from swise_export.manifest import read_manifest
from swise_export.precision.calibration import RANGE_METHODS, RangeMethod
from swise_export.precision.plan import PrecisionPlan
from swise_export.precision.recipe import QuantisationRecipe
from swise_export.precision.search.quantisation import QuantisationConfig, QuantisationSearch
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import export_onnx, traced_form
from swise_export.verification.budget import DriftBudget

EVERYTHING_DB = 100.0
_TIMED_LR_SIZE = (80, 45)


@dataclass(frozen=True, slots=True)
class Row:
    """One precision of one network.

    Attributes:
        precision: "fp32", "fp16" or "INT8, <= 0.05 dB".
        psnr_y_db: Of fp32 torch, by test set.
        drift_db: Against it, by test set; empty for fp32.
        share: Of the Mult-Adds in INT8; 0 without.
        layers: In INT8, of all that could be.
        size_bytes: Of the ONNX file.
        time: On this CPU in ONNX Runtime, as a ratio to fp32's; None where the CPU computes it in
            another precision.
    """

    network: str
    scale: int
    precision: str
    psnr_y_db: dict[str, float]
    drift_db: dict[str, float]
    share: float
    layers: tuple[int, int]
    size_bytes: int
    time: Interval | None


@dataclass(frozen=True, slots=True)
class TableConfig:
    """One table.

    Attributes:
        networks: NAME:SCALE or NAME:SCALE=WEIGHTS.
        data: Folder with the test sets.
        sets: NAME, or NAME:N for N pictures spread over the set.
        max_drifts_db: Budgets, one row each; what is beyond all of them is one more row.
        calibration: Folder of pictures to calibrate on; None for the shipped photographs.
        method: How activation ranges are chosen; None lets the search choose.
        threads: Threads of ONNX Runtime.
        output: The JSON document.
    """

    networks: tuple[str, ...]
    data: Path
    sets: tuple[str, ...]
    max_drifts_db: tuple[float, ...]
    calibration: Path | None
    method: RangeMethod | None
    threads: int
    output: Path


def main() -> int:
    """Measure the networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="+", metavar="NAME:SCALE[=WEIGHTS]")
    parser.add_argument("--data", type=Path, required=True, help="folder with the test sets")
    parser.add_argument("--set", action="append", required=True, dest="sets", metavar="NAME[:N]")
    parser.add_argument("--max-drift", type=float, action="append", metavar="DB")
    parser.add_argument("--calib", type=Path, help="folder of pictures to calibrate on")
    parser.add_argument("--calib-method", choices=RANGE_METHODS)
    parser.add_argument("--threads", type=int, default=num_usable_cpus())
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    config = TableConfig(
        networks=tuple(options.networks),
        data=options.data,
        sets=tuple(options.sets),
        max_drifts_db=tuple(options.max_drift or [0.05]),
        calibration=options.calib,
        method=options.calib_method,
        threads=options.threads,
        output=options.output,
    )
    return run_command(lambda: _run(config))


def _run(config: TableConfig) -> int:
    rows = [row for text in config.networks for row in _measure(opened(text), config)]
    document = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "sets": config.sets,
        "timed_lr_size": _TIMED_LR_SIZE,
        "threads": config.threads,
        "calibration": config.calibration.name if config.calibration else "shipped photographs",
        "method": config.method or "chosen",
        "versions": {"torch": torch.__version__, "onnxruntime": ort.__version__},
    }
    write_json(config.output, document)
    sys.stdout.write(markdown(rows))
    return 0


def opened(text: str) -> LoadedNetwork:
    """Open the network that NAME:SCALE or NAME:SCALE=WEIGHTS names.

    Raises:
        InputError: It is written otherwise, or cannot be opened.
    """
    described, _, weights = text.partition("=")
    name, _, scale = described.partition(":")
    if not scale.isdecimal():
        raise InputError(f"network {text!r}: expected NAME:SCALE, or NAME:SCALE=WEIGHTS")
    return open_network(name, scale=int(scale), weights=Path(weights) if weights else None)


def _measure(network: LoadedNetwork, config: TableConfig) -> Iterator[Row]:
    sets = {text: read_pairs(spread(config.data, text), network.scale) for text in config.sets}
    with tempfile.TemporaryDirectory() as name:
        files = _artefacts(network, Path(name), config)
        scored = Scores(config.output.with_suffix(".partial"), network)
        reference = {s: scored.mean(None, pairs, config.threads) for s, pairs in sets.items()}
        times = _times(network, files, Path(name), config.threads)
        for precision, (path, plan) in files.items():
            drift = {}
            if precision != "fp32":
                means = {s: scored.mean(path, p, config.threads) for s, p in sets.items()}
                drift = {s: means[s] - reference[s] for s in sets}
            yield Row(
                network=network.name,
                scale=network.scale,
                precision=precision,
                psnr_y_db=reference,
                drift_db=drift,
                share=plan.mult_adds_share if plan else 0.0,
                layers=(len(plan.quantised_layers), len(plan.layers)) if plan else (0, 0),
                size_bytes=path.stat().st_size,
                time=times.get(precision),
            )


def spread(data: Path, text: str) -> list[Path]:
    """The pictures of a set, NAME, or NAME:N for N pictures spread over it."""
    name, _, count = text.partition(":")
    folder = data / name / "HR" if (data / name / "HR").is_dir() else data / name
    paths = find_images(folder)
    if count:
        chosen = np.linspace(0, len(paths) - 1, min(int(count), len(paths))).round().astype(int)
        paths = [paths[i] for i in chosen]
    return paths


def _artefacts(
    network: LoadedNetwork, folder: Path, config: TableConfig
) -> dict[str, tuple[Path, PrecisionPlan | None]]:
    """Every precision's file, and its plan where it has one."""
    scale = network.scale
    ranges = [pair.lr for pair in read_pairs(sample_paths()[:4], scale)]
    files: dict[str, tuple[Path, PrecisionPlan | None]] = {}
    for precision in ("fp32", "fp16"):
        path = folder / f"{precision}.onnx"
        export_onnx(network, path, precision=precision, range_images=ranges)
        files[precision] = path, None
    cache = cache_folder("int8")
    search = QuantisationSearch(
        traced_form(network),
        read_pairs(
            find_images(config.calibration) if config.calibration else calibration_paths(), scale
        ),
        scale=scale,
        config=QuantisationConfig(method=config.method, threads=config.threads, cache=cache),
        report=progress,
    )
    for budget in sorted({*(config.max_drifts_db), EVERYTHING_DB}):
        plan = search.plan(
            DriftBudget(budget),
            model_name=network.name,
            scale=scale,
            form="deploy",
            weights_sha256=network.weights_sha256,
        )
        known = [p.quantised_layers for _, p in files.values() if p is not None]
        if plan.quantised_layers and plan.quantised_layers not in known:
            title = "INT8, everything" if budget == EVERYTHING_DB else f"INT8, <= {budget:g} dB"
            path = folder / f"int8_{budget:g}.onnx"
            recipe = QuantisationRecipe(plan, search.calibration.weights)
            export_onnx(network, path, precision="int8", recipe=recipe, range_images=ranges)
            files[title] = path, plan
            cpu_form = dataclasses.replace(recipe, plan=dataclasses.replace(plan, rest="fp32"))
            export_onnx(network, _cpu_form(path), precision="int8", recipe=cpu_form)
    return files


def _cpu_form(path: Path) -> Path:
    """The same placement with fp32 beside it, which a CPU has kernels for."""
    return path.with_name(f"{path.stem}_cpu.onnx")


def _times(
    network: LoadedNetwork,
    files: dict[str, tuple[Path, PrecisionPlan | None]],
    folder: Path,
    threads: int,
) -> dict[str, Interval]:
    paths = {name: _cpu_form(path) for name, (path, plan) in files.items() if plan is not None}
    progress(f"timing {network.name} x{network.scale} on this CPU")
    with ExitStack() as stack:
        runners = {
            name: stack.enter_context(OnnxRunner(path, threads=threads))
            for name, path in {"fp32": folder / "fp32.onnx", **paths}.items()
        }
        calls = {name: picture_call(runner, _TIMED_LR_SIZE) for name, runner in runners.items()}
        timings = time_calls(calls, max_seconds=30)
    return {name: ratio(timing, timings["fp32"]) for name, timing in timings.items()}


class Scores:
    """PSNR-Y of pictures, kept in a file by artefact and picture.

    Args:
        path: The file.
        network: What was exported; its torch form is the reference.
    """

    def __init__(self, path: Path, network: LoadedNetwork) -> None:
        self._path, self._network = path, network
        self._known: dict[str, float] = dict(read_json_lines(path))

    def mean(self, artefact: Path | None, pairs: Sequence[Pair], threads: int) -> float:
        """Mean PSNR-Y of an ONNX file, or of fp32 torch, computed as a device does."""
        of = self._network.weights_sha256 if artefact is None else sha256_of(artefact)
        what = "torch" if artefact is None else read_manifest(artefact).precision
        title = f"{self._network.name} x{self._network.scale} {what}"
        keys = [f"{of} {self._network.scale} {pair.name} {pair.hr.shape}" for pair in pairs]
        if not all(key in self._known for key in keys):
            runner = (
                TorchRunner(self._network)
                if artefact is None
                else OnnxRunner(artefact, threads=threads, as_device=True)
            )
            with runner:
                for key, pair in zip(keys, pairs, strict=True):
                    if key not in self._known:
                        progress(f"{title}: {pair.name}")
                        sr = upscale(runner, pair.lr)
                        self._keep(key, quality(sr, pair.hr, border=runner.scale).psnr_y_db)
        return float(np.mean([self._known[key] for key in keys]))

    def _keep(self, key: str, psnr_y_db: float) -> None:
        self._known[key] = psnr_y_db
        append_json_line(self._path, [key, psnr_y_db])


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    sets = list(rows[0].psnr_y_db)
    head = ["network", "precision", "INT8 share", "layers", "file", *sets, "time on this CPU"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        values = [
            f"{row.psnr_y_db[s]:.2f} dB" if row.precision == "fp32" else f"{row.drift_db[s]:+.4f}"
            for s in sets
        ]
        time = row.time
        cells = [
            f"{row.network} x{row.scale}",
            row.precision,
            f"{row.share:.1%}" if row.layers[0] else "",
            f"{row.layers[0]} of {row.layers[1]}" if row.layers[0] else "",
            f"{row.size_bytes / 1e6:.2f} MB",
            *values,
            "" if time is None else f"{time.value:.2f} ({time.low:.2f} to {time.high:.2f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
