"""The codecs that containers hold, asked of FFmpeg's writers."""

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from swise_deploy.command.dependencies import require

if TYPE_CHECKING:
    import av.stream

# FFmpeg writes any other codec into MPEG-TS too, as private data that no program can read.
_CODECS_OF_MPEGTS = frozenset(
    {"h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "cavs", "dirac", "vc1"}
    | {"mp1", "mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "truehd", "opus", "s302m"}
    | {"dvb_subtitle", "dvb_teletext", "arib_caption"}
)
# Named in the variant of Blu-ray and AVCHD only.
_CODECS_OF_M2TS = _CODECS_OF_MPEGTS | {"pcm_bluray", "hdmv_pgs_subtitle"}
# Later additions ("enhanced") are read by recent programs only; raw sound aborts FFmpeg 8.
_CODECS_OF_FLV = frozenset({"h264", "flv1", "vp6f", "aac", "mp3", "speex", "nellymoser"})
# FFmpeg accepts others for a stream, and refuses the whole file.
_CODECS_OF_OGG = frozenset({"theora", "vp8", "vorbis", "opus", "flac", "speex"})
_NOT_IN_MOV = frozenset({"vp8", "vp9", "av1", "opus", "flac"})
M2TS_SUFFIXES = (".m2ts", ".mts")
"""Suffixes of the variant of MPEG-TS for Blu-ray and AVCHD."""

# Common ones first: the writers that are asked for another container, by suffix.
_OFFERED = {
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mp4",
    ".avi": "avi",
    ".nut": "nut",
    ".wmv": "asf",
    ".mxf": "mxf",
}


def names_codec(format_name: str, codec: str, *, suffix: str) -> bool:
    """False if a format takes a codec, but no reader would know it again."""
    if format_name == "flv":
        return codec in _CODECS_OF_FLV
    if format_name in ("ogg", "ogv"):
        return codec in _CODECS_OF_OGG
    if format_name == "mov":
        return codec not in _NOT_IN_MOV
    if format_name != "mpegts":
        return True
    named = _CODECS_OF_M2TS if suffix.lower() in M2TS_SUFFIXES else _CODECS_OF_MPEGTS
    return codec in named


def other_container(
    streams: "Sequence[av.stream.Stream]", encoders: Sequence[str] = (), *, refused: str = ""
) -> str:
    """Advise a container that holds these sounds beside the video of one of these encoders.

    Args:
        streams: Streams that are copied.
        encoders: FFmpeg's names; none asks for no video.
        refused: FFmpeg's name of the format that does not.
    """
    for suffix, name in _OFFERED.items():
        if name != refused and _holds(name, streams, encoders):
            return f"Use {suffix} for the output, which holds it"
    return (
        "No common container holds it: convert the sound first, such as with "
        "ffmpeg -i INPUT -map 0 -c copy -c:a flac NEW.mkv"
    )


def _holds(
    format_name: str, streams: "Sequence[av.stream.Stream]", encoders: Sequence[str]
) -> bool:
    pyav = require("av", extra="video", purpose="upscaling a video")
    if encoders and not any(_takes_encoder(format_name, encoder) for encoder in encoders):
        return False
    if not streams:
        return True
    output = pyav.open(io.BytesIO(), "w", format=format_name)
    try:
        for stream in streams:
            if not names_codec(format_name, stream.codec_context.codec.canonical_name, suffix=""):
                return False
            output.add_stream_from_template(stream)
        output.start_encoding()
    except (ValueError, pyav.FFmpegError):
        return False
    finally:
        with contextlib.suppress(ValueError, pyav.FFmpegError):
            output.close()
    return True


def _takes_encoder(format_name: str, encoder: str) -> bool:
    pyav = require("av", extra="video", purpose="upscaling a video")
    try:
        with pyav.open(io.BytesIO(), "w", format=format_name) as output:
            output.add_stream(encoder, rate=25)
    except (ValueError, pyav.FFmpegError):
        return False
    return True
