"""Metadata of a picture file: colour profile, EXIF, XMP, resolution, notes."""

import logging
import re
import struct
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

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
TIFF_IPTC = 33_723  # the same
_PHOTOSHOP_IPTC = 0x0404  # Adobe Photoshop file formats: image resource of IPTC-NAA records
_INCH = 2
# PNG 3rd edition, 11.3.2.5: what stands for sRGB in older readers; ITU-T H.273 has the codes.
_SRGB_CHUNKS = {
    "gAMA": struct.pack(">I", 45_455),
    "cHRM": struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000),
}
_SRGB_CODES = bytes([1, 13])
_ROUNDED = 500  # of 100,000: programs round them to two or three digits


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
        iptc: IPTC-NAA records: captions and keywords of the press.
        colour_chunks: Chunks of a PNG that say which colours its numbers are, by name.
    """

    icc: bytes | None = None
    exif: Image.Exif | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    comment: bytes | None = None
    iptc: bytes | None = None
    colour_chunks: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def has_other_colours(self) -> bool:
        """True where the chunks of a PNG, and no profile, state other colours than sRGB's."""
        chunks = {} if self.icc is not None else self.colour_chunks
        if "cICP" in chunks:
            return chunks["cICP"][:2] != _SRGB_CODES
        if "sRGB" in chunks:
            return False
        numbers = [
            value
            for name, count in (("gAMA", 1), ("cHRM", 8))
            for value in struct.unpack(f">{count}I", chunks.get(name, _SRGB_CHUNKS[name]))
        ]
        usual = struct.unpack(">9I", _SRGB_CHUNKS["gAMA"] + _SRGB_CHUNKS["cHRM"])
        return any(abs(a - b) > _ROUNDED for a, b in zip(numbers, usual, strict=True))


class _StoredText(str):
    """Text of EXIF, whose bytes Pillow reads as Latin-1 and writes as ASCII: here as they were."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:  # noqa: ARG002
        return super().encode("latin-1", errors)


def metadata_of(picture: DecodedPicture) -> Metadata:
    """Collect the metadata that also hold for the upright, upscaled picture."""
    info = picture.info
    icc, xmp, comment = (info.get(key) for key in ("icc_profile", "xmp", "comment"))
    chunks = info.get("colour_chunks")
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
        iptc=_iptc(info.get("photoshop"), picture.exif),
        colour_chunks=chunks if isinstance(chunks, dict) else {},
    )


def _iptc(photoshop: object, exif: Image.Exif) -> bytes | None:
    """The records of a JPEG's Photoshop block, or of a TIFF's tag."""
    records = photoshop.get(_PHOTOSHOP_IPTC) if isinstance(photoshop, dict) else exif.get(TIFF_IPTC)
    if isinstance(records, tuple) and all(isinstance(word, int) for word in records):
        order = exif.endian or "<"  # some programs store the bytes as whole numbers
        records = struct.pack(f"{order}{len(records)}I", *records)
    return records if isinstance(records, bytes) and records else None


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
    _keep_stored_text(exif)
    try:
        exif.tobytes()
    except Exception as error:  # noqa: BLE001  # Pillow raises whatever a broken tag leads to
        logger.warning("EXIF is dropped, since it cannot be written again: %s", error)
        return None
    return exif if len(exif) else None


def _keep_stored_text(exif: Image.Exif) -> None:
    kinds = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    directories: list[MutableMapping[int, Any]] = [exif]
    # Asking for a directory makes one, which TIFF does not allow to be empty.
    directories += [exif.get_ifd(kind) for kind in kinds if kind in exif]
    for directory in directories:
        for tag, value in list(directory.items()):
            if isinstance(value, str):
                directory[tag] = _StoredText(value)


def exif_for_size(
    metadata: Metadata, width: int, height: int, *, with_resolution: bool = False
) -> Image.Exif:
    """Copy the EXIF tags, empty where there are none; a size stated in pixels becomes this one.

    Args:
        metadata: With the tags.
        width: Of the picture that they are for.
        height: The same.
        with_resolution: State the resolution, for formats that have no other place for it.
    """
    copy = Image.Exif()
    if metadata.exif is not None:
        copy.load(metadata.exif.tobytes())
        _keep_stored_text(copy)
        tags = copy.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in copy else {}
        for tag, side in zip(_SIZE_TAGS, (width, height), strict=True):
            if tag in tags:
                tags[tag] = side
    if with_resolution and metadata.dpi is not None:
        copy[ExifTags.Base.XResolution], copy[ExifTags.Base.YResolution] = metadata.dpi
        copy[ExifTags.Base.ResolutionUnit] = _INCH
    return copy


def photoshop_segment(iptc: bytes) -> bytes:
    """The APP13 segment of a JPEG with IPTC-NAA records."""
    even = iptc + bytes(len(iptc) % 2)
    block = b"8BIM" + struct.pack(">HHI", _PHOTOSHOP_IPTC, 0, len(iptc)) + even
    body = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def png_notes(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Textual notes, XMP packet and chunks of colour, as Pillow's PNG writer takes them."""
    notes = PngImagePlugin.PngInfo()
    for name, body in metadata.colour_chunks.items():
        if name != "sRGB" or metadata.icc is None:
            notes.add(name.encode(), body)
    texts = dict(metadata.text)
    if metadata.comment:
        texts.setdefault("Comment", _decoded(metadata.comment))
    for key, value in texts.items():
        notes.add_itxt(key, value)
    if metadata.xmp is not None:
        notes.add_itxt(_XMP_NOTE, metadata.xmp.decode("utf-8", "replace"))
    return notes


def _decoded(comment: bytes) -> str:
    """Text of a comment, whose encoding no format states."""
    try:
        return comment.decode("utf-8")
    except UnicodeDecodeError:
        return comment.decode("latin-1")
