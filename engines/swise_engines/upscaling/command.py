"""One run of `swise-upscale`: plan, open the network, upscale, sum up."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from swise_deploy.command.console import exit_code_of, print_error, progress
from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError, OutputError, SwiseError
from swise_deploy.pictures.folders import printable
from swise_deploy.pictures.formats import Format, format_of
from swise_deploy.storage.files import refuse_long_name, refuse_unwritable_path
from swise_engines.upscaling.artefacts import artefact_of, scale_of, stated_scale
from swise_engines.upscaling.batch import check_picture, read_file, upscale_files, write_file
from swise_engines.upscaling.config import STANDARD_STREAM, UpscaleConfig
from swise_engines.upscaling.jobs import Job, Plan, counts_text, plan_jobs, split_done
from swise_engines.upscaling.meter import Meter
from swise_engines.upscaling.pipeline import Outcome
from swise_engines.upscaling.ray import RaySettings, upscale_on_ray
from swise_engines.upscaling.stills import upscale_bytes
from swise_engines.upscaling.summary import Summary
from swise_engines.upscaling.upscaler import Upscaler
from swise_engines.upscaling.video.transcode import Progress, check_video, upscale_video


def run_upscale(config: UpscaleConfig) -> int:
    """Upscale what the settings name; return the exit code.

    Raises:
        InputError: The settings name nothing, or something that cannot be upscaled.
        OutputError: The name of the output is too long.
        BackendMissingError: The runtime of the model is not installed.
    """
    refuse_long_name(Path(config.output))
    if config.uses_standard_streams:
        return _run_pipe(config)
    plan = plan_jobs(config.inputs, Path(config.output), file_format=config.file_format)
    summary, interruption = _run_plan(plan, config)
    if config.as_json:
        sys.stdout.write(summary.to_json() + "\n")
    elif not config.is_quiet:
        sys.stdout.write(summary.to_text() + "\n")
    return summary.exit_code if interruption is None else exit_code_of(interruption)


def _run_plan(plan: Plan, config: UpscaleConfig) -> tuple[Summary, KeyboardInterrupt | None]:
    if plan.left_out and not config.is_quiet:
        number, counts = len(plan.left_out), counts_text(plan.num_left_out)
        progress(f"{number} files are neither pictures nor videos and are left out: {counts}")
    to_do, done = (list(plan.jobs), []) if config.overwrite else split_done(plan.jobs)
    summary = Summary(skipped=len(done), left_out=plan.num_left_out)
    pictures = [job for job in to_do if job.kind == "picture"]
    videos = [job for job in to_do if job.kind == "video"]
    if not to_do:
        return summary, None
    if config.ray_address is not None and videos:
        raise InputError(f"{videos[0].source} is a video, and --ray serves pictures. Leave it out")
    if videos:
        require("av", extra="video", purpose="upscaling a video")
    if config.ray_address is None:
        to_do = _without_refused(to_do, config, summary, is_alone=len(plan.jobs) == 1)
        if not to_do:
            return summary, None
        pictures, videos = ([j for j in to_do if j.kind == kind] for kind in ("picture", "video"))

    def report(job: Job, share: float) -> None:
        if share < 1:  # the rest is encoding
            meter.update(num_done + share, len(to_do), printable(job.source))

    started = time.perf_counter()
    interruption: KeyboardInterrupt | None = None
    num_done = 0
    with contextlib.ExitStack() as stack:
        if config.ray_address is None:
            upscaler = stack.enter_context(_open(config))
            summary.runner, summary.scale = upscaler.name, upscaler.scale
            summary.reason = upscaler.reason
            outcomes = upscale_files(upscaler, pictures, quality=config.quality, report=report)
        else:
            outcomes = _start_on_ray(config, config.ray_address, pictures, summary)
        work = f"{to_do[0].source}" if len(to_do) == 1 else f"{len(to_do)} to do"
        _report_start(summary, work, config)
        meter = Meter("files", is_quiet=config.is_quiet)
        for outcome in outcomes:
            num_done += 1
            _count(summary, outcome)
            meter.update(num_done, len(to_do), printable(outcome.item.source))
        for job in videos:
            interruption = _run_video(upscaler, job, config, summary, is_alone=len(plan.jobs) == 1)
            if interruption is not None:
                break
        summary.seconds = time.perf_counter() - started
    return summary, interruption


def _without_refused(
    jobs: list[Job], config: UpscaleConfig, summary: Summary, *, is_alone: bool
) -> list[Job]:
    """Drop the first jobs as long as they are refused, whatever the network: it takes seconds.

    Raises:
        SwiseError: The only job is a video, and is refused.
    """
    scale = stated_scale(config.model, config.scale)
    for index, job in enumerate(jobs):
        try:
            refuse_unwritable_path(job.target)
            if job.kind == "picture":
                check_picture(read_file(job.source), format_of(job.target.suffix), scale)
            else:
                check_video(job.source, job.target, scale=scale, options=config.video)
        except SwiseError as error:
            if is_alone and job.kind == "video":
                raise
            _count(summary, Outcome(job, error))
        else:
            return jobs[index:]
    return []


def _start_on_ray(
    config: UpscaleConfig, address: str, jobs: list[Job], summary: Summary
) -> Iterator[Outcome[Job]]:
    artefact = artefact_of(config.model, weights=config.weights, scale=config.scale)
    summary.runner = f"{artefact.name} on Ray at {address}"
    summary.scale = scale_of(artefact)
    settings = RaySettings(address, threads=config.threads or 2, runner=config.runner)
    return upscale_on_ray(
        artefact, jobs, settings=settings, tile=config.tile, quality=config.quality
    )


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
        remeasure=config.remeasure,
        exact=config.exact,
        max_drift_db=config.max_drift_db,
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
    name, message = printable(outcome.item.source), str(outcome.error)
    print_error(message if name in message else f"{name}: {message}")


def _run_pipe(config: UpscaleConfig) -> int:
    (source,) = config.inputs
    if config.output == STANDARD_STREAM and getattr(sys.stdout, "name", "") == os.devnull:
        raise OutputError("stdout is closed, and -o - writes the picture there. Name a file")
    if source != STANDARD_STREAM and not Path(source).is_file():
        raise InputError(f"no picture at {source}. Check the path")
    file_format = config.file_format or _pipe_format(source, config.output)
    data = sys.stdin.buffer.read() if source == STANDARD_STREAM else read_file(Path(source))
    if config.output != STANDARD_STREAM:
        refuse_unwritable_path(Path(config.output))
    check_picture(data, file_format, stated_scale(config.model, config.scale))
    with _open(config) as upscaler:
        summary = Summary(upscaler.name, upscaler.scale, upscaler.reason)
        _report_start(summary, "1 picture", config)
        meter = Meter("pictures", is_quiet=config.is_quiet)
        encoded = upscale_bytes(
            upscaler,
            data,
            file_format,
            quality=config.quality,
            report=lambda share: meter.update(share, 1, printable(source)),
        )
    if config.output == STANDARD_STREAM:
        sys.stdout.buffer.write(encoded)
        sys.stdout.buffer.flush()
    else:
        write_file(Path(config.output), encoded)
    return 0


def _pipe_format(source: str, output: str) -> Format:
    named = next((text for text in (output, source) if text != STANDARD_STREAM), None)
    return "png" if named is None else format_of(Path(named).suffix)


def _run_video(
    upscaler: Upscaler, job: Job, config: UpscaleConfig, summary: Summary, *, is_alone: bool
) -> KeyboardInterrupt | None:
    """Upscale one video, count it, and return what interrupted it."""
    meter = Meter("frames", is_quiet=config.is_quiet)
    name = printable(job.source)

    def report(now: Progress) -> None:
        meter.update(now.frame, now.num_frames, name)

    try:
        result = upscale_video(
            upscaler, job.source, job.target, options=config.video, report=report
        )
    except SwiseError as error:
        if is_alone:
            raise
        _count(summary, Outcome(job, error))
        return None
    if result.interruption is not None:
        kept = f"the first {result.num_frames} frames are in {printable(result.path)}"
        print_error(f"interrupted; {kept if result.num_frames else 'no frame was finished'}")
        return result.interruption
    if result.problems:
        written = f"{result.num_frames} frames were written to {printable(result.path)}"
        _count(summary, Outcome(job, SwiseError("; ".join([*result.problems, written]))))
    else:
        summary.done += 1
    return None
