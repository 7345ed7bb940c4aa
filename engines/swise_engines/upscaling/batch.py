"""Many picture files: decoding, the network and encoding overlap."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.pictures.files import MAX_PICTURE_BYTES
from swise_deploy.pictures.formats import Format, format_of
from swise_deploy.storage.files import read_regular, writing
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
    upscaler: Upscaler,
    jobs: Iterable[Job],
    *,
    quality: int | None = None,
    report: Callable[[Job, float], None] = lambda _, __: None,
) -> Iterator[Outcome[Job]]:
    """Upscale picture files; decoding, the network and encoding overlap.

    Args:
        upscaler: The network.
        jobs: Which file becomes which.
        quality: Of lossy formats.
        report: Called with a job and the share of it that is done, 0 to 1.

    Yields:
        The outcome of each job. A failure stops its own file only, and leaves no partial file.
    """

    def read(job: Job) -> Picture:
        picture = decode_picture(read_file(job.source))
        refuse_unwritable(picture, format_of(job.target.suffix), upscaler.scale)
        return picture

    def work(job: Job, picture: Picture) -> Picture:
        return upscale_picture(upscaler, picture, report=lambda share: report(job, share))

    def write(job: Job, picture: Picture) -> None:
        write_file(
            job.target, encode_picture(picture, format_of(job.target.suffix), quality=quality)
        )

    return run_overlapped(jobs, read=read, work=work, write=write)


def check_picture(data: bytes, file_format: Format, scale: int | None) -> None:
    """Refuse an encoded picture before any work.

    Args:
        data: As read from a file.
        file_format: Of the result.
        scale: Output size over input size; None where it is not known yet.

    Raises:
        InputError: It cannot be read, or the format cannot hold the result.
    """
    refuse_unwritable(decode_picture(data), file_format, scale or 1)


def read_file(path: Path) -> bytes:
    """Read the bytes of a file.

    Raises:
        InputError: It is missing or not readable.
    """
    try:
        return read_regular(path, max_bytes=MAX_PICTURE_BYTES)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write bytes to a file, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path) as temporary:
        temporary.write_bytes(data)
