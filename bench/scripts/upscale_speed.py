"""Measure `swise-upscale`: time outside the network, memory, and what tiles change.

    python bench/scripts/upscale_speed.py share  FOLDER --scale 4    folder run against a plain loop
    python bench/scripts/upscale_speed.py memory PICTURE --scale 4   peak resident memory of one run
    python bench/scripts/upscale_speed.py whole  PICTURE... --scale 2   peak memory, uncut
    python bench/scripts/upscale_speed.py tiles  PICTURE... --scale 2   tiled against full frame

Run it with the package installed. `share` interleaves the two ways, so that other programs disturb
their ratio less than their seconds.
"""

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from swise_bench.results.host import QuietnessWatch, describe_host
from swise_deploy.evaluation.metrics import psnr
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import find_images
from swise_deploy.storage.files import write_json
from swise_engines.choosing.candidates import RunnerName
from swise_engines.upscaling.artefacts import artefact_of
from swise_engines.upscaling.batch import read_file, upscale_files, write_file
from swise_engines.upscaling.jobs import Job
from swise_engines.upscaling.stills import upscale_bytes
from swise_engines.upscaling.tiles.memory import bytes_per_pixel
from swise_engines.upscaling.upscaler import Upscaler
from swise_export.runtimes.table import runner_choices

Way = Callable[[Upscaler, list[Job]], None]


@dataclass(frozen=True, slots=True)
class UpscaleSpeedConfig:
    """One measurement.

    Attributes:
        pictures: A folder for `share`, pictures for `memory` and `tiles`.
        model: Name in the registry, or a file.
        scale: Output size over input size; None for the model's only one.
        rounds: Rounds of `share`.
        num_pictures: Pictures in a round of `share`.
        tiles: Sides of the tiles, in LR pixels.
        runner: Runtime, as `swise-upscale --runner` takes it.
    """

    pictures: tuple[Path, ...]
    model: str
    scale: int | None
    rounds: int
    num_pictures: int
    tiles: tuple[int, ...]
    runner: RunnerName


