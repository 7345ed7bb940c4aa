"""The tables of docs/upscaling.md: tiles against the full frame, memory, time to the first result.

    python bench/scripts/upscale_tables.py PICTURE...   # measures, writes the results, prints
    python bench/scripts/upscale_tables.py PICTURE... --only first   # keeps the other tables
    python bench/scripts/upscale_tables.py              # prints what was measured before

SwiseNet with the shipped weights. Run it with the package installed.
"""

import argparse
import dataclasses
import datetime
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swise_bench.results.host import QuietnessWatch, describe_host
from swise_deploy.command.console import run_command
from swise_deploy.evaluation.metrics import psnr
from swise_deploy.pictures.files import read_rgb
from swise_deploy.storage.documents import read_document
from swise_deploy.storage.files import write_json
from swise_engines.choosing.candidates import RunnerName
from swise_engines.upscaling.artefacts import artefact_of
from swise_engines.upscaling.opening import GLOBAL_NETWORKS, open_source
from swise_engines.upscaling.tiles.memory import bytes_per_pixel
from swise_engines.upscaling.tiles.tiling import Overlap
from swise_engines.upscaling.upscaler import Upscaler

RESULTS = Path(__file__).resolve().parents[1] / "results" / "upscaling" / "tables.json"

SIZE = (256, 192)
"""(width, height) of the middle of each picture."""

TILE = 96
# Neither the picture nor its averages fit into it at x2, where tiles are of 96 pixels.
SMALL_MIB = 128
TILED_MIB = 256
MARGINS = (6, 8)
SCALES = (2, 4)
RUNNERS: tuple[RunnerName, ...] = ("onnxruntime", "openvino")
FIRST_SIZES = ((64, 48),)
_MIB = 1 << 20
MARGIN = GLOBAL_NETWORKS["swisenet"].margin
KINDS = ("memory", "first", "tiles")
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class TileRow:
    """One way to tile one picture, against the full frame in ONNX Runtime.

    Attributes:
        way: "own", "exact", "exact, averages in tiles" or "margin N".
        picture: Its number, from 1.
        max_difference: In 8-bit values.
        within: 99.9% of the samples differ by at most this, in 8-bit values.
        psnr_db: Against the full frame.
        times_whole: Processor time over that of the full frame, on one thread: median of ratios of
            runs in turn. Other programs disturb it little.
    """

    way: str
    picture: int
    max_difference: float
    within: float
    psnr_db: float
    times_whole: float


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Peak memory of one run of the upscaler above that before the picture, and its budget.

    Attributes:
        scale: Output size over input size.
        runner: ONNX Runtime or OpenVINO.
        way: The whole picture, or tiles within TILED_MIB.
        measured_mib: At the peak, buffers of the upscaler included.
        budget_mib: What the network may take.
    """

    scale: int
    runner: str
    way: Literal["whole", "tiles", "exact tiles"]
    measured_mib: float
    budget_mib: float


@dataclass(frozen=True, slots=True)
class FirstRow:
    """Seconds from the start of `swise-upscale` to the written file.

    Attributes:
        width: Of the picture.
        height: Of the picture.
        way: "empty cache" or "second run".
        runner: As `--runner` takes it.
        seconds: Wall time.
        cpu_s: Processor time of the process, which other programs disturb less.
    """

    width: int
    height: int
    way: str
    runner: str
    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Tables:
    """What was measured, and where."""

    created: str
    host: str
    warnings: dict[str, str]
    tiles: list[TileRow]
    memory: list[MemoryRow]
    first: list[FirstRow]
    schema_version: int = 1


def main() -> int:
    """Measure where pictures are given, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="JSON")
    arguments = parser.parse_args()
    return run_command(lambda: _run(arguments.pictures, arguments.output, arguments.only))


def _run(pictures: Sequence[Path], output: Path, kinds: Sequence[str]) -> int:
    if pictures:
        before = read_tables(output) if set(kinds) != set(KINDS) else None
        write_json(output, dataclasses.asdict(measure(pictures, kinds, before)))
    sys.stdout.write("\n\n".join("\n".join(lines) for lines in tables(read_tables(output))) + "\n")
    return 0


def read_tables(path: Path) -> Tables:
    """Read results that were written before."""
    advice = "Make them with bench/scripts/upscale_tables.py PICTURE..."
    return read_document(path, Tables, what="the results", advice=advice)


