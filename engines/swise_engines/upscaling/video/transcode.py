"""Videos: decoded, upscaled and encoded at the same time; sound, subtitles and timing stay."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from swise_deploy.command.dependencies import require
from swise_deploy.command.interrupts import HeldInterrupts
from swise_deploy.pictures.folders import printable
from swise_deploy.storage.files import fitting_stem, writing
from swise_engines.upscaling.pictures.codecs import Picture
from swise_engines.upscaling.pictures.metadata import Metadata
from swise_engines.upscaling.pipeline import consuming, prefetched
from swise_engines.upscaling.stills import upscale_picture
from swise_engines.upscaling.upscaler import Upscaler
from swise_engines.upscaling.video.colour import Rgb
from swise_engines.upscaling.video.options import VideoOptions
from swise_engines.upscaling.video.reader import Shot, VideoReader
from swise_engines.upscaling.video.writer import VideoWriter

logger = logging.getLogger(__name__)

_FRAMES_AHEAD = 4


@dataclass(slots=True)
class VideoResult:
    """The outcome of one video.

    Attributes:
        path: Where the result is.
        num_frames: Frames written.
        problems: Parts of the input that could not be read.
        notes: What the result does not hold, or holds in another form.
        interruption: What ended it early, Ctrl-C or SIGTERM; the result is whole up to there.
    """

    path: Path
    num_frames: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interruption: KeyboardInterrupt | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a video; `num_frames` is an estimate, None where the file states no length."""

    frame: int
    num_frames: int | None
    seconds: float


class _KeptElsewhereError(Exception):
    """The file has another name already, or is not kept."""


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
    finishes the file early and names it NAME.partial.SUFFIX if it plays; a second Ctrl-C removes
    it.

    Raises:
        InputError: No video in it, nothing readable, or something that the output format cannot
            hold.
        OutputError: The result cannot be written.
        BackendMissingError: PyAV is not installed.
    """
    result = VideoResult(target)
    with VideoReader(source) as reader, HeldInterrupts() as interrupts:
        with contextlib.suppress(_KeptElsewhereError), writing(target) as temporary:
            with VideoWriter(temporary, reader, upscaler.scale, options) as writer:
                _log_notes(source, reader.notes + writer.notes)
                num_early_notes = len(writer.notes)
                result.num_frames, result.interruption = _write_events(
                    upscaler, reader, writer, report, interrupts
                )
                if result.num_frames or result.interruption is None:
                    writer.finish()
                _log_notes(source, writer.notes[num_early_notes:])
            result.notes = reader.notes + writer.notes
            if result.interruption is not None:
                result.path = _partial_path(target)
                if result.num_frames and _plays(temporary):
                    temporary.replace(result.path)
                else:
                    result.num_frames = 0
                raise _KeptElsewhereError
        result.problems = reader.problems
    return result


def check_video(source: Path, target: Path, *, scale: int | None, options: VideoOptions) -> None:
    """Refuse a video before any work; what only its later frames show is found then.

    Args:
        source: The video.
        target: The result; nothing is left there.
        scale: Output size over input size; None leaves the result unchecked.
        options: Of the encoder.

    Raises:
        InputError: As `upscale_video`.
        OutputError: The result cannot be written.
        BackendMissingError: PyAV is not installed.
    """
    with VideoReader(source) as reader:
        if scale is None:
            return
        with contextlib.suppress(_KeptElsewhereError), writing(target) as temporary:
            VideoWriter(temporary, reader, scale, options).close()
            raise _KeptElsewhereError


def _log_notes(source: Path, notes: list[str]) -> None:
    for note in notes:
        logger.warning("%s: %s", printable(source), note)


def _partial_path(target: Path) -> Path:
    ending = f".partial{target.suffix}"
    return target.with_name(f"{fitting_stem(target.stem, len(ending.encode()))}{ending}")


def _plays(path: Path) -> bool:
    """True if a first frame can be decoded."""
    pyav = require("av", extra="video", purpose="upscaling a video")
    try:
        with pyav.open(f"file:{path.absolute()}") as container:
            return next(container.decode(video=0), None) is not None
    except (pyav.FFmpegError, OSError):
        return False


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
                        rgb = _upscaled(upscaler, event.rgb, continues=num_frames > 0)
                    put(Shot(rgb, event.pts, event.duration))
                    num_frames += 1
                    seconds = time.perf_counter() - started
                    report(Progress(num_frames, reader.num_frames, seconds))
                else:
                    put(event)
        except KeyboardInterrupt as interruption:
            return num_frames, interruption
    return num_frames, None


def _upscaled(upscaler: Upscaler, rgb: Rgb, *, continues: bool) -> Rgb:
    if rgb.shape[2] == 3:
        return upscaler(rgb, continues=continues)
    picture = upscale_picture(upscaler, Picture(rgb[:, :, :3], rgb[:, :, 3], Metadata()))
    assert picture.alpha is not None, "a picture with alpha keeps it"
    return np.dstack([picture.colour, picture.alpha]).astype(rgb.dtype, copy=False)
