"""Many picture files: decoding, the network and encoding overlap."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import format_of
from swise_deploy.storage.files import writing
from swise_engines.upscaling.jobs import Job
from swise_engines.upscaling.pictures.codecs import (
    Picture,
    decode_picture,
    encode_picture,
    refuse_unwritable,
)
from swise_engines.upscaling.pipeline import Outcome, run_overlapped
from swise_engines.upscaling.stills import upscale_picture
from swise_engines.upscaling.upscaler import Upscaler


def upscale_files(
    upscaler: Upscaler, jobs: Iterable[Job], *, quality: int | None = None
) -> Iterator[Outcome[Job]]:
    """Upscale picture files; decoding, the network and encoding overlap.

    Yields:
        The outcome of each job. A failure stops its own file only, and leaves no partial file.
    """

    def read(job: Job) -> Picture:
        picture = decode_picture(read_file(job.source))
        refuse_unwritable(picture, format_of(job.target.suffix), upscaler.scale)
        return picture

    def work(_: Job, picture: Picture) -> Picture:
        return upscale_picture(upscaler, picture)

    def write(job: Job, picture: Picture) -> None:
        write_file(
            job.target, encode_picture(picture, format_of(job.target.suffix), quality=quality)
        )

    return run_overlapped(jobs, read=read, work=work, write=write)


def read_file(path: Path) -> bytes:
    """Read the bytes of a file.

    Raises:
        InputError: It is missing or not readable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write bytes to a file, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path) as temporary:
        temporary.write_bytes(data)
