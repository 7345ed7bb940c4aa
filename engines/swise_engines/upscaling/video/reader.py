"""A video file read in its order: frames as pixels, and packets to be copied."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.pictures.folders import printable
from swise_deploy.storage.context import Closing
from swise_engines.upscaling.video.colour import (
    Rgb,
    chroma_position_of,
    coding_of_frame,
    is_transparent,
    rgb_from_frame,
)
from swise_engines.upscaling.video.containers import DEMUXERS, is_playlist
from swise_engines.upscaling.video.display_matrix import Turn, turn_from_matrix
from swise_engines.upscaling.video.hdr import hdr_of_frame, side_data_of
from swise_engines.upscaling.video.pixel_formats import pixel_format

if TYPE_CHECKING:
    import av
    import av.packet
    import av.stream

logger = logging.getLogger(__name__)

_COPIED = ("audio", "subtitle")
_DECODERS_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_LEAST_COMPLETE_SHARE, _TOLERANCE_S = 0.98, 0.5
_HEAD_BYTES = 64
# FFmpeg drops the times before 0 of Matroska; AVI states none at all.
_MAX_UNTIMED = 32
# What frames carry that no encoder here writes again, by FFmpeg's name.
_LOST_SIDE_DATA = {
    "DYNAMIC_HDR_PLUS": "HDR10+ dynamic metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "A53_CC": "closed captions inside the picture",
    "STEREO3D": "the description of a stereoscopic picture",
    "SPHERICAL": "the description of a spherical picture",
    "FILM_GRAIN_PARAMS": "film grain parameters",
}


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame as pixels, with when and how long it is shown, in units of the stream's time base."""

    rgb: Rgb
    pts: int
    duration: int


Event: TypeAlias = "Shot | av.packet.Packet[av.stream.Stream]"


