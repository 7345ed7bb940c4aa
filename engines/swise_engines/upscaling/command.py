"""One run of `swise-upscale`: what was asked, done, and summed up."""

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swise_deploy.command.console import exit_code_of, print_error, progress
from swise_deploy.errors import InputError
from swise_engines.upscaling.jobs import (
    Job,
    plan_jobs,
    read_file,
    split_done,
    upscale_files,
    write_file,
)
from swise_engines.upscaling.opening import artefact_of, scale_of
from swise_engines.upscaling.pictures.codecs import Format, format_of
from swise_engines.upscaling.pipeline import Outcome
from swise_engines.upscaling.ray import RaySettings, upscale_on_ray
from swise_engines.upscaling.stills import upscale_bytes
from swise_engines.upscaling.upscaler import Upscaler
from swise_engines.upscaling.video.transcode import Progress, upscale_video
from swise_engines.upscaling.video.writer import VideoOptions

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".m2ts", ".mpg", ".mpeg", ".wmv"}
)
_REPORT_EVERY_S = 1.0


@dataclass(slots=True)
class Summary:
    """What a run came to; no runner where there was nothing to do.

    `reason` says why that runner, where several were possible.
    """

    runner: str = ""
    scale: int = 0
    reason: str = ""
    done: int = 0
    skipped: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """1 where anything failed."""
        return 1 if self.failures else 0

    def to_text(self) -> str:
        """One line."""
        again = f" (--overwrite does {'it' if self.skipped == 1 else 'them'} again)"
        there = f"{self.skipped} there already{again if self.skipped else ''}"
        counts = f"{self.done} done, {there}, {len(self.failures)} failed"
        if not self.runner:
            return f"{counts}; nothing to do"
        rate = f", {self.done / self.seconds:.2f} files/s" if self.done and self.seconds else ""
        return f"{counts}; x{self.scale} with {self.runner}, {self.seconds:.1f} s{rate}"

    def to_json(self) -> str:
        """A JSON document."""
        return json.dumps(
            {
                "runner": self.runner,
                "runner_reason": self.reason,
                "scale": self.scale,
                "done": self.done,
                "skipped": self.skipped,
                "failed": self.failures,
                "seconds": round(self.seconds, 3),
            },
            indent=2,
        )


def run_upscale(arguments: argparse.Namespace) -> int:
    """Do what the command line asks; return the exit code.

    Raises:
        InputError: The arguments contradict each other, or name nothing.
        BackendMissingError: What runs the model is not installed.
    """
    if "-" in arguments.inputs or arguments.output == "-":
        return _run_pipe(arguments)
    videos = [text for text in arguments.inputs if Path(text).suffix.lower() in VIDEO_SUFFIXES]
    if videos and len(arguments.inputs) > 1:
        raise InputError("a video is upscaled alone. Give it as the only input")
    if videos:
        return _run_video(arguments)
    jobs = plan_jobs(arguments.inputs, Path(arguments.output), file_format=arguments.format)
    to_do, done = (jobs, []) if arguments.overwrite else split_done(jobs)
    started = time.perf_counter()
    if not to_do:
        summary = Summary(skipped=len(done))
        return _finish(summary, arguments)
    with contextlib.ExitStack() as stack:
        if arguments.ray is None:
            upscaler = stack.enter_context(_open(arguments))
            summary = Summary(upscaler.name, upscaler.scale, upscaler.reason)
            outcomes = upscale_files(upscaler, to_do, quality=arguments.quality)
        else:
            summary, outcomes = _ray_outcomes(arguments, to_do)
        summary.skipped = len(done)
        _tell(f"x{summary.scale} with {summary.runner}: {len(to_do)} to do", arguments)
        _tell_reason(summary.reason, arguments)
        for outcome in _reported(outcomes, len(to_do), quiet=arguments.quiet):
            _count(summary, outcome)
        summary.seconds = time.perf_counter() - started
    return _finish(summary, arguments)


def _ray_outcomes(
    arguments: argparse.Namespace, jobs: list[Job]
) -> tuple[Summary, Iterator[Outcome[Job]]]:
    if arguments.memory is not None:
        raise InputError("--memory is not passed to Ray's workers. Use --tile")
    artefact = artefact_of(arguments.model, weights=arguments.weights, scale=arguments.scale)
    settings = RaySettings(arguments.ray, threads=arguments.threads or 2, runner=arguments.runner)
    outcomes = upscale_on_ray(
        artefact, jobs, settings=settings, tile=arguments.tile, quality=arguments.quality
    )
    scale = scale_of(artefact)
    return Summary(f"{artefact.name} on Ray at {arguments.ray}", scale), outcomes


