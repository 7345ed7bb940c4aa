"""Videos: decoded, upscaled and encoded at the same time; sound, subtitles and timing stay."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from swise_deploy.command.interrupts import HeldInterrupts
from swise_deploy.storage.files import writing
from swise_engines.upscaling.pipeline import consuming, prefetched
from swise_engines.upscaling.upscaler import Upscaler
from swise_engines.upscaling.video.options import VideoOptions
from swise_engines.upscaling.video.reader import Shot, VideoReader
from swise_engines.upscaling.video.writer import VideoWriter

_FRAMES_AHEAD = 4


@dataclass(slots=True)
class VideoResult:
    """The outcome of one video.

    Attributes:
        path: Where the result is.
        num_frames: Frames written.
        problems: What of the input could not be read.
        interruption: What ended it early, Ctrl-C or SIGTERM; the result is whole up to there.
    """

    path: Path
    num_frames: int = 0
    problems: list[str] = field(default_factory=list)
    interruption: KeyboardInterrupt | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a video; `num_frames` is an estimate, None where the file states no length."""

    frame: int
    num_frames: int | None
    seconds: float


class _NamedPartialError(Exception):
    """The file has its place already, under another name."""


def upscale_video(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    *,
    options: VideoOptions,
    report: Callable[[Progress], None],
) -> VideoResult:
    """Upscale a video file.

    Sound and subtitles are copied as they are. Damaged parts are skipped and reported. Ctrl-C
    finishes the file early and names it NAME.partial.SUFFIX; a second Ctrl-C removes it.

    Raises:
        InputError: No video in it, nothing readable, or something that the output format cannot
            hold.
        OutputError: The result cannot be written.
        BackendMissingError: PyAV is not installed.
    """
    result = VideoResult(target)
    with VideoReader(source) as reader, HeldInterrupts() as interrupts:
        with contextlib.suppress(_NamedPartialError), writing(target) as temporary:
            with VideoWriter(temporary, reader, upscaler.scale, options) as writer:
                result.num_frames, result.interruption = _write_events(
                    upscaler, reader, writer, report, interrupts
                )
            if result.interruption is not None:
                result.path = target.with_name(f"{target.stem}.partial{target.suffix}")
                temporary.replace(result.path)
                raise _NamedPartialError
        result.problems = reader.problems
    return result


def _write_events(
    upscaler: Upscaler,
    reader: VideoReader,
    writer: VideoWriter,
    report: Callable[[Progress], None],
    interrupts: HeldInterrupts,
) -> tuple[int, KeyboardInterrupt | None]:
    """Write all that the reader has; return the number of frames, and what ended it early."""
    started = time.perf_counter()
    num_frames = 0
    with (
        contextlib.closing(prefetched(reader.events(), ahead=_FRAMES_AHEAD)) as events,
        consuming(writer.write, behind=_FRAMES_AHEAD) as put,
    ):
        try:
            for event in events:
                if isinstance(event, Shot):
                    with interrupts.let_through():
                        rgb = upscaler(event.rgb)
                    put(Shot(rgb, event.pts, event.duration))
                    num_frames += 1
                    seconds = time.perf_counter() - started
                    report(Progress(num_frames, reader.num_frames, seconds))
                else:
                    put(event)
        except KeyboardInterrupt as interruption:
            return num_frames, interruption
    return num_frames, None
