"""A video file read in its order: frames as pixels, and packets to be copied."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.storage.context import Closing
from swise_engines.upscaling.video.colour import Rgb, coding_of_frame, is_deep_frame, rgb_from_frame

if TYPE_CHECKING:
    import av
    import av.packet
    import av.stream

logger = logging.getLogger(__name__)

_COPIED = ("audio", "subtitle")
_LEAST_COMPLETE_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame as pixels, with when and how long it is shown, in units of the stream's time base."""

    rgb: Rgb
    pts: int
    duration: int


Event: TypeAlias = "Shot | av.packet.Packet[av.stream.Stream]"


class VideoReader(Closing):
    """An opened video file; its first frame is decoded to learn size and colour.

    A context manager. `problems` lists what could not be read, complete once `events` has ended.

    Raises:
        InputError: It cannot be opened, or holds no frame that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._av = require("av", extra="video", purpose="upscaling a video")
        self.path = path
        self.problems: list[str] = []
        try:
            self._container: av.container.InputContainer = self._av.open(str(path))
        except (self._av.FFmpegError, OSError) as error:
            raise InputError(
                f"cannot open {path} as a video: {error.strerror or error}. "
                "Expected a whole video file"
            ) from error
        streams = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & self._av.stream.Disposition.attached_pic
        ]
        if not streams:
            self._container.close()
            raise InputError(f"{path} holds no video. Expected a file with a video stream")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        self.copied_streams = [s for s in self._container.streams if s.type in _COPIED]
        self._events = self._read()
        self._early: list[Event] = []
        self._num_damaged = 0
        self._last_pts: int | None = None
        self._learn_from_first_frame()

    def _learn_from_first_frame(self) -> None:
        for event in self._events:
            self._early.append(event)
            if isinstance(event, Shot):
                break
        else:
            self._container.close()
            raise InputError(f"no frame of {self.path} can be decoded: {'; '.join(self.problems)}")
        height, width = event.rgb.shape[:2]
        self.size = width, height
        stream = self._stream
        self.codec_name = stream.codec_context.name
        self.metadata = dict(self._container.metadata)
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.time_base = stream.time_base or Fraction(1, 90_000)
        self.sample_aspect_ratio = stream.sample_aspect_ratio
        self.num_frames = stream.frames or self._estimated_frames()

    def _estimated_frames(self) -> int | None:
        duration = self._container.duration
        return None if not duration else round(duration / self._av.time_base * float(self.rate))

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
        self._tell_truncation()

    def _read(self) -> Iterator[Event]:
        packets = self._container.demux(self._stream, *self.copied_streams)
        while True:
            try:
                packet = next(packets, None)
            except self._av.FFmpegError as error:
                self.problems.append(f"reading stopped early: {error}")
                return
            if packet is None:
                return
            if packet.stream is self._stream:
                yield from self._decode(packet)
            elif packet.dts is not None:
                yield packet

    def _decode(self, packet: "av.packet.Packet[av.stream.Stream]") -> Iterator[Shot]:
        try:
            frames = self._stream.decode(packet)
        except self._av.FFmpegError as error:
            logger.debug("damaged packet at %s: %s", packet.pts, error)
            self._num_damaged += 1
            return
        for frame in frames:
            yield self._shot(frame)

    def _shot(self, frame: "av.VideoFrame") -> Shot:
        if self._last_pts is None:
            self.coding = coding_of_frame(frame)
            self.is_deep = is_deep_frame(frame)
            self.pix_fmt = frame.format.name
            self._coded_size = frame.width, frame.height
        self._num_damaged += bool(frame.is_corrupt)
        duration = int(frame.duration or 0)
        pts = frame.pts
        if pts is None or (self._last_pts is not None and pts <= self._last_pts):
            pts = 0 if self._last_pts is None else self._last_pts + max(duration, 1)
        self._last_pts = pts
        rgb = rgb_from_frame(frame, self.coding, deep=self.is_deep, size=self._coded_size)
        return Shot(rgb, pts, duration)

    def _tell_truncation(self) -> None:
        stated = self._container.duration
        if not stated or self._last_pts is None:
            return
        stated_s = stated / self._av.time_base
        end_s = float(self._last_pts * self.time_base) + 1 / float(self.rate)
        start_s = (self._container.start_time or 0) / self._av.time_base
        if end_s - start_s < _LEAST_COMPLETE_SHARE * stated_s - 0.5:
            self.problems.append(f"frames end at {end_s:.1f} s of {stated_s:.1f} s")
