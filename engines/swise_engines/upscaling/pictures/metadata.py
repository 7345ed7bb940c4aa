"""Metadata of a picture file: colour profile, EXIF, XMP, resolution, notes."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import ExifTags, Image, PngImagePlugin

from swise_deploy.pictures.decoding import DecodedPicture, icc_space

logger = logging.getLogger(__name__)

# Kept from the first directory. The others describe how the old file stored its pixels, or its
# orientation.
_DESCRIPTIVE_TAGS = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
        ExifTags.Base.Rating,
        ExifTags.Base.XPTitle,
        ExifTags.Base.XPComment,
        ExifTags.Base.XPAuthor,
        ExifTags.Base.XPKeywords,
        ExifTags.Base.XPSubject,
    }
)
_SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
# SubjectArea and SubjectLocation: coordinates in the old pixels.
_PLACE_TAGS = frozenset({0x9214, 0xA214})
_MAX_NOTE_BYTES = 1 << 20
_XMP_NOTE = "XML:com.adobe.xmp"
_RAW_PROFILE = "Raw profile type "  # ImageMagick's copies of EXIF, ICC and XMP
# Adobe XMP specification, part 2: properties that describe the stored pixels, by namespace.
_OLD_PIXEL_PROPERTIES = {
    rb"http://ns\.adobe\.com/tiff/1\.0/": (b"Orientation", b"ImageWidth", b"ImageLength"),
    rb"http://ns\.adobe\.com/exif/1\.0/": (b"PixelXDimension", b"PixelYDimension"),
}
TIFF_XMP = 700  # Adobe XMP specification, part 3


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything beside the pixels; None and empty mean absent.

    Attributes:
        icc: ICC colour profile.
        exif: EXIF tags, without the orientation: pixels are upright.
        xmp: XMP packet.
        dpi: Pixels per inch, (x, y).
        text: Notes by keyword, as PNG has them.
        comment: The comment of a JPEG file.
    """

    icc: bytes | None = None
    exif: Image.Exif | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    comment: bytes | None = None


def metadata_of(picture: DecodedPicture) -> Metadata:
    """Collect the metadata that also hold for the upright, upscaled picture."""
    info = picture.info
    icc, xmp, comment = (info.get(key) for key in ("icc_profile", "xmp", "comment"))
    notes = {str(k): str(v) for k, v in picture.text.items() if len(str(v)) <= _MAX_NOTE_BYTES}
    packet = notes.pop(_XMP_NOTE, None)
    if packet is not None:
        xmp = packet.encode()
    return Metadata(
        icc=_fitting_profile(icc, is_colour=picture.colour.ndim == 3),
        exif=_upright_exif(picture.exif),
        xmp=_without_old_pixels(xmp) if isinstance(xmp, bytes) else None,
        dpi=_positive_pair(info.get("dpi")),
        text={key: note for key, note in notes.items() if not key.startswith(_RAW_PROFILE)},
        comment=comment if isinstance(comment, bytes) else None,
    )


def _fitting_profile(profile: object, *, is_colour: bool) -> bytes | None:
    """The ICC profile, if it is one for pictures of this kind."""
    if not isinstance(profile, bytes) or not profile:
        return None
    space = icc_space(profile)
    if space in (None, "RGB") or (space == "GRAY" and not is_colour):
        return profile
    logger.warning("an ICC profile for %s is dropped: the picture has another kind", space)
    return None


def _without_old_pixels(packet: bytes) -> bytes:
    """An XMP packet without the orientation and the size of the old pixels."""
    for namespace, names in _OLD_PIXEL_PROPERTIES.items():
        for prefix in set(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + namespace, packet)):
            named = re.escape(prefix) + b":(?:" + b"|".join(names) + rb")"
            packet = re.sub(rb"\s+" + named + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", packet)
            element = rb"<(" + named + rb")\b[^<>]*(?:/>|>[^<]*</\1\s*>)\s*"
            packet = re.sub(element, b"", packet)
    return packet


def _positive_pair(dpi: object) -> tuple[float, float] | None:
    if not (isinstance(dpi, tuple) and len(dpi) == 2):
        return None
    x, y = float(dpi[0]), float(dpi[1])
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def _upright_exif(source: Image.Exif) -> Image.Exif | None:
    exif = Image.Exif()
    for tag, value in source.items():
        if tag in _DESCRIPTIVE_TAGS:
            exif[tag] = value
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        tags = source.get_ifd(directory)
        if tags:
            kept = {tag: value for tag, value in tags.items() if tag not in _PLACE_TAGS}
            exif.get_ifd(directory).update(kept)
            exif[directory] = exif.get_ifd(directory)
    try:
        exif.tobytes()
    except Exception as error:  # noqa: BLE001  # Pillow raises whatever a broken tag leads to
        logger.warning("EXIF is dropped, since it cannot be written again: %s", error)
        return None
    return exif if len(exif) else None


def exif_for_size(metadata: Metadata, width: int, height: int) -> Image.Exif:
    """Copy the EXIF tags, empty where there are none; a size stated in pixels becomes this one."""
    copy = Image.Exif()
    if metadata.exif is None:
        return copy
    copy.load(metadata.exif.tobytes())
    tags = copy.get_ifd(ExifTags.IFD.Exif)
    for tag, side in zip(_SIZE_TAGS, (width, height), strict=True):
        if tag in tags:
            tags[tag] = side
    return copy


def png_notes(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Textual notes and the XMP packet, as Pillow's PNG writer takes them."""
    notes = PngImagePlugin.PngInfo()
    for key, value in metadata.text.items():
        notes.add_itxt(key, value)
    if metadata.xmp is not None:
        notes.add_itxt(_XMP_NOTE, metadata.xmp.decode("utf-8", "replace"))
    return notes
