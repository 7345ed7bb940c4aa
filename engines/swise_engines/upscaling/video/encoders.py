"""FFmpeg's encoders: which one follows a codec, and how each takes a quality."""

from swise_engines.upscaling.video.options import VideoOptions

_ENCODERS = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp8": ("libvpx",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    "prores": ("prores_ks",),
    "ffv1": ("ffv1",),
}
_FALLBACKS = ("libx264", "libvpx-vp9")
# Names of the quality options that are no "crf", by the end of the encoder's name.
_QUALITY_OPTIONS = {
    "_nvenc": "cq",
    "_qsv": "global_quality",
    "_vaapi": "qp",
    "_amf": "qp_p",
    "_vulkan": "qp",
}
_SILENT = {"libx265": {"x265-params": "log-level=error"}}  # it writes to stderr by itself


def encoders_for(codec: str, wanted: str | None, default_codec: str) -> list[str]:
    """Encoders to try in order.

    Args:
        codec: Of the source.
        wanted: By --codec; then no other is tried.
        default_codec: Of the container.
    """
    if wanted is not None:
        return [wanted]
    names = [*_ENCODERS.get(codec, ()), *_FALLBACKS, default_codec]
    return list(dict.fromkeys(name for name in names if name and name != "none"))


def encoder_settings(name: str, options: VideoOptions) -> dict[str, str]:
    """The options of an encoder for a quality and a speed."""
    quality = next((o for end, o in _QUALITY_OPTIONS.items() if name.endswith(end)), "crf")
    settings = {quality: str(options.crf), **_SILENT.get(name, {})}
    if name.startswith("libvpx"):
        settings["b"] = "0"  # or the rate factor is only an upper bound
    if options.preset is not None:
        settings["preset"] = options.preset
    return settings
