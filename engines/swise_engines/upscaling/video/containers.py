"""Video files by suffix and by content: the one list of containers that are opened.

FFmpeg chooses the reader by the content of a file, and some of its readers open other files and
addresses (playlists). Only containers that carry their own pictures are opened.
"""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".m2t"}
    | {".mpg", ".mpeg", ".vob", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf"}
    | {".dv", ".y4m", ".mj2", ".nut"}
)
"""Suffixes of video files that are read, in lower case."""

_READ_ONLY_SUFFIXES = {".qt": ".mov", ".mj2": ".mkv", ".dv": ".mkv", ".ogv": ".mkv", ".y4m": ".mkv"}


def result_suffix(suffix: str) -> str:
    """The suffix of the result for a video with this suffix: the same where it is written."""
    return _READ_ONLY_SUFFIXES.get(suffix.lower(), suffix) or ".mkv"


DEMUXERS = tuple(
    "mov matroska avi mpegts mpeg asf flv ogg mxf dv yuv4mpegpipe gif apng nut".split()  # noqa: SIM905
)
"""FFmpeg's names of the readers that are used."""

_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (4, b"ftypmp4"),
    (4, b"ftypiso"),
    (4, b"ftypqt"),
    (4, b"ftyp3g"),
    (4, b"ftypM4V"),
    (4, b"ftypavc1"),
    (4, b"moov"),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "),
    (0, b"FLV"),
    (0, b"OggS"),
    (0, b"\0\0\x01\xba"),  # MPEG program stream
    (0, b"\x30\x26\xb2\x75"),  # ASF
    (0, b"YUV4MPEG2"),
    (0, b"nut/multimedia container\0"),
)
_PLAYLISTS = (b"ffconcat", b"#EXTM3U", b"[playlist]", b"<?xml", b"<MPD", b"v=0")


def is_video_content(head: bytes) -> bool:
    """True if the first bytes of a file are those of a video container."""
    return any(head[start : start + len(sign)] == sign for start, sign in _SIGNATURES)


def is_playlist(head: bytes) -> bool:
    """True if the first bytes of a file are those of a list of other files."""
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_PLAYLISTS)
