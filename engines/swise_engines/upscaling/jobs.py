"""The work of a run: which file becomes which, and which files are left out."""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.pictures.folders import printable, walk_files
from swise_deploy.pictures.formats import (
    FORMAT_NAMES,
    PILLOW_READERS,
    SUFFIXES,
    Format,
    format_of,
    result_suffix,
    unsupported_name,
)
from swise_engines.upscaling.video.containers import VIDEO_SUFFIXES, is_video_content
from swise_engines.upscaling.video.containers import result_suffix as video_result_suffix

Kind = Literal["picture", "video"]

_HEAD_BYTES = 64
_SCALES = (2, 3, 4)


@dataclass(frozen=True, slots=True)
class Job:
    """One file that becomes another."""

    source: Path
    target: Path
    kind: Kind = "picture"


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of a run.

    Attributes:
        jobs: In the order of the inputs.
        left_out: Files that are neither pictures nor videos, of folders or several inputs.
    """

    jobs: tuple[Job, ...]
    left_out: tuple[Path, ...] = ()

    @property
    def num_left_out(self) -> dict[str, int]:
        """Number of files left out by suffix, in lower case."""
        return dict(sorted(Counter(path.suffix.lower() for path in self.left_out).items()))


def plan_jobs(inputs: Sequence[str], output: Path, *, file_format: Format | None = None) -> Plan:
    """Decide which file becomes which.

    A folder is mirrored: its pictures and videos, at any depth, keep their relative paths under
    `output`. A file goes to `output` itself where that has a suffix, and is no folder; else into
    it. Results of an earlier run that lie among the inputs are not inputs.

    Args:
        inputs: Files, folders and glob patterns.
        output: A file or a folder; it need not exist.
        file_format: Format, and suffix, of the pictures; None keeps that of each source.

    Raises:
        InputError: Nothing is found, two sources would become one file, a source would overwrite
            itself, or the suffix of the output contradicts the input or the format.
    """
    found = [path for text in inputs for path in _expand(text)]
    if len(inputs) == 1 and Path(inputs[0]).is_file():
        if _names_file(output):
            job = _job_of_file(found[0], output, file_format)
            _refuse_clashes([job])
            return Plan((job,))
    elif output.is_file() or (_is_known(output.suffix) and not output.is_dir()):
        raise InputError(
            f"{output} is the name of a file, and there may be several results. Give a folder"
        )
    jobs: list[Job] = []
    left_out: list[Path] = []
    for path in found:
        if path.is_dir():
            inside, others = _files_of(path, output)
            left_out += others
            jobs += [_job_in(p, output, p.relative_to(path), file_format) for p in inside]
        elif len(found) > 1 and not _is_supported(path):
            left_out.append(path)
        else:
            jobs.append(_job_in(path, output, path.name, file_format))
    if not jobs:
        raise InputError(f"no picture or video in {', '.join(inputs)}, but {_counted(left_out)}")
    jobs = _without_results(jobs)
    _refuse_clashes(jobs)
    return Plan(tuple(jobs), tuple(left_out))


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_file() or path.is_dir():
        return [path]
    if path.exists():
        raise InputError(f"{path} is no regular file. Give a picture, a video or a folder")
    if not glob.has_magic(text):
        what = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture"
        raise InputError(f"no {what} at {path}. Check the path")
    # pathlib refuses absolute patterns.
    names = sorted(glob.glob(text, recursive=True))  # noqa: PTH207
    if not names:
        raise InputError(f"no file matches {text}. Give a picture, a folder or another pattern")
    return [Path(name) for name in names if Path(name).is_file() or Path(name).is_dir()]


def _names_file(output: Path) -> bool:
    return bool(output.suffix) and not output.is_dir()


def _is_known(suffix: str) -> bool:
    return suffix.lower() in SUFFIXES | VIDEO_SUFFIXES


def kind_of(path: Path) -> Kind:
    """Decide by suffix, and by content where the suffix is not known, what a file is.

    Raises:
        InputError: It is neither a picture nor a video that is supported.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return "picture"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if is_video_content(head):
        return "video"
    if (name := unsupported_name(head)) is not None:
        raise InputError(f"{path} is {name}, which is not supported. Expected {FORMAT_NAMES}")
    if _size_of(path) is not None:
        return "picture"
    raise InputError(
        f"{path} is neither a picture nor a video by its suffix or content. Expected {FORMAT_NAMES}"
        f", or a video ending in {', '.join(sorted(VIDEO_SUFFIXES))}"
    )


