"""Many pictures: which file becomes which, and what became of each."""

import glob
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.pictures.formats import SUFFIXES, Format, format_of
from swise_deploy.storage.files import writing
from swise_engines.upscaling.pictures.codecs import (
    Picture,
    decode_picture,
    encode_picture,
    refuse_unwritable,
)
from swise_engines.upscaling.pipeline import Outcome, run_overlapped
from swise_engines.upscaling.stills import upscale_picture
from swise_engines.upscaling.upscaler import Upscaler

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One file that becomes another."""

    source: Path
    target: Path


def plan_jobs(
    inputs: Sequence[str], output: Path, *, file_format: Format | None = None
) -> list[Job]:
    """Say which file becomes which.

    A folder is mirrored: its pictures, at any depth, keep their relative paths under `output`. A
    file goes to `output` itself where that has a suffix, and is no folder; else into it.

    Args:
        inputs: Files, folders and glob patterns.
        output: A file or a folder; it need not exist.
        file_format: Format, and suffix, of the results; None keeps that of each source.

    Raises:
        InputError: Nothing is found, several sources or two would become one file, a source would
            overwrite itself, or the output's suffix names no format or another one.
    """
    if _is_one_file(inputs):
        if _names_file(output):
            return [_job_of_file(Path(inputs[0]), output, file_format)]
    elif output.is_file() or (output.suffix.lower() in SUFFIXES and not output.is_dir()):
        raise InputError(
            f"{output} is the name of a file, and there may be several results. Give a folder"
        )
    jobs: list[Job] = []
    for text in inputs:
        for path in _expand(text):
            if path.is_dir():
                jobs += _mirror(path, output, file_format)
            else:
                jobs.append(Job(path, _with_format(output / path.name, file_format)))
    _refuse_clashes(jobs)
    return jobs


def _is_one_file(inputs: Sequence[str]) -> bool:
    return len(inputs) == 1 and Path(inputs[0]).is_file()


def _job_of_file(source: Path, output: Path, file_format: Format | None) -> Job:
    if file_format is not None and format_of(output.suffix) != file_format:
        raise InputError(
            f"{output} is no {file_format} file by its name. Leave --format out, or name the "
            f"output {output.with_suffix(f'.{file_format}').name}"
        )
    format_of(output.suffix)
    job = Job(source, output)
    _refuse_clashes([job])
    return job


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.exists():
        return [path]
    # pathlib refuses absolute patterns.
    found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207
    if not found:
        raise InputError(
            f"nothing at {text}. Give a picture, a folder or a pattern such as 'in/*.png'"
        )
    return [Path(name) for name in found]


def _names_file(output: Path) -> bool:
    return bool(output.suffix) and not output.is_dir()


def _mirror(folder: Path, output: Path, file_format: Format | None) -> list[Job]:
    inside = output.resolve()
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
        and not (path.resolve().is_relative_to(inside) and inside != folder.resolve())
    )
    if not paths:
        raise InputError(
            f"no picture in {folder}. Expected files ending in {', '.join(sorted(SUFFIXES))}"
        )
    return [
        Job(path, _with_format(output / path.relative_to(folder), file_format)) for path in paths
    ]


def _with_format(path: Path, file_format: Format | None) -> Path:
    if file_format is None or (
        path.suffix.lower() in SUFFIXES and format_of(path.suffix) == file_format
    ):
        return path
    return path.with_suffix(f".{file_format}")


def _refuse_clashes(jobs: Iterable[Job]) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        target = Path(os.path.abspath(job.target))  # noqa: PTH100  # links stay as they are
        if target in sources:
            raise InputError(
                f"{sources[target]} and {job.source} would both become {job.target}. "
                "Upscale them into different folders"
            )
        if job.target.exists() and job.target.samefile(job.source):
            raise InputError(f"{job.source} would overwrite itself. Choose another output")
        sources[target] = job.source


def split_done(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """Split into jobs to do and jobs whose result is there: results are whole or absent."""
    done = [job.target.exists() for job in jobs]
    return (
        list(itertools.compress(jobs, (not here for here in done))),
        list(itertools.compress(jobs, done)),
    )


def upscale_files(
    upscaler: Upscaler, jobs: Iterable[Job], *, quality: int | None = None
) -> Iterator[Outcome[Job]]:
    """Upscale picture files; decoding, the network and encoding overlap.

    Yields:
        What became of each job. A file that fails is reported and left out; no partial file is
        left.
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