def main() -> int:
    """Run one measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("share", "memory", "whole", "tiles"))
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--model", default="swisenet")
    parser.add_argument("--scale", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--number", type=int, default=4, help="pictures in a round of share")
    parser.add_argument("--tile", type=int, nargs="*", default=[128, 192, 256])
    parser.add_argument("--runner", default="auto", choices=runner_choices())
    parser.add_argument("--output", type=Path, metavar="JSON", help="what was measured, and where")
    arguments = parser.parse_args()
    config = UpscaleSpeedConfig(
        pictures=tuple(arguments.pictures),
        model=arguments.model,
        scale=arguments.scale,
        rounds=arguments.rounds,
        num_pictures=arguments.number,
        tiles=tuple(arguments.tile),
        runner=arguments.runner,
    )
    watch = QuietnessWatch()
    found = {"share": _share, "memory": _memory, "whole": _whole, "tiles": _tiles}[arguments.what](
        config
    )
    if arguments.output:
        asked = [
            Path(argument).name for argument in sys.argv[1:]
        ]  # without the paths of this machine
        document = {
            "schema_version": 1,
            "command": shlex.join(["bench/scripts/upscale_speed.py", *asked]),
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **found,
            "warning": watch.finish().warning,
            "host": dataclasses.asdict(describe_host()),
        }
        write_json(arguments.output, document)
    return 0


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _share(config: UpscaleSpeedConfig) -> dict[str, object]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Upscaler.open(config.model, scale=config.scale, runner=config.runner) as upscaler,
    ):
        width, height = 1280 // upscaler.scale, 720 // upscaler.scale
        jobs = []
        for path in find_images(config.pictures[0])[: config.num_pictures]:
            source = Path(folder) / "in" / f"{path.stem}.png"
            source.parent.mkdir(exist_ok=True)
            with Image.open(path) as image:
                image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(source)
            jobs.append(Job(source, Path(folder) / "out" / source.name))
        upscaler(read_rgb(jobs[0].source))  # warm-up
        _print(f"{upscaler.name}, x{upscaler.scale}, {len(jobs)} pictures of {width}x{height}")
        results = [
            {name: _timed(way, upscaler, jobs) for name, way in _WAYS.items()}
            for _ in range(config.rounds)
        ]
    shares = {
        name: [1 - network_s / wall_s for wall_s, network_s in (r[name] for r in results)]
        for name in _WAYS
    }
    for name, values in shares.items():
        _print(f"{name:8} outside the network: {100 * statistics.median(values):.1f}% of the time")
    ratios = [r["folder"][0] / r["plain"][0] for r in results]
    _print(f"folder / plain, wall time: {statistics.median(ratios):.3f} (median of {len(ratios)})")
    return {
        "runner": upscaler.name,
        "model": config.model,
        "scale": upscaler.scale,
        "lr_size": [width, height],
        "num_pictures": len(jobs),
        "share_outside_network": shares,
        "folder_over_plain": ratios,
    }


def _timed(way: Way, upscaler: Upscaler, jobs: list[Job]) -> tuple[float, float]:
    before, start = upscaler.network_s, time.perf_counter()
    way(upscaler, jobs)
    return time.perf_counter() - start, upscaler.network_s - before


def _in_folder(upscaler: Upscaler, jobs: list[Job]) -> None:
    failures = [outcome.error for outcome in upscale_files(upscaler, jobs) if outcome.error]
    assert not failures, failures


def _in_plain_loop(upscaler: Upscaler, jobs: list[Job]) -> None:
    for job in jobs:
        write_file(job.target, upscale_bytes(upscaler, read_file(job.source), "png"))


_WAYS: dict[str, Way] = {"plain": _in_plain_loop, "folder": _in_folder}


def _memory(config: UpscaleSpeedConfig) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "swise_engines.upscaling.cli", str(config.pictures[0])]
        command += ["-o", f"{folder}/sr.png", "--model", config.model]
        command += ["--runner", config.runner, "--json"]
        if config.scale is not None:
            command += ["--scale", str(config.scale)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603
        runner = json.loads(done.stdout)["runner"]
        with Image.open(f"{folder}/sr.png") as image:
            size = image.size
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    _print(f"{size[0]}x{size[1]} output, {runner}: {peak_mib:.0f} MiB resident at most")
    return {
        "runner": runner,
        "model": config.model,
        "sr_size": size,
        "peak_rss_mib": round(peak_mib),
    }


def _whole(config: UpscaleSpeedConfig) -> dict[str, object]:
    """Peak memory of whole pictures for each LR pixel, beside the estimate that is budgeted."""
    artefact = artefact_of(config.model, scale=config.scale)
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for path in config.pictures:
        with spawn.Pool(1) as pool:  # the peak is that of a process of its own
            size, peak_bytes, runtime = pool.apply(_peak_of_whole, (artefact, path, config.runner))
        num_pixels = size[0] * size[1]
        measured, budgeted = peak_bytes / num_pixels, bytes_per_pixel(artefact)
        _print(
            f"{size[0]}x{size[1]}, {runtime}: {measured:.0f} bytes a pixel at the peak, "
            f"{budgeted:.0f} budgeted ({budgeted / measured:.2f} times)"
        )
        rows.append([size, runtime, round(measured), round(budgeted)])
    return {"model": config.model, "size_runtime_measured_budgeted": rows}


def _peak_of_whole(artefact: Path, path: Path, runner: RunnerName) -> tuple[list[int], int, str]:
    image = read_rgb(path)
    with Upscaler.open(artefact, runner=runner, tile=1 << 16) as upscaler:
        upscaler(image[:16, :16])
        before = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        upscaler(image)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        height, width = image.shape[:2]
        return [width, height], peak - before * resource.getpagesize(), upscaler.runtime


def _tiles(config: UpscaleSpeedConfig) -> dict[str, object]:
    differences = []
    for path in config.pictures:
        image = read_rgb(path)
        with Upscaler.open(
            config.model, scale=config.scale, runner=config.runner, tile=8192
        ) as upscaler:
            whole = upscaler(image)
        _print(f"{path.name} {image.shape[1]}x{image.shape[0]}")
        for tile in config.tiles:
            with Upscaler.open(
                config.model, scale=config.scale, runner=config.runner, tile=tile
            ) as upscaler:
                tiled = upscaler(image)
            difference = np.abs(tiled.astype(int) - whole)
            share = 100 * float(np.mean(difference > 1))
            psnr_db = psnr(tiled.astype(float), whole.astype(float))
            _print(
                f"  tiles of {tile}: largest difference {difference.max()}/255, {share:.2f}% of "
                f"samples differ by more than 1, PSNR {psnr_db:.1f} dB"
            )
            differences.append([path.name, tile, int(difference.max()), round(psnr_db, 2)])
    return {"model": config.model, "picture_tile_difference_psnr": differences}


if __name__ == "__main__":
    sys.exit(main())
