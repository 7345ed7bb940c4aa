"""One run of `swise-upscale`: plan, open the network, upscale, sum up."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from swise_deploy.command.console import exit_code_of, print_error, progress
from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import Format, format_of
from swise_engines.upscaling.config import STANDARD_STREAM, UpscaleConfig
from swise_engines.upscaling.jobs import (
    Job,
    plan_jobs,
    read_file,
    split_done,
    upscale_files,
    write_file,
)
from swise_engines.upscaling.meter import Meter
from swise_engines.upscaling.opening import artefact_of, scale_of
from swise_engines.upscaling.pipeline import Outcome
from swise_engines.upscaling.ray import RaySettings, upscale_on_ray
from swise_engines.upscaling.stills import upscale_bytes
from swise_engines.upscaling.summary import Summary
from swise_engines.upscaling.upscaler import Upscaler
from swise_engines.upscaling.video.transcode import Progress, upscale_video

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".m2ts", ".mpg", ".mpeg", ".wmv"}
)


def run_upscale(config: UpscaleConfig) -> int:
    """Upscale what the settings name; return the exit code.

    Raises:
        InputError: The settings name nothing, or something that cannot be upscaled.
        BackendMissingError: The runtime of the model is not installed.
    """
    if config.uses_standard_streams:
        return _run_pipe(config)
    videos = [text for text in config.inputs if Path(text).suffix.lower() in VIDEO_SUFFIXES]
    if videos and len(config.inputs) > 1:
        raise InputError("a video is upscaled alone. Give it as the only input")
    summary = _run_video(config) if videos else _run_pictures(config)
    if isinstance(summary, int):
        return summary
    if config.as_json:
        sys.stdout.write(summary.to_json() + "\n")
    elif not config.is_quiet:
        sys.stdout.write(summary.to_text() + "\n")
    return summary.exit_code


def _run_pictures(config: UpscaleConfig) -> Summary:
    jobs = plan_jobs(config.inputs, Path(config.output), file_format=config.file_format)
    to_do, done = (jobs, []) if config.overwrite else split_done(jobs)
    if not to_do:
        return Summary(skipped=len(done))
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if config.ray_address is None:
            upscaler = stack.enter_context(_open(config))
            summary = Summary(upscaler.name, upscaler.scale, upscaler.reason)
            outcomes = upscale_files(upscaler, to_do, quality=config.quality)
        else:
            summary, outcomes = _start_on_ray(config, config.ray_address, to_do)
        summary.skipped = len(done)
        _report_start(summary, f"{len(to_do)} to do", config)
        meter = Meter("files", is_quiet=config.is_quiet)
        for number, outcome in enumerate(outcomes, 1):
            _count(summary, outcome)
            meter.update(number, len(to_do), str(outcome.item.source))
        summary.seconds = time.perf_counter() - started
    return summary


def _start_on_ray(
    config: UpscaleConfig, address: str, jobs: list[Job]
) -> tuple[Summary, Iterator[Outcome[Job]]]:
    artefact = artefact_of(config.model, weights=config.weights, scale=config.scale)
    settings = RaySettings(address, threads=config.threads or 2, runner=config.runner)
    outcomes = upscale_on_ray(
        artefact, jobs, settings=settings, tile=config.tile, quality=config.quality
    )
    return Summary(f"{artefact.name} on Ray at {address}", scale_of(artefact)), outcomes


def _open(config: UpscaleConfig) -> Upscaler:
    if not config.is_quiet:
        # The first run exports and measures for seconds, and logs both before it starts them.
        logging.getLogger("swise_engines").setLevel(logging.INFO)
    return Upscaler.open(
        config.model,
        weights=config.weights,
        scale=config.scale,
        runner=config.runner,
        tile=config.tile,
        memory_mib=config.memory_mib,
        threads=config.threads,
    )


def _report_start(summary: Summary, work: str, config: UpscaleConfig) -> None:
    if config.is_quiet:
        return
    progress(f"x{summary.scale} with {summary.runner}: {work}")
    if summary.reason:
        progress(f"why: {summary.reason}")


def _count(summary: Summary, outcome: Outcome[Job]) -> None:
    if outcome.error is None:
        summary.done += 1
        return
    summary.failures[str(outcome.item.source)] = str(outcome.error)
    print_error(f"{outcome.item.source}: {outcome.error}")


def _run_pipe(config: UpscaleConfig) -> int:
    (source,) = config.inputs
    if source != STANDARD_STREAM and not Path(source).is_file():
        raise InputError(f"no picture at {source}. Check the path")
    file_format = config.file_format or _pipe_format(source, config.output)
    data = sys.stdin.buffer.read() if source == STANDARD_STREAM else read_file(Path(source))
    with _open(config) as upscaler:
        summary = Summary(upscaler.name, upscaler.scale, upscaler.reason)
        _report_start(summary, "1 picture", config)
        encoded = upscale_bytes(upscaler, data, file_format, quality=config.quality)
    if config.output == STANDARD_STREAM:
        sys.stdout.buffer.write(encoded)
        sys.stdout.buffer.flush()
    else:
        write_file(Path(config.output), encoded)
    return 0


def _pipe_format(source: str, output: str) -> Format:
    named = next((text for text in (output, source) if text != STANDARD_STREAM), None)
    return "png" if named is None else format_of(Path(named).suffix)


def _run_video(config: UpscaleConfig) -> Summary | int:
    source, target = _video_paths(config)
    if target.exists() and not config.overwrite:
        return Summary(skipped=1)
    started = time.perf_counter()
    with _open(config) as upscaler:
        summary = Summary(upscaler.name, upscaler.scale, upscaler.reason)
        _report_start(summary, str(source), config)
        meter = Meter("frames", is_quiet=config.is_quiet)

        def report(now: Progress) -> None:
            meter.update(now.frame, now.num_frames)

        result = upscale_video(upscaler, source, target, options=config.video, report=report)
        summary.seconds = time.perf_counter() - started
    if result.interruption is not None:
        print_error(f"interrupted; the first {result.num_frames} frames are in {result.path}")
        return exit_code_of(result.interruption)
    for problem in result.problems:
        print_error(f"{source}: {problem}")
    if result.problems:
        readable = f"{result.num_frames} frames were written to {result.path}"
        summary.failures[str(source)] = "; ".join([*result.problems, readable])
    else:
        summary.done = 1
    return summary


def _video_paths(config: UpscaleConfig) -> tuple[Path, Path]:
    source, target = Path(config.inputs[0]), Path(config.output)
    if not source.is_file():
        raise InputError(f"no video at {source}. Check the path")
    if target.is_dir() or not target.suffix:
        target /= source.name
    if target.exists() and target.samefile(source):
        raise InputError(f"{source} would overwrite itself. Choose another output")
    return source, target