def _open(arguments: argparse.Namespace) -> Upscaler:
    if not arguments.quiet:
        # Measuring and exporting take seconds, once; what they are is said before they start.
        logging.getLogger("swise_engines").setLevel(logging.INFO)
    return Upscaler.open(
        arguments.model,
        weights=arguments.weights,
        scale=arguments.scale,
        runner=arguments.runner,
        tile=arguments.tile,
        memory_mib=arguments.memory,
        threads=arguments.threads,
    )


def _tell(message: str, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        progress(message)


def _tell_reason(reason: str, arguments: argparse.Namespace) -> None:
    if reason:
        _tell(f"why: {reason}", arguments)


def _count(summary: Summary, outcome: Outcome[Job]) -> None:
    if outcome.error is None:
        summary.done += 1
        return
    summary.failures[str(outcome.item.source)] = str(outcome.error)
    print_error(f"{outcome.item.source}: {outcome.error}")


def _reported(
    outcomes: Iterable[Outcome[Job]], num_jobs: int, *, quiet: bool
) -> Iterator[Outcome[Job]]:
    """Pass outcomes on; tell about once a second how far they are."""
    started = last = time.perf_counter()
    for number, outcome in enumerate(outcomes, 1):
        yield outcome
        now = time.perf_counter()
        if quiet or (number < num_jobs and now - last < _REPORT_EVERY_S):
            continue
        last = now
        rate = number / (now - started)
        left = round((num_jobs - number) / rate)
        progress(
            f"{number}/{num_jobs} {outcome.item.source}  {rate:.2f} files/s, {_clock(left)} left"
        )


def _finish(summary: Summary, arguments: argparse.Namespace) -> int:
    if arguments.json:
        sys.stdout.write(summary.to_json() + "\n")
    elif not arguments.quiet:
        sys.stdout.write(summary.to_text() + "\n")
    return summary.exit_code


def _run_pipe(arguments: argparse.Namespace) -> int:
    if len(arguments.inputs) > 1:
        raise InputError("- stands alone: give one input with - as input or output")
    (source,) = arguments.inputs
    if source != "-" and not Path(source).is_file():
        raise InputError(f"no picture at {source}. Check the path")
    file_format = arguments.format or _pipe_format(source, arguments.output)
    data = sys.stdin.buffer.read() if source == "-" else read_file(Path(source))
    with _open(arguments) as upscaler:
        _tell(f"x{upscaler.scale} with {upscaler.name}", arguments)
        _tell_reason(upscaler.reason, arguments)
        encoded = upscale_bytes(upscaler, data, file_format, quality=arguments.quality)
    if arguments.output == "-":
        sys.stdout.buffer.write(encoded)
        sys.stdout.buffer.flush()
    else:
        write_file(Path(arguments.output), encoded)
    return 0


def _pipe_format(source: str, output: str) -> Format:
    named = next((text for text in (output, source) if text != "-"), None)
    return "png" if named is None else format_of(Path(named).suffix)


def _run_video(arguments: argparse.Namespace) -> int:
    source, target = _video_paths(arguments)
    if target.exists() and not arguments.overwrite:
        summary = Summary(skipped=1)
        return _finish(summary, arguments)
    report = _VideoMeter(quiet=arguments.quiet)
    options = VideoOptions(arguments.codec, arguments.crf, arguments.preset)
    started = time.perf_counter()
    with _open(arguments) as upscaler:
        _tell(f"x{upscaler.scale} with {upscaler.name}: {source}", arguments)
        _tell_reason(upscaler.reason, arguments)
        result = upscale_video(upscaler, source, target, options=options, report=report)
        seconds = time.perf_counter() - started
        summary = Summary(upscaler.name, upscaler.scale, upscaler.reason, seconds=seconds)
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
    return _finish(summary, arguments)


def _video_paths(arguments: argparse.Namespace) -> tuple[Path, Path]:
    source, target = Path(arguments.inputs[0]), Path(arguments.output)
    if not source.is_file():
        raise InputError(f"no video at {source}. Check the path")
    if target.is_dir() or not target.suffix:
        target /= source.name
    if target.exists() and target.samefile(source):
        raise InputError(f"{source} would overwrite itself. Choose another output")
    return source, target


class _VideoMeter:
    """Tells about once a second how far a video is."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._told_s = 0.0

    def __call__(self, now: Progress) -> None:
        due = now.seconds - self._told_s >= _REPORT_EVERY_S or now.frame == now.num_frames
        if self._quiet or not due:
            return
        self._told_s = now.seconds
        fps = now.frame / now.seconds
        total, left = "", ""
        if now.num_frames:
            seconds_left = max(round((now.num_frames - now.frame) / fps), 0)
            total, left = f"/{now.num_frames}", f", {_clock(seconds_left)} left"
        progress(f"frame {now.frame}{total}  {fps:.2f} fps{left}")


def _clock(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02d}"