def _job_of_file(source: Path, output: Path, file_format: Format | None) -> Job:
    is_video_output = output.suffix.lower() in VIDEO_SUFFIXES
    kind = kind_of(source)
    if kind == "picture" and is_video_output and is_animated(source):
        kind = "video"
    if kind == "video":
        if not is_video_output:
            raise InputError(
                f"{source} is a video, and {output} is not named like one. Expected a suffix such "
                "as .mkv or .mp4"
            )
        return Job(source, output, "video")
    if is_video_output:
        raise InputError(f"{source} is a picture, and {output} is named like a video. Use .png")
    if format_of(output.suffix) != (file_format or format_of(output.suffix)):
        raise InputError(
            f"{output} is no {file_format} file by its name. Leave --format out, or name the "
            f"output {output.with_suffix(f'.{file_format}').name}"
        )
    return Job(source, output)


def _job_in(source: Path, folder: Path, name: str | Path, file_format: Format | None) -> Job:
    target, kind = folder / name, kind_of(source)
    if kind == "video":
        is_known = target.suffix.lower() in VIDEO_SUFFIXES
        suffix = video_result_suffix(target.suffix) if is_known else f"{target.suffix}.mkv"
        return Job(source, target.with_suffix(suffix), kind)
    if target.suffix.lower() not in SUFFIXES:
        return Job(source, target.with_name(f"{target.name}.{file_format or 'png'}"))
    suffix = result_suffix(target.suffix)
    if file_format is not None and format_of(suffix) != file_format:
        suffix = f".{file_format}"
    return Job(source, target.with_suffix(suffix))


def _is_supported(path: Path) -> bool:
    try:
        kind_of(path)
    except InputError:
        return False
    return True


def is_animated(path: Path) -> bool:
    """True for a picture file with several frames."""
    try:
        with Image.open(path, formats=PILLOW_READERS) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # noqa: BLE001  # what cannot be opened is reported where it is read
        return False


def _files_of(folder: Path, output: Path) -> tuple[list[Path], list[Path]]:
    """Pictures and videos of a folder, and its other files; without the results in `output`."""
    results, searched = output.resolve(), folder.resolve()
    files = sorted(
        path
        for path in walk_files(folder)
        if results == searched or not path.resolve().is_relative_to(results)
    )
    known = [path for path in files if _is_known(path.suffix)]
    others = [path for path in files if not _is_known(path.suffix)]
    if not known:
        held = f", but {_counted(others)}" if others else ""
        raise InputError(
            f"no picture or video in {printable(folder)}{held}. Expected files ending in "
            f"{', '.join(sorted(SUFFIXES))} or a video's suffix"
        )
    return known, others


def _counted(paths: Sequence[Path]) -> str:
    return counts_text(Plan((), tuple(paths)).num_left_out)


def counts_text(num_files: Mapping[str, int]) -> str:
    """Files by suffix, such as "2 .mp3, 1 without suffix"."""
    return ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in num_files.items())


def _without_results(jobs: Sequence[Job]) -> list[Job]:
    """Drop jobs whose source is the result that an earlier run made of another source."""
    origins = {
        _absolute(job.target): job.source
        for job in jobs
        if _absolute(job.target) != _absolute(job.source)
    }
    return [
        job
        for job in jobs
        if (origin := origins.get(_absolute(job.source))) is None
        or not _is_result(job.source, origin)
    ]


def _is_result(path: Path, origin: Path) -> bool:
    """True if a picture has the size that another one has when it is upscaled."""
    size, low = _size_of(path), _size_of(origin)
    if size is None or low is None:
        return False
    return any(
        size == (scale * width, scale * height)
        for scale in _SCALES
        for width, height in (low, low[::-1])  # an orientation was applied
    )


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path, formats=PILLOW_READERS) as image:
            return image.size
    except Exception:  # noqa: BLE001  # what cannot be opened is reported where it is read
        return None


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # links stay as they are


def _refuse_clashes(jobs: Iterable[Job]) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        target = _absolute(job.target)
        if target in sources:
            raise InputError(
                f"{sources[target]} and {job.source} would both become {job.target}. "
                "Upscale them into different folders"
            )
        if job.target.exists() and job.target.samefile(job.source):
            raise InputError(f"{job.source} would overwrite itself. Choose another output")
        sources[target] = job.source


def split_done(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """Split into jobs to do and jobs whose result exists: results are whole or absent."""
    done = [job.target.exists() for job in jobs]
    return (
        list(itertools.compress(jobs, (not here for here in done))),
        list(itertools.compress(jobs, done)),
    )
