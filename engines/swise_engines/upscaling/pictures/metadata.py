"""Metadata of a picture file: colour profile, EXIF, XMP, resolution, notes."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import ExifTags, Image, PngImagePlugin

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
_MAX_NOTE_BYTES = 1 << 20
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


def metadata_from_image(image: Image.Image, upright: Image.Image) -> Metadata:
    """Collect the metadata of a picture as it was opened, and after it was turned upright."""
    info = upright.info
    icc, xmp, comment, dpi = (info.get(key) for key in ("icc_profile", "xmp", "comment", "dpi"))
    text = getattr(image, "text", None) or {}
    notes = {str(k): str(v) for k, v in text.items() if len(str(v)) <= _MAX_NOTE_BYTES}
    packet = notes.pop("XML:com.adobe.xmp", None)
    if packet is not None:
        xmp = packet.encode()
    return Metadata(
        icc=icc if isinstance(icc, bytes) and icc else None,
        exif=_upright_exif(image),
        xmp=xmp if isinstance(xmp, bytes) else None,
        dpi=_positive_pair(dpi),
        text=notes,
        comment=comment if isinstance(comment, bytes) else None,
    )


def _positive_pair(dpi: object) -> tuple[float, float] | None:
    if not (isinstance(dpi, tuple) and len(dpi) == 2):
        return None
    x, y = float(dpi[0]), float(dpi[1])
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def _upright_exif(image: Image.Image) -> Image.Exif | None:
    source = image.getexif()
    exif = Image.Exif()
    for tag, value in source.items():
        if tag in _DESCRIPTIVE_TAGS:
            exif[tag] = value
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        tags = source.get_ifd(directory)
        if tags:
            exif.get_ifd(directory).update(tags)
            exif[directory] = exif.get_ifd(directory)
    try:
        exif.tobytes()
    except Exception as error:  # noqa: BLE001  # Pillow raises whatever a broken tag leads to
        logger.warning("EXIF left out, it cannot be written again: %s", error)
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
        notes.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    return notes
