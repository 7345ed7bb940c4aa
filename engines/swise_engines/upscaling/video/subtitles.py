"""Text subtitles from one container's form to another's: MP4's mov_text and SubRip."""

import re
import struct

_TAG = re.compile(rb"<[^<>]*>")
CONVERSIONS = {"mov_text": "subrip", "subrip": "mov_text"}
"""The form that another kind of container takes, by codec."""

HEADER = b"[Events]\n"
"""The header that FFmpeg's text encoders need before they open; it sets no style."""


def converted(payload: bytes, codec: str) -> bytes:
    """Convert one subtitle.

    Args:
        payload: Of a packet.
        codec: "mov_text" (3GPP TS 26.245: a length of two bytes, the text, styles) or "subrip".
    """
    if codec == "mov_text":
        (length,) = struct.unpack(">H", payload[:2]) if len(payload) >= 2 else (0,)
        return payload[2 : 2 + length]
    text = _TAG.sub(b"", payload)[:65_535]
    return struct.pack(">H", len(text)) + text
