"""A new video file: encoded frames; copied sound, subtitles, covers, chapters and fonts."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError, OutputError
from swise_deploy.storage.context import Closing
from swise_engines.upscaling.video.colour import ColourCoding, frame_from_rgb, is_transparent
from swise_engines.upscaling.video.encoders import encoder_settings, encoders_for, formats_of
from swise_engines.upscaling.video.hdr import encoder_parameters
from swise_engines.upscaling.video.muxers import M2TS_SUFFIXES, names_codec, other_container
from swise_engines.upscaling.video.options import VideoOptions
from swise_engines.upscaling.video.pixel_formats import (
    PixelFormat,
    choose_pixel_format,
    losses,
    pixel_format,
)
from swise_engines.upscaling.video.reader import Event, Shot, VideoReader
from swise_engines.upscaling.video.subtitles import CONVERSIONS, HEADER, converted

if TYPE_CHECKING:
    import av.codec
    import av.container
    import av.packet
    import av.stream
    import av.video.stream

logger = logging.getLogger(__name__)

_FASTSTART = (".mp4", ".mov", ".m4v", ".qt", ".f4v", ".3gp", ".3g2")
_WITH_CHAPTERS = (
    "matroska",
    "webm",
    "mp4",
    "mov",
    "ipod",
    "3gp",
    "3g2",
    "asf",
    "ogg",
    "ogv",
    "nut",
)
# What tools state about the old stream or file.
_OLD_TAGS = ("encoder", "duration", "bps", "number_of_", "_statistics", "rotate", "vendor_id")
# ITU-T H.264 and H.265, annex E, and AV1, 6.4.2: for 4:2:0 only.
_STATING_CHROMA = ("h264", "hevc", "av1")
_ALPHA_TAGS = ("alpha_mode",)
_OLD_FILE_TAGS = ("major_brand", "minor_version", "compatible_brands")
# They store one order of frames only, so B-frames would be shown in that of decoding.
_WITHOUT_REORDERING = ("avi", "asf", "mxf")
# Their video lasts as long as the frame that is decoded last, which need not be shown last.
_ENDING_BY_DECODING_ORDER = ("mp4", "mov", "ipod", "3gp", "3g2", "f4v")
_MOST_REORDERED = 16  # frames that an encoder holds back, at most (ITU-T H.265, A.4.2)
_WITH_COVERS = ("mp4", "mov", "ipod")
# Matroska's guidelines for cover art, by codec.
_COVERS = {"png": ("cover.png", "image/png"), "mjpeg": ("cover.jpg", "image/jpeg")}


class VideoWriter(Closing):
    """Encodes shots and copies packets into a new file; `finish` completes it.

    A context manager. `notes` lists what the new file does not hold.

    Args:
        path: The new file; its suffix names the format.
        reader: Source of the shots and packets.
        scale: Output size over input size.
        options: Encoder and quality.

    Raises:
        InputError: The format cannot hold a stream, or there is no such encoder.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, reader: VideoReader, scale: int, options: VideoOptions) -> None:
        self._pyav = require("av", extra="video", purpose="upscaling a video")
        self._coding = reader.coding
        self.notes: list[str] = []
        self._durations: dict[int, int] = {}
        self._saw_transparency = False
        self._first_pts: int | None = None
        self._first_dts: int | None = None
        self._last_pts: int | None = None
        self._end_pts = 0
        self._is_finished = False
        self._suffix = path.suffix
        settings = {"movflags": "+faststart"} if path.suffix.lower() in _FASTSTART else {}
        if path.suffix.lower() in M2TS_SUFFIXES:
            settings = {"mpegts_m2ts_mode": "1"}
        with self._translated():
            try:
                self._output: av.container.OutputContainer = self._pyav.open(
                    f"file:{path.absolute()}", "w", options=settings
                )
            except ValueError as error:
                raise InputError(
                    f"suffix {path.suffix!r} names no kind of video. Use .mkv or .mp4"
                ) from error
            try:
                self._output.metadata.update(_kept_tags(reader.metadata, _OLD_FILE_TAGS))
                self._copied = [s for s in reader.copied_streams if s.type == "audio"]
                self._video = self._add_video_stream(reader, scale, options)
                self._copies = {s.index: self._add_copy(s) for s in reader.copied_streams}
                for cover in reader.covers:
                    self._add_cover(cover, reader.cover_data.get(cover.index))
                self._add_extras(reader)
                self._write_header()
            except BaseException:
                self._output.close()
                raise

    def _write_header(self) -> None:
        context = self._video.codec_context
        try:
            context.open(strict=False)
        except self._pyav.FFmpegError as error:
            settings = ", ".join(f"{k}={v}" for k, v in context.options.items())
            raise InputError(
                f"the encoder {context.name} refuses {context.width}x{context.height} pixels of "
                f"{context.pix_fmt} with {settings}: {error.strerror}. Use another --preset, --crf "
                "or --codec"
            ) from error
        try:
            self._output.start_encoding()
        except self._pyav.FFmpegError as error:
            # FFmpeg's "Invalid argument", "Function not implemented" and "not yet implemented".
            unable = (ValueError, NotImplementedError, self._pyav.error.PatchWelcomeError)
            if not isinstance(error, unable):
                raise
            held = ", ".join(
                stream.codec_context.name for stream in self._output.streams if stream.codec_context
            )
            raise InputError(
                f"{self._output.format.name} files cannot hold these streams together: {held}. "
                f"{self._other_container(self._copied)}"
            ) from error

    def close(self) -> None:
        """Close the file; errors count only where it was to be complete."""
        try:
            with self._translated():
                self._output.close()
        except OutputError:
            if self._is_finished:
                raise

    def finish(self) -> None:
        """Encode what the encoder still holds.

        Raises:
            OutputError: It cannot be written.
        """
        with self._translated():
            packets = self._video.encode(None)
            self._set_times(packets)
            if packets and self._output.format.name in _ENDING_BY_DECODING_ORDER:
                self._end_with(packets[-1])
            self._output.mux(packets)
        self._is_finished = True
        if self._saw_transparency and not pixel_format(str(self._video.pix_fmt)).has_alpha:
            self.notes.append(f"transparency is lost: {self._video.pix_fmt} has none")

    def _end_with(self, packet: "av.packet.Packet[Any]") -> None:
        """Let the packet that is decoded last last so long that all of them last as the frames."""
        if packet.dts is None or self._first_pts is None or self._first_dts is None:
            return
        decoded = packet.dts - self._first_dts
        packet.duration = max(self._end_pts - self._first_pts - decoded, 1)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._pyav.FFmpegError as error:
            raise OutputError(f"cannot write the video: {error}") from error

    def write(self, event: Event) -> None:
        """Write one shot or packet.

        Raises:
            OutputError: It cannot be written.
        """
        with self._translated():
            if isinstance(event, Shot):
                self._write_shot(event)
            else:
                self._write_packet(event)

    def _write_shot(self, shot: Shot) -> None:
        rgb = shot.rgb
        if rgb.shape[2] == 4:
            self._saw_transparency |= is_transparent(rgb)
            if not self._keeps_alpha:
                rgb = rgb[:, :, :3]
        frame = frame_from_rgb(rgb, self._coding, str(self._video.pix_fmt))
        time_base = self._video.codec_context.time_base
        frame.pts, frame.duration = shot.pts, shot.duration
        if time_base != self._time_base:  # a container of equally long frames
            pts = round(shot.pts * self._time_base / time_base)
            frame.pts = pts if self._last_pts is None else max(pts, self._last_pts + 1)
            frame.duration = 1
        frame.time_base = time_base
        self._last_pts = frame.pts
        self._first_pts = frame.pts if self._first_pts is None else self._first_pts
        self._durations[frame.pts] = frame.duration
        self._end_pts = max(self._end_pts, frame.pts + frame.duration)
        packets = self._video.encode(frame)
        self._set_times(packets)
        self._output.mux(packets)

    def _set_times(self, packets: "list[Any]") -> None:
        for packet in packets:
            # Encoders forget how long a frame is shown, which counts for the last one.
            duration = self._durations.pop(packet.pts, 0) if packet.pts is not None else 0
            if duration and packet.time_base == self._video.codec_context.time_base:
                packet.duration = duration
            # libx265 gives a random time of decoding where a video has two frames only.
            if None not in (packet.dts, packet.pts) and not self._is_plausible(packet):
                packet.dts = packet.pts
            self._first_dts = packet.dts if self._first_dts is None else self._first_dts

    def _is_plausible(self, packet: Any) -> bool:
        """True where a packet is decoded neither after it is shown nor long before the start."""
        assert self._first_pts is not None, "packets come after frames"
        encoded = self._end_pts - self._first_pts
        earliest = self._first_pts - _MOST_REORDERED * max(encoded, 1)
        return bool(earliest <= packet.dts <= packet.pts)

    def _write_packet(self, packet: Any) -> None:
        copy, codec = self._copies.get(packet.stream.index, (None, ""))
        if copy is None:
            return
        if codec:
            payload = converted(bytes(packet), codec)
            new = self._pyav.Packet(payload)
            new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
            new.time_base = packet.time_base
            packet = new
        packet.stream = copy
        self._output.mux(packet)

    def _add_video_stream(
        self, reader: VideoReader, scale: int, options: VideoOptions
    ) -> "av.video.stream.VideoStream":
        encoder, stream = self._open_encoder(reader, options)
        if encoder.canonical_name != reader.codec_name:
            self.notes.append(f"{reader.codec_name} video becomes {encoder.canonical_name}")
        width, height = (side * scale for side in reader.size)
        stream.width, stream.height = width, height
        is_odd = bool(width % 2 or height % 2)
        stream.pix_fmt = choose_pixel_format(reader.pix_fmt, formats_of(encoder), is_odd=is_odd)
        form = pixel_format(stream.pix_fmt)
        self._coding = self._stated_coding(reader.coding, form, encoder.canonical_name)
        self.notes += losses(reader.pix_fmt, stream.pix_fmt)
        self._keeps_alpha = form.has_alpha
        context = stream.codec_context
        self._time_base = reader.time_base
        has_timestamps = bool(
            self._output.format.flags & self._pyav.format.Flags.variable_fps.value
        )
        context.time_base = reader.time_base if has_timestamps else 1 / reader.rate
        coding = self._coding
        if not form.is_rgb:
            options_with_place = {"chroma_sample_location": coding.chroma_position}
            context.options = {**context.options, **options_with_place}
        context.colorspace = 0 if form.is_rgb else coding.matrix
        context.color_range = 2 if form.is_rgb else coding.range
        context.color_primaries, context.color_trc = coding.primaries, coding.transfer
        if reader.sample_aspect_ratio:
            context.sample_aspect_ratio = reader.sample_aspect_ratio
        stream.metadata.update(_kept_tags(reader.stream.metadata, _ALPHA_TAGS))
        if form.has_alpha and encoder.name.startswith("libvpx"):
            stream.metadata["alpha_mode"] = "1"
            context.options = {**context.options, "auto-alt-ref": "0"}  # it refuses both together
        stream.disposition = reader.stream.disposition
        return stream

    def _stated_coding(self, coding: ColourCoding, form: PixelFormat, codec: str) -> ColourCoding:
        """The coding of the source, with the usual place of chroma where no other can be stated."""
        can_state = form.chroma == (0.5, 0.5) and (
            codec in _STATING_CHROMA or self._output.format.name in ("matroska", "webm")
        )
        return coding if can_state else dataclasses.replace(coding, chroma_position="left")

    def _open_encoder(
        self, reader: VideoReader, options: VideoOptions
    ) -> "tuple[av.codec.Codec, av.video.stream.VideoStream]":
        default = self._output.default_video_codec
        refused, tried = [], []
        names = encoders_for(
            reader.codec_name,
            options.codec,
            default,
            container=self._output.format.name,
            is_transparent=reader.is_transparent,
        )
        for name in names:
            try:
                encoder = self._pyav.Codec(name, "w")
            except (self._pyav.FFmpegError, ValueError) as error:
                if options.codec is None:
                    continue  # this FFmpeg was built without it
                raise InputError(
                    f"no encoder {name!r} in this FFmpeg. Use --codec with another, such as libx264"
                ) from error
            if encoder.type != "video":
                raise InputError(f"--codec {name} encodes {encoder.type}; expected a video encoder")
            tried.append(name)
            if not self._names(encoder.canonical_name):
                refused.append(encoder.canonical_name)
                continue
            if name == "libsvtav1":
                os.environ.setdefault("SVT_LOG", "1")  # or it writes its settings to stderr
            settings = encoder_settings(name, options)
            if self._output.format.name in _WITHOUT_REORDERING:
                settings["bf"] = "0"
            for option, value in encoder_parameters(reader.hdr, name).items():
                settings[option] = ":".join(filter(None, [settings.get(option), value]))
            try:
                stream = self._output.add_stream(name, rate=reader.rate, options=settings)
            except ValueError:
                refused.append(encoder.canonical_name)
                continue
            if reader.hdr and not encoder_parameters(reader.hdr, name):
                self.notes.append(f"HDR10 metadata is left out: {name} does not write it")
            return encoder, cast("av.video.stream.VideoStream", stream)
        advice = other_container([], tried, refused=self._output.format.name)
        raise InputError(
            f"{self._output.format.name} files cannot hold {' or '.join(refused)} (video). "
            f"{advice}, or another --codec"
        )

    def _names(self, codec: str) -> bool:
        """False if the format takes a codec, but no reader would know it again."""
        return names_codec(self._output.format.name, codec, suffix=self._suffix)

    def _other_container(self, streams: "Sequence[av.stream.Stream]") -> str:
        encoder = self._video.codec_context.codec.name
        return other_container(streams, [encoder], refused=self._output.format.name)

    def _add_copy(self, stream: "av.stream.Stream") -> "tuple[av.stream.Stream | None, str]":
        """A new stream for copied packets, and the codec to convert from where they are not kept.

        Subtitles that the format cannot hold are converted or left out.

        Raises:
            InputError: The format cannot hold a sound.
        """
        context = stream.codec_context
        name = context.codec.canonical_name if context else "unknown codec"
        what = f"stream {stream.index} ({stream.type}, {name})"
        copy: av.stream.Stream | None = None
        try:
            copy = self._add_template(stream, name)
            codec = ""
        except ValueError as error:
            if context is None:
                self.notes.append(f"{what} is left out: this FFmpeg does not know its codec")
                return None, ""
            if stream.type != "subtitle":
                raise InputError(
                    f"{self._output.format.name} files cannot hold {name} ({what}). "
                    f"{self._other_container([stream])}"
                ) from error
            codec = name
            copy = self._add_converted_subtitles(name)
        if copy is None:
            self.notes.append(
                f"{what} is left out: {self._output.format.name} files cannot hold it"
            )
            return None, ""
        if copy.type == "audio":
            self._name_speakers(copy.codec_context, what)
        copy.metadata.update(_kept_tags(stream.metadata))
        copy.disposition = stream.disposition
        return copy, codec

    def _add_template(self, stream: "av.stream.Stream", codec: str) -> "av.stream.Stream":
        """Add a stream for copied packets.

        Raises:
            ValueError: The format cannot hold the codec.
        """
        if not self._names(codec):
            raise ValueError(f"{self._output.format.name} has no name for {codec}")
        return self._output.add_stream_from_template(stream)

    def _name_speakers(self, context: Any, what: str) -> None:
        """Give raw sound of unstated channels the layout that is usual for their number.

        Matroska and others may leave it out; MP4 has to state it, and fails at its end otherwise.

        Raises:
            InputError: No layout is usual for so many channels.
        """
        if self._output.format.name != "mp4" or not context.name.startswith("pcm_"):
            return
        if context.layout.name != (unstated := f"{context.layout.nb_channels} channels"):
            return
        try:
            context.layout = f"{context.layout.nb_channels}c"  # FFmpeg's name of the usual one
        except ValueError as error:
            raise InputError(
                f"mp4 files cannot hold {what} with {unstated} whose speakers it does not state. "
                f"{self._other_container(self._copied)}"
            ) from error
        if context.layout.nb_channels > 2:
            self.notes.append(f"{what}: its {unstated} are stated as {context.layout.name}")

    def _add_converted_subtitles(self, codec: str) -> "av.stream.Stream | None":
        if codec not in CONVERSIONS or not self._names(CONVERSIONS[codec]):
            return None
        try:
            stream: Any = self._output.add_stream(CONVERSIONS[codec])
        except ValueError:
            return None
        stream.codec_context.subtitle_header = HEADER
        return cast("av.stream.Stream", stream)

    def _add_cover(self, stream: "av.stream.Stream", data: bytes | None) -> None:
        """Keep a cover picture: as a stream of one packet, in Matroska as an attached file."""
        container = self._output.format.name
        name = stream.codec_context.name if stream.codec_context else "unknown"
        try:
            if container == "matroska" and data is not None:
                cover, kind = _COVERS.get(name, _COVERS["mjpeg"])
                self._output.add_attachment(cover, kind, data)
                return
            if container in _WITH_COVERS:
                copy = self._output.add_stream_from_template(stream)
                copy.metadata.update(_kept_tags(stream.metadata))
                copy.disposition = stream.disposition
                self._copies[stream.index] = copy, ""
                return
        except ValueError:
            logger.debug("%s refuses a cover of %s", container, name)
        self.notes.append(
            f"stream {stream.index} (cover, {name}) is left out: {container} has none"
        )

    def _add_extras(self, reader: VideoReader) -> None:
        name = self._output.format.name
        if reader.chapters and name in _WITH_CHAPTERS:
            self._output.set_chapters(reader.chapters)
        elif reader.chapters:
            self.notes.append(f"{len(reader.chapters)} chapters are left out: {name} has none")
        if reader.attachments and name == "matroska":
            for font in reader.attachments:
                self._output.add_attachment(
                    font.name or font.metadata.get("filename", "attachment"),
                    font.mimetype or "application/octet-stream",
                    bytes(font.data),
                )
        elif reader.attachments:
            number = len(reader.attachments)
            self.notes.append(f"{number} attached files (fonts) are left out: {name} has none")


def _kept_tags(tags: Mapping[str, str], dropped: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        key: value
        for key, value in tags.items()
        if not key.lower().startswith((*_OLD_TAGS, *dropped))
    }