def measure(pictures: Sequence[Path], kinds: Sequence[str], before: Tables | None) -> Tables:
    """Measure tables on these pictures; those of other kinds are kept as they were before."""
    host = describe_host()
    found = before or Tables("", "", {}, [], [], [])
    for kind in kinds:
        watch = QuietnessWatch()
        rows = list(_ROWS[kind](pictures))
        changes: dict[str, Any] = {kind: rows}
        changes["warnings"] = {**found.warnings, kind: watch.finish().warning}
        found = dataclasses.replace(found, **changes)
    return dataclasses.replace(
        found,
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        host=f"{host.cpu}, {host.num_cpus} CPUs",
    )


def _middle(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    width, height = size
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _times_whole(upscale: Callable[[], object], whole: Callable[[], object]) -> float:
    """The median over rounds of the processor time of one run over that of the other."""

    def cpu_s(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return statistics.median(cpu_s(upscale) / cpu_s(whole) for _ in range(ROUNDS))


def _tile_rows(pictures: Sequence[Path]) -> Iterator[TileRow]:
    for number, path in enumerate(pictures, 1):
        yield from _rows_of_picture(number, _middle(read_rgb(path), SIZE))


def _rows_of_picture(number: int, image: NDArray[np.uint8]) -> Iterator[TileRow]:
    picture = image.astype(np.float32) / 255
    path = artefact_of("swisenet", scale=2)
    frame = Upscaler.open(path, runner="onnxruntime", tile=1 << 16, threads=1)
    whole = frame(picture)

    def row(way: str, upscaler: Upscaler) -> TileRow:
        with upscaler:
            sr = upscaler(picture)
            times = _times_whole(lambda: upscaler(picture), lambda: frame(picture))
        difference = np.abs(sr - whole) * 255
        found = TileRow(
            way,
            number,
            round(float(difference.max()), 2),
            round(float(np.quantile(difference, 0.999)), 2),
            round(psnr(sr * 255.0, whole * 255.0), 1),
            round(times, 2),
        )
        sys.stderr.write(f"{found}\n")
        return found

    yield row("own", Upscaler.open(path, runner="onnxruntime", tile=TILE, threads=1))
    yield row("exact", Upscaler.open(path, exact=True, tile=TILE, threads=1))
    in_tiles = Upscaler.open(path, exact=True, memory_mib=SMALL_MIB, threads=1)
    yield row("exact, averages in tiles", in_tiles)
    for margin in MARGINS:
        opened = open_source(path, exact=True, tile=TILE, threads=1)
        overlap = Overlap(margin, step=2)
        upscaler = Upscaler(
            opened.runner,
            opened.limits,
            find_overlap=lambda _, overlap=overlap: overlap,  # type: ignore[misc]
            exact=opened.exact,
        )
        yield row(f"margin {margin}", upscaler)
    frame.close()


def _memory_rows(pictures: Sequence[Path]) -> Iterator[MemoryRow]:
    spawn = multiprocessing.get_context("spawn")
    jobs: list[tuple[int, RunnerName, Literal["whole", "tiles", "exact tiles"]]] = [
        (scale, runner, way)
        for scale in SCALES
        for runner in RUNNERS
        for way in ("whole", "tiles", "exact tiles")
        if way != "exact tiles" or runner == "onnxruntime"
    ]
    for scale, runner, way in jobs:
        with spawn.Pool(1) as pool:  # the peak is that of a process of its own
            measured = pool.apply(_peak_mib, (scale, pictures[0], runner, way))
        cost = bytes_per_pixel(artefact_of("swisenet", scale=scale))
        budget = cost * SIZE[0] * SIZE[1] / _MIB if way == "whole" else TILED_MIB
        found = MemoryRow(scale, runner, way, round(measured), round(budget))
        sys.stderr.write(f"{found}\n")
        yield found


def _peak_mib(scale: int, path: Path, runner: RunnerName, way: str) -> float:
    image = _middle(read_rgb(path), SIZE)
    if way == "whole":
        upscaler = Upscaler.open("swisenet", scale=scale, runner=runner, tile=1 << 16)
    else:
        exact = way == "exact tiles"
        upscaler = Upscaler.open(
            "swisenet", scale=scale, runner=runner, memory_mib=TILED_MIB, exact=exact
        )
    with upscaler:
        upscaler(image[:16, :16])
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        upscaler(image)
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (peak_bytes - pages * resource.getpagesize()) / _MIB


def _first_rows(pictures: Sequence[Path]) -> Iterator[FirstRow]:
    for size in FIRST_SIZES:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "lr.png", Path(folder) / "sr.png"
            Image.fromarray(_middle(read_rgb(pictures[0]), size)).save(source)
            for runner in ("auto", "onnxruntime"):
                environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/{runner}"}
                command = [sys.executable, "-m", "swise_engines.upscaling.cli", str(source)]
                command += ["-o", str(target), "--runner", runner, "-q", "--overwrite"]
                for way in ("empty cache", "second run"):
                    start, start_cpu = time.perf_counter(), _children_cpu_s()
                    subprocess.run(command, check=True, env=environment)  # noqa: S603
                    seconds = round(time.perf_counter() - start, 1)
                    cpu_s = round(_children_cpu_s() - start_cpu, 1)
                    found = FirstRow(*size, way, runner, seconds, cpu_s)
                    sys.stderr.write(f"{found}\n")
                    yield found


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_ROWS: dict[str, Callable[[Sequence[Path]], Iterator[Any]]] = {
    "memory": _memory_rows,
    "first": _first_rows,
    "tiles": _tile_rows,
}


def tables(found: Tables) -> list[list[str]]:
    """The tables as lines of Markdown: tiles, margins, memory, first result."""
    return [_tile_lines(found), _margin_lines(found), _memory_lines(found), _first_lines(found)]


_WAYS = {
    "own": "default: averages of each tile",
    "exact": "`--exact`",
    "exact, averages in tiles": "`--exact`, averages found in tiles",
}


def _tile_lines(found: Tables) -> list[str]:
    titles = ["largest difference", "99.9% within", "PSNR", "processor time over the full frame's"]
    lines = [
        f"| x2, {SIZE[0]}x{SIZE[1]}, tiles of {TILE} | {' | '.join(titles)} |",
        "|---|" + "---|" * len(titles),
    ]
    for way, title in _WAYS.items():
        rows = [row for row in found.tiles if row.way == way]
        cells = [
            ", ".join(f"{row.max_difference:.2f}" for row in rows),
            ", ".join(f"{row.within:.2f}" for row in rows),
            ", ".join(f"{row.psnr_db:.1f}" for row in rows) + " dB",
            ", ".join(f"{row.times_whole:.2f}" for row in rows),
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _margin_lines(found: Tables) -> list[str]:
    lines = [
        f"| margin | {' | '.join(str(margin) for margin in (*MARGINS, MARGIN))} |",
        "|---|" + "---:|" * (len(MARGINS) + 1),
    ]
    worst = [
        max(row.max_difference for row in found.tiles if row.way == way)
        for way in (*(f"margin {margin}" for margin in MARGINS), "exact")
    ]
    return [*lines, f"| largest difference | {' | '.join(f'{value:.2f}' for value in worst)} |"]


def _memory_lines(found: Tables) -> list[str]:
    lines = [
        f"| SwiseNet, {SIZE[0]}x{SIZE[1]} | | measured | budgeted | measured / budgeted |",
        "|---|---|---:|---:|---:|",
    ]
    names = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    ways = {"whole": "whole picture", "tiles": "tiles", "exact tiles": "`--exact`, tiles"}
    return lines + [
        f"| x{row.scale}, {names[row.runner]} | {ways[row.way]} | {row.measured_mib:.0f} MiB | "
        f"{row.budget_mib:.0f} MiB | {row.measured_mib / row.budget_mib:.2f} |"
        for row in found.memory
    ]


def _first_lines(found: Tables) -> list[str]:
    lines = [
        "| picture, `--runner` | empty cache | processor time | second run | processor time |",
        "|---|---:|---:|---:|---:|",
    ]
    keys = list(dict.fromkeys((row.width, row.height, row.runner) for row in found.first))
    for width, height, runner in keys:
        rows = {
            row.way: row
            for row in found.first
            if (row.width, row.height, row.runner) == (width, height, runner)
        }
        cells = [
            f"{row.seconds:.1f} s | {row.cpu_s:.1f} s"
            for row in (rows["empty cache"], rows["second run"])
        ]
        lines.append(f"| {width}x{height}, `{runner}` | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