class VideoReader(Closing):
    """An opened video file; its first frame is decoded to learn size and colour.

    A context manager. `problems` lists what could not be read, complete once `events` has ended;
    `notes` lists what is left out.

    Raises:
        InputError: It cannot be opened, or holds no frame that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._av = require("av", extra="video", purpose="upscaling a video")
        self.path = path
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._container = _open(path)
        try:
            self._choose_streams()
            self.chroma_position = chroma_position_of(self._stream)
            self._events = self._read()
            self._early: list[Event] = []
            self._num_damaged = 0
            self._last_pts: int | None = None
            self._untimed: list[av.VideoFrame] = []
            self._end_s: dict[int, float] = {}
            self._learn_from_first_frame()
        except BaseException:
            self._container.close()
            raise

    def _choose_streams(self) -> None:
        disposition = self._av.stream.Disposition
        # FFmpeg gives covers before any other packet.
        self.cover_data: dict[int, bytes] = {}
        self.covers = [
            stream
            for stream in self._container.streams.video
            if stream.disposition & disposition.attached_pic
        ]
        videos = [
            s
            for s in self._container.streams.video
            if s not in self.covers and s.codec_context is not None
        ]
        if not videos:
            raise InputError(
                f"{printable(self.path)} holds no video that this FFmpeg decodes. Expected a file "
                "with a video stream"
            )
        # An animated AVIF holds its first picture beside the animation.
        moving = [stream for stream in videos if stream.frames != 1]
        self.stream = self._stream = (moving or videos)[0]
        self._stream.thread_type = "AUTO"
        self.attachments = list(self._container.streams.attachments)
        # Broadcast streams begin at any time; results begin at 0, as FFmpeg's own tools make them.
        start = Fraction(self._container.start_time or 0, self._av.time_base)
        self._start_s = max(start, Fraction(0))
        self.chapters = [self._shifted_chapter(c) for c in self._container.chapters()]
        self.copied_streams = [s for s in self._container.streams if s.type in _COPIED]
        kept = {s.index for s in [self._stream, *self.covers, *self.attachments]}
        kept |= {s.index for s in self.copied_streams}
        for stream in self._container.streams:
            if stream.index not in kept and not self._is_made_anew(stream):
                name = getattr(stream, "name", None) or "unknown"
                self.notes.append(f"stream {stream.index} ({stream.type}, {name}) is left out")
        self._decoder = self._decoder_with_alpha() or self._stream

    def _is_made_anew(self, stream: Any) -> bool:
        """True for tracks of chapters and time codes: containers make them of what is kept."""
        is_time_code = "timecode" in stream.metadata and (
            stream.metadata["timecode"] == self._stream.metadata.get("timecode")
        )
        is_chapters = bool(self.chapters) and stream.discard == self._av.stream.Discard.all
        return stream.type == "data" and (is_time_code or is_chapters)

    def _decoder_with_alpha(self) -> "av.VideoCodecContext | None":
        """A decoder that reads the transparency of VP8 and VP9, which FFmpeg's own leaves out."""
        stream = self._stream
        name = _DECODERS_WITH_ALPHA.get(stream.codec_context.codec.canonical_name)
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        if name is None or tags.get("alpha_mode") != "1":
            return None
        try:
            decoder: av.VideoCodecContext = self._av.VideoCodecContext.create(name, "r")
        except (self._av.FFmpegError, ValueError):  # this FFmpeg was built without it
            self.notes.append("transparency is not read: this FFmpeg has no libvpx")
            return None
        stated = stream.codec_context
        decoder.extradata = stated.extradata
        decoder.color_range, decoder.colorspace = stated.color_range, stated.colorspace
        decoder.color_primaries, decoder.color_trc = stated.color_primaries, stated.color_trc
        return decoder

    def _shifted_chapter(self, chapter: Any) -> Any:  # PyAV's own dictionaries
        offset = round(self._start_s / chapter["time_base"])
        start, end = (max(chapter[key] - offset, 0) for key in ("start", "end"))
        return {**chapter, "start": start, "end": end}

    def _learn_from_first_frame(self) -> None:
        for event in self._events:
            self._early.append(event)
            if isinstance(event, Shot):
                break
        else:
            raise InputError(
                f"no frame of {printable(self.path)} can be decoded: {'; '.join(self.problems)}"
            )
        height, width = event.rgb.shape[:2]
        self.size = width, height
        self.is_transparent = is_transparent(event.rgb)
        stream = self._stream
        self.codec_name = stream.codec_context.codec.canonical_name
        self.metadata = dict(self._container.metadata)
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.time_base = stream.time_base or Fraction(1, 90_000)
        shape = stream.sample_aspect_ratio
        self.sample_aspect_ratio = 1 / shape if shape and self._turn.transposes else shape
        self.num_frames = stream.frames or self._estimated_frames()

    def _estimated_frames(self) -> int | None:
        seconds = self._stated_video_s() or self._stated_s()
        return round(seconds * float(self.rate)) if seconds else None

    def _stated_s(self) -> float:
        return float((self._container.duration or 0) / self._av.time_base)

    def _stated_video_s(self) -> float:
        """Duration of the video stream in seconds, 0 where neither field nor tag states it."""
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        hours, _, rest = self._stream.metadata.get("DURATION", "").partition(":")
        minutes, _, seconds = rest.partition(":")
        try:
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except ValueError:
            return 0.0

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def events(self) -> Iterator[Event]:
        """Shots in the order of showing, packets in the order of storage."""
        while self._early:
            yield self._early.pop(0)
        yield from self._events
        if self._num_damaged:
            self.problems.append(f"{self._num_damaged} damaged parts could not be decoded")
        self._report_truncation()

    def _read(self) -> Iterator[Event]:
        packets = self._container.demux()
        copied = {s.index for s in self.copied_streams}
        covers = {s.index for s in self.covers}
        while True:
            try:
                packet = next(packets, None)
            except self._av.FFmpegError as error:
                self.problems.append(f"reading stopped early: {error}")
                return
            if packet is None:
                held, self._untimed = self._untimed, []
                yield from map(self._shot, held)
                return
            self._note_end(packet)
            index = packet.stream.index
            if index == self._stream.index:
                yield from self._decode(packet)
            elif index in covers and packet.size:
                self.cover_data[index] = bytes(packet)
                yield packet
            elif index in copied and packet.dts is not None:
                yield self._shifted(packet)

    def _shifted(self, packet: "av.packet.Packet[Any]") -> "av.packet.Packet[Any]":
        if self._start_s and packet.time_base:
            offset = round(self._start_s / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - offset
            packet.dts = None if packet.dts is None else packet.dts - offset
        return packet

    def _note_end(self, packet: "av.packet.Packet[av.stream.Stream]") -> None:
        if packet.pts is not None and packet.time_base and packet.size:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            index = packet.stream.index
            self._end_s[index] = max(end_s, self._end_s.get(index, end_s))

    def _decode(self, packet: "av.packet.Packet[av.stream.Stream]") -> Iterator[Shot]:
        try:
            frames = self._decoder.decode(packet)
        except self._av.FFmpegError as error:
            logger.debug("damaged packet at %s: %s", packet.pts, error)
            self._num_damaged += 1
            return
        for frame in frames:
            yield from self._timed_shots(frame)

    def _timed_shots(self, frame: "av.VideoFrame") -> "Iterator[Shot]":
        """Hold first frames without a time until one has it, and count back from there."""
        if frame.pts is None and self._last_pts is None and len(self._untimed) < _MAX_UNTIMED:
            self._untimed.append(frame)
            return
        held, self._untimed = self._untimed, []
        if frame.pts is not None:
            pts = frame.pts
            for earlier in reversed(held):
                pts -= max(int(earlier.duration or 0), 1)
                earlier.pts = pts
        for shown in [*held, frame]:
            yield self._shot(shown)

    def _shot(self, frame: "av.VideoFrame") -> Shot:
        if self._last_pts is None:
            self._learn_coding(frame)
        self._num_damaged += bool(frame.is_corrupt)
        duration = int(frame.duration or 0)
        pts = frame.pts
        if pts is None or (self._last_pts is not None and pts <= self._last_pts):
            pts = 0 if self._last_pts is None else self._last_pts + max(duration, 1)
        self._last_pts = pts
        rgb = rgb_from_frame(
            frame,
            self.coding,
            is_deep=self.is_deep,
            size=self._coded_size,
            with_alpha=self.has_alpha,
        )
        return Shot(self._turn.apply(rgb), pts - self._start_ticks, duration)

    def _learn_coding(self, frame: "av.VideoFrame") -> None:
        self.coding = coding_of_frame(frame, chroma_position=self.chroma_position)
        self.pix_fmt = frame.format.name
        form = pixel_format(self.pix_fmt)
        self.is_deep, self.has_alpha = form.is_deep, form.has_alpha
        self._coded_size = frame.width, frame.height
        self._start_ticks = round(self._start_s / (self._stream.time_base or Fraction(1, 90_000)))
        side_data = side_data_of(frame)
        self._turn = turn_from_matrix(side_data.get("DISPLAYMATRIX", b""))
        self.hdr = hdr_of_frame(frame)
        lost = sorted({_LOST_SIDE_DATA[name] for name in side_data if name in _LOST_SIDE_DATA})
        self.notes += [f"{name} is left out" for name in lost]
        if frame.interlaced_frame:
            self.notes.append("interlaced video is upscaled as if it were progressive")

    @property
    def turn(self) -> Turn:
        """The turn that made frames upright."""
        return self._turn

    def _report_truncation(self) -> None:
        """Compare the ends of all streams with what the file states of itself."""
        start_s = (self._container.start_time or 0) / self._av.time_base
        end_s = max(self._end_s.values(), default=start_s)
        if self._last_pts is not None:
            end_s = max(end_s, float(self._last_pts * self.time_base) + 1 / float(self.rate))
        stated_s = self._stated_s()
        if end_s - start_s < _LEAST_COMPLETE_SHARE * stated_s - _TOLERANCE_S:
            self.problems.append(f"frames end at {end_s - start_s:.1f} s of {stated_s:.1f} s")
            return
        video_end_s, stated_s = self._end_s.get(self._stream.index, 0.0), self._stated_video_s()
        video_s = video_end_s - float((self._stream.start_time or 0) * self.time_base)
        if video_s < _LEAST_COMPLETE_SHARE * stated_s - _TOLERANCE_S:
            self.problems.append(f"frames end at {video_s:.1f} s of {stated_s:.1f} s")


def _open(path: Path) -> "av.container.InputContainer":
    """Open a file as one of the known containers, whatever its name; no other file is opened.

    Raises:
        InputError: It is no such container.
    """
    pyav = require("av", extra="video", purpose="upscaling a video")
    name = printable(path)
    if not path.is_file():
        raise InputError(f"no video at {name}. Check the path")
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"}
    try:
        # With the protocol in front, a colon in a name is no protocol.
        container: av.container.InputContainer = pyav.open(
            f"file:{path.absolute()}", options=options, metadata_errors="replace"
        )
    except (pyav.FFmpegError, OSError, ValueError) as error:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if is_playlist(head):
            raise InputError(
                f"{name} is a playlist and no video: it names other files. Give those"
            ) from error
        raise InputError(
            f"cannot open {name} as a video: {getattr(error, 'strerror', None) or error}. "
            "Expected a whole video file"
        ) from error
    return container
