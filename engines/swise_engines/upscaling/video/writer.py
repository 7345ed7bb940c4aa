"""A new video file: encoded frames, copied sound and subtitles."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

from typing_extensions import Self

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError, OutputError
from swise_engines.upscaling.video.colour import frame_from_rgb
from swise_engines.upscaling.video.options import VideoOptions
from swise_engines.upscaling.video.reader import Event, Shot, VideoReader

if TYPE_CHECKING:
    import av.container
    import av.stream
    import av.video.stream

_ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
}
_FALLBACK_ENCODER = "libx264"


class VideoWriter:
    """Encodes shots and copies packets into a new file; a context manager that finishes the file.

    Args:
        path: The new file; its suffix names the format.
        reader: What the shots and packets come from.
        scale: Output size over input size.
        options: How it is encoded.

    Raises:
        InputError: The format cannot hold a stream, or there is no such encoder.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, reader: VideoReader, scale: int, options: VideoOptions) -> None:
        self._pyav = require("av", extra="video", purpose="upscaling a video")
        self._coding = reader.coding
        movflags = {"movflags": "+faststart"} if path.suffix in (".mp4", ".mov", ".m4v") else {}
        with self._translated():
            try:
                self._output: av.container.OutputContainer = self._pyav.open(
                    str(path), "w", options=movflags
                )
            except ValueError as error:
                raise InputError(
                    f"suffix {path.suffix!r} names no kind of video. Use .mkv or .mp4"
                ) from error
            try:
                self._output.metadata.update(reader.metadata)
                self._video = self._add_video_stream(reader, scale, options)
                self._copies = {s.index: self._add_copy(s) for s in reader.copied_streams}
            except BaseException:
                self._output.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                with self._translated():
                    self._output.mux(self._video.encode(None))
        finally:
            with self._translated():
                self._output.close()

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
            self._write(event)

    def _write(self, event: Event) -> None:
        if not isinstance(event, Shot):
            event.stream = self._copies[event.stream.index]
            self._output.mux(event)
            return
        frame = frame_from_rgb(event.rgb, self._coding, str(self._video.pix_fmt))
        frame.pts = event.pts
        frame.time_base = self._video.codec_context.time_base
        frame.duration = event.duration
        self._output.mux(self._video.encode(frame))

    def _add_video_stream(
        self, reader: VideoReader, scale: int, options: VideoOptions
    ) -> "av.video.stream.VideoStream":
        name = options.codec or _ENCODERS.get(reader.codec_name, _FALLBACK_ENCODER)
        formats = self._encoder_formats(name)
        settings = {"crf": str(options.crf)}
        if name == "libx265":
            settings["x265-params"] = "log-level=error"  # it writes to stderr by itself
        if name.startswith("libvpx"):
            settings["b"] = "0"  # or the rate factor is only an upper bound
        if options.preset is not None:
            settings["preset"] = options.preset
        stream = cast(
            "av.video.stream.VideoStream",
            self._output.add_stream(name, rate=reader.rate, options=settings),
        )
        width, height = (side * scale for side in reader.size)
        stream.width, stream.height = width, height
        odd = bool(width % 2 or height % 2)
        stream.pix_fmt = _choose_pix_fmt(reader.pix_fmt, formats, deep=reader.is_deep, odd=odd)
        context = stream.codec_context
        context.time_base = reader.time_base
        coding = reader.coding
        context.colorspace, context.color_range = coding.matrix, coding.range
        context.color_primaries, context.color_trc = coding.primaries, coding.transfer
        if reader.sample_aspect_ratio:
            context.sample_aspect_ratio = reader.sample_aspect_ratio
        return stream

    def _encoder_formats(self, name: str) -> list[str]:
        """The pixel formats that an encoder takes."""
        try:
            codec = self._pyav.Codec(name, "w")
        except (self._pyav.FFmpegError, ValueError) as error:
            raise InputError(
                f"no encoder {name!r} in this FFmpeg. Use --codec with another, such as libx264"
            ) from error
        if codec.type != "video":
            raise InputError(f"--codec {name} encodes {codec.type}; expected a video encoder")
        self._refuse_unsupported(codec.canonical_name, "video", "or another --codec")
        return [pix_fmt.name for pix_fmt in codec.video_formats or ()]

    def _add_copy(self, stream: "av.stream.Stream") -> "av.stream.Stream":
        name = stream.codec_context.codec.canonical_name
        self._refuse_unsupported(name, f"{stream.type} stream {stream.index}", "which holds most")
        copy = self._output.add_stream_from_template(stream)
        copy.metadata.update(stream.metadata)
        return copy

    def _refuse_unsupported(self, codec: str, what: str, hint: str) -> None:
        supported = self._output.supported_codecs
        if supported and codec not in supported:
            raise InputError(
                f"{self._output.format.name} files cannot hold {codec} ({what}). "
                f"Use .mkv for the output, {hint}"
            )


def _choose_pix_fmt(source: str, formats: list[str], *, deep: bool, odd: bool) -> str:
    """The encoder's format nearest to the source's: as deep and as fine in colour.

    Args:
        source: Format of the source.
        formats: What the encoder takes; empty where the encoder names none.
        deep: Whether the source has more than 8 bits a sample.
        odd: Whether a side of the result is odd: halved chroma needs even ones.
    """
    if odd:
        wanted = ["yuv444p10le" if deep else "yuv444p", "yuv444p"]
    else:
        plain = source.replace("yuvj", "yuv")
        wanted = [plain, "yuv420p10le" if deep else "yuv420p", "yuv420p"]
    return next((name for name in wanted if name in formats), (formats or wanted)[0])
