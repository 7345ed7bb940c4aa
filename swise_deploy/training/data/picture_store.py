"""Decoded pictures in one memory-mapped file, with an index beside it.

    NAME.bin    uint8 RGB, one picture after the other
    NAME.json   names, sizes and offsets; pictures left out, with the reason

The index is written after the pictures, each whole or not at all: a build that is killed leaves
no half store.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.errors import InputError
from swise_deploy.pictures.files import RgbImage
from swise_deploy.storage.documents import Count, read_document
from swise_deploy.storage.files import write_json, writing

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """The place of one picture in a store.

    Attributes:
        name: Its path in its folder.
        height: Pixels.
        width: Pixels.
        offset: First byte.
        folder: Position of its folder among those given.
    """

    name: str
    height: Count
    width: Count
    offset: Count
    folder: Count = 0


@dataclass(frozen=True, slots=True)
class PictureStore:
    """Pictures in one memory-mapped file.

    Attributes:
        entries: One for each picture, in the order of the file.
        pixels: All bytes, uint8, flat.
    """

    entries: tuple[Entry, ...]
    pixels: NDArray[np.uint8]

    def picture(self, index: int) -> RgbImage:
        """One picture, (H, W, 3), a view of the file."""
        entry = self.entries[index]
        size = entry.height * entry.width * 3
        flat = self.pixels[entry.offset : entry.offset + size]
        return flat.reshape(entry.height, entry.width, 3)


@dataclass(frozen=True, slots=True)
class _Index:
    size_bytes: Count
    entries: tuple[Entry, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture for a store: (H, W, 3), uint8, its name, and the position of its folder."""

    name: str
    pixels: RgbImage
    folder: int = 0


def write_stores(
    bases: tuple[Path, ...],
    pictures: Iterable[tuple[NewPicture, ...]],
    skipped: Mapping[str, str],
) -> None:
    """Write stores that grow together, one picture to each at a time.

    Args:
        bases: Their paths without suffix.
        pictures: For each position, the picture of every store.
        skipped: Read after the last picture.

    Raises:
        InputError: There is no picture; the message quotes some of `skipped`.
        OutputError: They cannot be written.
    """
    entries: list[list[Entry]] = [[] for _ in bases]
    offsets = [0 for _ in bases]
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(writing(base.with_suffix(".bin"))) for base in bases]
        with contextlib.ExitStack() as open_files:
            files = [open_files.enter_context(path.open("wb")) for path in temporary]
            for together in pictures:
                for i, picture in enumerate(together):
                    height, width = picture.pixels.shape[:2]
                    entry = Entry(picture.name, height, width, offsets[i], picture.folder)
                    entries[i].append(entry)
                    offsets[i] += files[i].write(np.ascontiguousarray(picture.pixels).data)
        if not entries[0]:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
            raise InputError(f"not one of {len(skipped)} pictures can be read: {reasons}")
    for i, base in enumerate(bases):
        write_json(
            base.with_suffix(".json"),
            {
                "schema_version": SCHEMA_VERSION,
                "size_bytes": offsets[i],
                "entries": [asdict(entry) for entry in entries[i]],
                "skipped": dict(skipped),
            },
        )


def open_store(base: Path) -> tuple[PictureStore, Mapping[str, str]] | None:
    """Open a store and the reasons for pictures left out; None where it is absent or damaged."""
    binary = base.with_suffix(".bin")
    if not binary.is_file():
        return None
    try:
        index = read_document(
            base.with_suffix(".json"),
            _Index,
            what="the index",
            advice="It is made again",
            schema_version=SCHEMA_VERSION,
        )
    except InputError:
        return None
    ends = [entry.offset + 3 * entry.height * entry.width for entry in index.entries]
    size_bytes = binary.stat().st_size
    if size_bytes != index.size_bytes or max(ends, default=0) > size_bytes:
        return None
    pixels: NDArray[np.uint8] = (
        np.memmap(binary, np.uint8, mode="r") if size_bytes else np.zeros(0, np.uint8)
    )
    return PictureStore(index.entries, pixels), index.skipped


def store_of_sizes(hr: PictureStore, scale: int) -> PictureStore:
    """The sizes that pictures have at low resolution, where their pixels are made on the fly."""
    entries = tuple(
        Entry(e.name, e.height // scale, e.width // scale, 0, e.folder) for e in hr.entries
    )
    return PictureStore(entries, np.zeros(0, np.uint8))
