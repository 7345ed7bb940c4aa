"""Videos: decoded, upscaled and encoded at the same time; sound, subtitles and timing stay."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from swise_deploy.files import writing
from swise_engines.pipeline import consuming, prefetched
from swise_engines.upscaler import Upscaler
from swise_engines.video_reader import Shot, VideoReader
from swise_engines.video_writer import VideoOptions, VideoWriter

_FRAMES_AHEAD = 4


@dataclass(slots=True)
class VideoResult:
    """What became of a video.

    Attributes:
        path: Where the result is.
        num_frames: Frames written.
        problems: What of the input could not be read.
        interrupted: Whether Ctrl-C ended it; the result is whole up to there.
    """

    path: Path
    num_frames: int = 0
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a video is; `num_frames` is an estimate, None where the file does not say."""

    frame: int
    num_frames: int | None
    seconds: float


class _InterruptedError(Exception):
    """Ctrl-C came while frames were upscaled; what was written is whole."""

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames


def upscale_video(
    upscaler: Upscaler,
    source: Path,
    target: Path,
    *,
    options: VideoOptions,
    report: Callable[[Progress], None],
) -> VideoResult:
    """Upscale a video file.

    Sound and subtitles are copied as they are. Damaged parts are left out and told. Ctrl-C finishes
    the file where it is and names it NAME.partial.SUFFIX.

    Raises:
        InputError: No video in it, nothing readable, or something that the output format cannot
            hold.
        OutputError: The result cannot be written.
        BackendMissingError: PyAV is not installed.
    """
    result = VideoResult(target)
    with VideoReader(source) as reader:
        try:
            with writing(target) as temporary:
                try:
                    result.num_frames = _convert(upscaler, reader, temporary, options, report)
                except _InterruptedError:
                    partial = target.with_name(f"{target.stem}.partial{target.suffix}")
                    temporary.replace(partial)
                    raise
        except _InterruptedError as error:
            result.num_frames = error.num_frames
            result.interrupted = True
            result.path = partial
        result.problems = reader.problems
    return result


def _convert(
    upscaler: Upscaler,
    reader: VideoReader,
    path: Path,
    options: VideoOptions,
    report: Callable[[Progress], None],
) -> int:
    """Write the whole result to `path`; return the number of frames."""
    started = time.perf_counter()
    num_frames = 0
    interrupted = False
    with (
        VideoWriter(path, reader, upscaler.scale, options) as writer,
        contextlib.closing(prefetched(reader.events(), ahead=_FRAMES_AHEAD)) as events,
        consuming(writer.write, behind=_FRAMES_AHEAD) as put,
    ):
        try:
            for event in events:
                if isinstance(event, Shot):
                    put(Shot(upscaler(event.rgb), event.pts, event.duration))
                    num_frames += 1
                    seconds = time.perf_counter() - started
                    report(Progress(num_frames, reader.num_frames, seconds))
                else:
                    put(event)
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise _InterruptedError(num_frames)
    return num_frames
