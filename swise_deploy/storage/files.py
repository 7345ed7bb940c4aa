"""Atomic writing of files: each is written beside its place, flushed and renamed."""

import contextlib
import errno
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

from swise_deploy.errors import NO_ROOM, InputError, OutputError, SwiseError
from swise_deploy.storage.caches import cache_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MAX_NAME_BYTES = 255
_MARK = "swise-"  # part of the names of temporary files, which distinguishes them from others
_LEFTOVER = re.compile(rf"\..*\.{_MARK}\w{{8}}(\.[^.]+)?", re.DOTALL)
_MAX_LINES_BYTES = 1 << 30
_JUST_MADE_S = 0.5  # longer than a run takes from making a temporary file to locking it


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` when the block succeeds.

    On an error or Ctrl-C the temporary file is removed and an older `path` does not change.

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
        temporary.chmod(usual)  # some libraries replace it by a file that only its owner may read
        temporary.replace(path)
    except Exception as error:
        reason = _reason(error, temporary)
        if reason is None:
            raise
        refuse_long_name(path, error)
        raise _not_written(path, reason) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        locks.close()


def refuse_unwritable_path(path: Path) -> None:
    """Refuse a path that cannot be written, before the work for it is done; nothing is created.

    What only writing shows, such as a full disk, is found then.

    Raises:
        OutputError: It is a folder or lies in none that is writable, or its name is too long.
    """
    refuse_long_name(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise _not_written(path, os.strerror(errno.EISDIR))
    if not folder.is_dir():
        raise _not_written(path, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _not_written(path, os.strerror(errno.EACCES))


def refuse_long_name(path: Path, error: Exception | None = None) -> None:
    """Refuse a name that no file system holds, which most questions about a path fail at.

    Raises:
        OutputError: It has more than 255 bytes; from `error`, where that is given.
    """
    size = len(os.fsencode(path.name))
    if size > MAX_NAME_BYTES:
        raise OutputError(
            f"cannot write {path}: its name has {size} bytes; expected at most {MAX_NAME_BYTES}. "
            "Choose a shorter name"
        ) from error


def _not_written(path: Path, reason: str) -> OutputError:
    return OutputError(f"cannot write {path}: {reason}. {_remedy(path)}")


def _remedy(path: Path) -> str:
    """The fix for a path that cannot be written; no option sets the user's cache."""
    wanted = "a folder that is writable and has room"
    is_cache = path.absolute().is_relative_to(cache_folder())
    return f"Set XDG_CACHE_HOME to {wanted}" if is_cache else f"Choose {wanted}"


def _reason(error: Exception, temporary: Path | None) -> str | None:
    """The reason why a file cannot be written; None for errors of another kind.

    Libraries raise their own errors. safetensors quotes the system's error number, as Rust does.
    torch does not name the reason; appending to the file shows whether the disk is full.
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
    """Yield a temporary folder beside `path`, for a result that is checked before it is published.

    Raises:
        OutputError: The folder cannot be created, or a file in it cannot be written; the message
            names the file as if it were beside `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _temporary_folder(path.parent, path.stem)
    except OSError as error:
        raise OutputError(
            f"cannot write to {path.parent}: {error.strerror or error}. {_remedy(path)}"
        ) from error
    with made as name, _marked_alive(Path(name)):
        try:
            yield Path(name)
        except OutputError as error:
            raise OutputError(str(error).replace(name, str(path.parent))) from error
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise _not_written(path, str(error.strerror)) from error


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder for files that other libraries read and write; it is removed at the end.

    It lies in the system's folder for temporary files. What killed runs left there is removed.

    Raises:
        OutputError: There is no folder for temporary files that can be written.
    """
    try:
        made = _temporary_folder(Path(tempfile.gettempdir()), "scratch")
    except OSError as error:
        raise OutputError(
            f"cannot write temporary files: {error.strerror or error}. Set TMPDIR to a folder that "
            "is writable and has room"
        ) from error
    with made as name, _marked_alive(Path(name)):
        yield Path(name)


def _temporary_folder(parent: Path, stem: str) -> "tempfile.TemporaryDirectory[str]":
    _sweep_once(parent)
    start = f".{fitting_stem(stem, len(_MARK) + 10)}.{_MARK}"
    # What cannot be removed now, the next run removes; the error that led here stays.
    return tempfile.TemporaryDirectory(prefix=start, dir=parent, ignore_cleanup_errors=True)


def _create_beside(path: Path) -> Path:
    """Create an empty file with the usual permissions.

    The files of tempfile are private, and the umask, from which the usual permissions follow,
    cannot be read without setting it, which would affect other threads.
    """
    # The suffix stays last: Pillow and others choose the format by it.
    ending = f".{_MARK}{secrets.token_hex(4)}{path.suffix}"
    temporary = path.with_name(f".{fitting_stem(path.stem, len(os.fsencode(ending)) + 1)}{ending}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
    return temporary


@contextlib.contextmanager
def _marked_alive(path: Path) -> Iterator[None]:
    """Lock a temporary file or folder; the system releases the lock when this process ends."""
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
    """Remove leftovers once in a process: a folder may get thousands of files."""
    remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove the user's own temporary files and folders of killed runs, which no process locks."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            if _LEFTOVER.fullmatch(entry.name) and not _is_alive(entry):
                with contextlib.suppress(OSError):  # one that cannot be removed keeps no others
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _is_alive(path: Path) -> bool:
    """True where a process uses a temporary file or folder, or has just created it, or may do so.

    Folders for temporary files are shared: what another user made there is not touched.
    """
    assert fcntl is not None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _JUST_MADE_S:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def fitting_stem(stem: str, num_bytes: int) -> str:
    """The longest start of a name that fits with `num_bytes` more.

    File systems allow names of up to 255 bytes, and a temporary name is longer than its file's.
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
    """Read a file with one JSON value per line; an absent file has none.

    Empty, damaged and incomplete lines, which a killed process leaves, are skipped.

    Raises:
        InputError: It cannot be read, or has more than 1 GiB.
    """
    values: list[Any] = []
    try:
        content = read_regular(path, max_bytes=_MAX_LINES_BYTES) if path.exists() else b""
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    for line in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            values.append(json.loads(line.decode("utf-8")))
    return values


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """Read a file that may come from anybody: neither a pipe or device nor a huge one.

    Raises:
        OSError: It cannot be read, is no regular file, or has more bytes; `strerror` says so.
    """
    size_bytes = size_of_regular(path)
    if size_bytes > max_bytes:
        message = f"it has {size_bytes:,} bytes; expected at most {max_bytes:,}"
        raise OSError(errno.EFBIG, message, str(path))
    return path.read_bytes()


def size_of_regular(path: Path) -> int:
    """The size of a file in bytes; a pipe or a device, which may never end, is refused.

    Raises:
        OSError: It cannot be read, or is no regular file; `strerror` says so.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device; expected a file", str(path))
    return status.st_size


def append_json_line(path: Path, value: object) -> None:
    """Append a JSON value to a file that `read_json_lines` reads.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            # The newline comes first, since a killed process may have left an incomplete line.
            file.write("\n" + json.dumps(value))
    except OSError as error:
        raise _not_written(path, str(error.strerror or error)) from error


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write a JSON document atomically; see `json_text`."""
    with writing(path) as temporary:
        temporary.write_text(json_text(document) + "\n", encoding="utf-8")


def json_text(document: object) -> str:
    """Format a document as JSON, with null for NaN and infinity, which JSON does not have."""
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
        size_of_regular(path)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}. Check the path and its permissions"
        ) from error
    return digest.hexdigest()
