"""FFmpeg's encoders: which one follows a codec, and how each takes a quality."""

from typing import TYPE_CHECKING

from swise_engines.upscaling.video.options import VideoOptions

if TYPE_CHECKING:
    import av.codec

_ENCODERS = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp8": ("libvpx",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    "prores": ("prores_ks",),
    "ffv1": ("ffv1",),
}
# For transparent pictures of other codecs, by container; a lossless codec is its own first choice.
_TRANSPARENT_ENCODERS = {
    "mov": ("prores_ks",),
    "matroska": ("ffv1",),
    "webm": ("libvpx-vp9",),
    "avi": ("ffv1",),
    "nut": ("ffv1",),
}
_LOSSLESS_WITH_ALPHA = ("png", "qtrle", "utvideo")
_FALLBACKS = ("libx264", "libvpx-vp9")
# Names of the quality options that are no "crf", by the end of the encoder's name.
_QUALITY_OPTIONS = {
    "_nvenc": "cq",
    "_qsv": "global_quality",
    "_vaapi": "qp",
    "_amf": "qp_p",
    "_vulkan": "qp",
}
# Listed by the encoder, and refused when it is opened (FFmpeg 8.1).
_REFUSED_FORMATS = {"libvpx-vp9": ("yuva422p", "yuva444p", "gbrap")}
_SILENT = {"libx265": {"x265-params": "log-level=error"}}  # it writes to stderr by itself


def encoders_for(
    codec: str,
    wanted: str | None,
    default_codec: str,
    *,
    container: str = "",
    is_transparent: bool = False,
) -> list[str]:
    """Encoders to try in order.

    Args:
        codec: Of the source.
        wanted: By --codec; then no other is tried.
        default_codec: Of the container.
        container: FFmpeg's name of it.
        is_transparent: True where the pictures of the source are.
    """
    if wanted is not None:
        return [wanted]
    names = [*_ENCODERS.get(codec, ())]
    if is_transparent and container in _TRANSPARENT_ENCODERS:
        names += [codec] if codec in _LOSSLESS_WITH_ALPHA else []
        names += _TRANSPARENT_ENCODERS[container]
    names += [*_FALLBACKS, *_ENCODERS.get(default_codec, (default_codec,))]
    return list(dict.fromkeys(name for name in names if name and name != "none"))


def formats_of(encoder: "av.codec.Codec") -> list[str]:
    """The pixel formats that an encoder takes; empty where it names none."""
    refused = _REFUSED_FORMATS.get(encoder.name, ())
    return [form.name for form in encoder.video_formats or () if form.name not in refused]


def encoder_settings(name: str, options: VideoOptions) -> dict[str, str]:
    """The options of an encoder for a quality and a speed."""
    quality = next((o for end, o in _QUALITY_OPTIONS.items() if name.endswith(end)), "crf")
    settings = {quality: str(options.crf), **_SILENT.get(name, {})}
    if name.startswith("libvpx"):
        settings["b"] = "0"  # or the rate factor is only an upper bound
    if options.preset is not None:
        settings["preset"] = options.preset
    return settings
