"""Static HDR metadata (HDR10): the mastering display, and the light levels of the content."""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

# libavutil's AVMasteringDisplayMetadata: red, green, blue and white as (x, y), lowest and highest
# luminance, all AVRational, and two flags. AVContentLightMetadata: MaxCLL, MaxFALL.
_MASTERING = struct.Struct("=20iii")
_LIGHT = struct.Struct("=II")
# SMPTE ST 2086 as HEVC codes it (ITU-T H.265, D.3.28): steps of 0.00002, and of 0.0001 cd/m2.
_CHROMATICITY_UNITS, _LUMINANCE_UNITS = 50_000, 10_000
# Encoders that write it, and the option that takes it.
_PARAMETERS = {
    "libx265": ("x265-params", "master-display", "max-cll"),
    "libx264": ("x264-params", "mastering-display", "cll"),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
}


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """Static HDR metadata.

    Attributes:
        primaries: (x, y) of red, green, blue and white; empty where not stated.
        luminance: Lowest and highest luminance in cd/m2; empty where not stated.
        light_level: MaxCLL and MaxFALL in cd/m2; empty where not stated.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] = ()
    luminance: tuple[Fraction, ...] = ()
    light_level: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """True if anything is stated."""
        return bool(self.primaries or self.luminance or self.light_level)


def hdr_of_frame(frame: "av.VideoFrame") -> HdrMetadata:
    """Read the static HDR metadata of a frame."""
    found = side_data_of(frame)
    primaries: tuple[tuple[Fraction, Fraction], ...] = ()
    luminance: tuple[Fraction, ...] = ()
    mastering = found.get("MASTERING_DISPLAY_METADATA", b"")
    if len(mastering) >= _MASTERING.size:
        *numbers, has_primaries, has_luminance = _MASTERING.unpack(mastering[: _MASTERING.size])
        values = [Fraction(n, d or 1) for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
        if has_primaries:
            primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
        if has_luminance:
            luminance = values[8], values[9]
    light = found.get("CONTENT_LIGHT_LEVEL", b"")
    level = _LIGHT.unpack(light[: _LIGHT.size]) if len(light) >= _LIGHT.size else ()
    return HdrMetadata(primaries, luminance, level)


def side_data_of(frame: "av.VideoFrame") -> dict[str, bytes]:
    """The side data of a frame by FFmpeg's name, such as "DISPLAYMATRIX"."""
    # It is typed as a mapping, but iterates over its values.
    values: Iterable[Any] = frame.side_data if frame.side_data is not None else ()
    return {str(data.type.name): bytes(data) for data in values}


def encoder_parameters(hdr: HdrMetadata, encoder: str) -> Mapping[str, str]:
    """The option with which an encoder writes the metadata; empty where it has none."""
    if not hdr or encoder not in _PARAMETERS:
        return {}
    option, display, light = _PARAMETERS[encoder]
    parts = []
    if hdr.primaries and hdr.luminance:
        parts.append(f"{display}={_display_text(hdr, encoder)}")
    if hdr.light_level:
        parts.append(f"{light}={hdr.light_level[0]},{hdr.light_level[1]}")
    return {option: ":".join(parts)} if parts else {}


def _display_text(hdr: HdrMetadata, encoder: str) -> str:
    """G(x,y)B(x,y)R(x,y)WP(x,y)L(highest,lowest), in the units of the encoder."""
    is_decimal = encoder == "libsvtav1"

    def number(value: Fraction, units: int) -> str:
        return f"{float(value):.5f}" if is_decimal else str(round(value * units))

    def point(x: Fraction, y: Fraction) -> str:
        return f"({number(x, _CHROMATICITY_UNITS)},{number(y, _CHROMATICITY_UNITS)})"

    red, green, blue, white = (point(*pair) for pair in hdr.primaries)
    lowest, highest = (number(value, _LUMINANCE_UNITS) for value in hdr.luminance)
    return f"G{green}B{blue}R{red}WP{white}L({highest},{lowest})"
