"""Files that are whole or absent: written beside their place, flushed, renamed."""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swise_deploy.errors import InputError, OutputError, SwiseError
from swise_deploy.storage.caches import cache_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAX_NAME_BYTES = 255
_MARK = "swise-"  # in the names of temporary files, so that no other file is taken for one
_LEFTOVER = re.compile(rf"\..*\.{_MARK}\w{{8}}(\.[^.]+)?", re.DOTALL)
_JUST_MADE_S = 0.5  # longer than a run takes from making a temporary file to locking it


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; it becomes `path` when the block ends well.

    On an error or Ctrl-C the temporary file is removed and an older `path` stays as it was.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    temporary: Path | None = None
    locks = contextlib.ExitStack()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_folder(path)
        _sweep_once(path.parent)
        temporary = _create_beside(path)
        locks.enter_context(_marked_alive(temporary))
        usual = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        _flush(temporary)
        temporary.chmod(usual)  # some libraries put a private file of their own in its place
        temporary.replace(path)
    except Exception as error:
        reason = _reason(error, temporary)
        if reason is None:
            raise
        if (size := len(os.fsencode(path.name))) > MAX_NAME_BYTES:
            raise OutputError(
                f"cannot write {path}: its name has {size} bytes; at most {MAX_NAME_BYTES} are "
                "possible. Choose a shorter name"
            ) from error
        raise _not_written(path, reason) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        locks.close()


def _not_written(path: Path, reason: str) -> OutputError:
    return OutputError(f"cannot write {path}: {reason}. {_remedy(path)}")


def _remedy(path: Path) -> str:
    """What to do where nothing can be written; no option names the user's cache."""
    wanted = "a folder that is writable and has room"
    is_cache = path.absolute().is_relative_to(cache_folder())
    return f"Set XDG_CACHE_HOME to {wanted}" if is_cache else f"Choose {wanted}"


def _reason(error: Exception, temporary: Path | None) -> str | None:
    """Why a file could not be written; None where an error is about something else.

    Libraries that write have errors of their own. safetensors quotes the system as Rust does; torch
    does not say what is wrong, but whether there is room for more at the end of the file does.
    """
    if isinstance(error, OSError):
        return str(error.strerror or error)
    if temporary is None or isinstance(error, SwiseError):
        return None
    if quoted := re.search(r"\(os error (\d+)\)", str(error)):
        return os.strerror(int(quoted.group(1)))
    try:
        with temporary.open("ab") as file:
            file.write(bytes(1 << 16))
    except OSError as full:
        return str(full.strerror or full)
    return None


@contextlib.contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, for a result that is checked before it is kept.

    Raises:
        OutputError: The folder cannot be made, or something in it cannot be written; the message
            names the files as they would be beside `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        start = f".{fitting_stem(path.stem, len(_MARK) + 10)}.{_MARK}"
        folder = tempfile.TemporaryDirectory(prefix=start, dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write to {path.parent}: {error.strerror or error}. {_remedy(path)}"
        ) from error
    with folder as name, _marked_alive(Path(name)):
        try:
            yield Path(name)
        except OutputError as error:
            raise OutputError(str(error).replace(name, str(path.parent))) from error


def _create_beside(path: Path) -> Path:
    """An empty file with the permissions that any new one gets.

    tempfile's are for their owner alone, and the umask that would widen them cannot be read without
    setting it, which other threads that write would see.
    """
    # The suffix stays last: Pillow and others choose the format by it.
    ending = f".{_MARK}{secrets.token_hex(4)}{path.suffix}"
    temporary = path.with_name(f".{fitting_stem(path.stem, len(os.fsencode(ending)) + 1)}{ending}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
    return temporary


@contextlib.contextmanager
def _marked_alive(path: Path) -> Iterator[None]:
    """Hold a lock on a temporary file or folder, which the system drops when this process ends."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@functools.cache
def _sweep_once(folder: Path) -> None:
    """Once in a process: a folder may get thousands of files."""
    remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left in a folder: temporary files and folders that no run locks."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            if _LEFTOVER.fullmatch(entry.name) and not _is_alive(entry):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _is_alive(path: Path) -> bool:
    """Whether a run works on a temporary file or folder, or has just made it."""
    assert fcntl is not None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        if time.time() - os.fstat(descriptor).st_mtime < _JUST_MADE_S:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def fitting_stem(stem: str, num_bytes: int) -> str:
    """The longest start of a name that leaves room for that many bytes more.

    File systems take names of up to 255 bytes, and a temporary name is longer than its file's.
    """
    room = MAX_NAME_BYTES - num_bytes
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_json_lines(path: Path) -> list[Any]:
    """The values of a file with one JSON value a line, which need not exist yet.

    Empty lines are left out, and a line that a kill cut short.
    """
    values: list[Any] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            values.append(json.loads(line))
    return values


def append_json_line(path: Path, value: object) -> None:
    """Append a JSON value to a file that `read_json_lines` reads.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            # The newline comes first: a run that was killed may have left half a line.
            file.write("\n" + json.dumps(value))
    except OSError as error:
        raise _not_written(path, str(error.strerror or error)) from error


def read_json(path: Path, *, what: str, advice: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What it is, for messages, such as "the manifest".
        advice: How to get a good one, for messages.

    Raises:
        InputError: It is missing, no JSON, or JSON of something else than an object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {what} {path}: {error}. {advice}") from error
    if not isinstance(document, dict):
        raise InputError(f"{what} {path} is no JSON object. {advice}")
    return document


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write a JSON document, whole or not at all; see `json_text`."""
    with writing(path) as temporary:
        temporary.write_text(json_text(document) + "\n", encoding="utf-8")


def json_text(document: object) -> str:
    """A document as JSON, with null for NaN and infinities, which JSON has not got."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()
