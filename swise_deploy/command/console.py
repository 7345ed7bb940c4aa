"""Console behaviour of every command: exit codes, messages on stderr, suggestions for names."""

import argparse
import contextlib
import contextvars
import difflib
import errno
import json
import logging
import math
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from swise_deploy import __version__
from swise_deploy.command.launch import end_process
from swise_deploy.errors import NO_ROOM, InputError, SwiseError, first_line

if TYPE_CHECKING:
    from rich.console import Console

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_TERMINATED = 143  # 128 + SIGTERM
_MANY_NAMES = 20
_EXHAUSTED = re.compile(
    "cannot allocate memory|can't allocate memory|failed to map segment|bad_alloc"
    "|can't start new thread|too many open files",
    re.IGNORECASE,
)
"""Words of the system and of libraries where memory, threads or descriptors are used up."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, so that partial files are removed."""


def run_command(command: Callable[[], int]) -> int:
    """Run a command; report an error that the user can fix as one message and an exit code.

    Exit codes: 0 done, 1 failed, 2 usage, 3 a backend is missing, 4 the drift gate refused, 130
    Ctrl-C, 143 SIGTERM. Commands send no data anywhere: ONNX Runtime's telemetry is off unless the
    user's environment enables it.
    """
    if sys.stdout is None:  # closed by the shell: >&-
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is loaded
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        with _sigterm_as_interrupt(), _raising_interrupts():
            code = _with_onnxruntime(command)
            sys.stdout.flush()
            return code
    except SwiseError as error:
        logging.getLogger(__name__).debug("%s", traceback.format_exc())
        return report_error(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        return report_error("interrupted; no partial files were left", exit_code_of(stop))
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if isinstance(error, MemoryError):
            traceback.clear_frames(error.__traceback__)  # the message needs some of their memory
        message = _exhausted_resource(error) or _unwritten_stdout(error) or _refused_path(error)
        if message is None:
            raise
        return report_error(message, SwiseError.exit_code)


def _exhausted_resource(error: Exception) -> str | None:
    """The resource that is used up, with the fix; None where the error has another cause."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many open files: {error}. Raise the limit, which `ulimit -n` shows"
    if isinstance(error, MemoryError) or _EXHAUSTED.search(str(error)):
        advice = "Use a smaller picture, size or batch, or fewer threads"
        return f"not enough memory: {first_line(error)}. {advice}"
    return None


def _unwritten_stdout(error: Exception) -> str | None:
    """The reason why the result is not on stdout; None where the error has another cause."""
    if not isinstance(error, OSError) or error.filename is not None:
        return None
    if error.errno not in (*NO_ROOM, errno.EIO):
        return None
    sys.stdout = _nowhere()  # Python would flush it again at its end
    return f"cannot write the result to stdout: {error.strerror}"


def _refused_path(error: Exception) -> str | None:
    """A path that the system refuses to look at; None where the error has another cause."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM):
        return None
    path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    return f"cannot look at {path}: {error.strerror}. Check the path and its permissions"


def _with_onnxruntime(command: Callable[[], int]) -> int:
    """Run a command; an ONNX Runtime that does not import is an error that the user can fix."""
    try:
        return command()
    except ImportError as error:
        from swise_deploy.command.dependencies import onnxruntime_missing

        missing = onnxruntime_missing(error)
        if missing is None:
            raise
        raise missing from error


_json_errors = contextvars.ContextVar("json_errors", default=False)


def use_json_errors(wanted: bool) -> None:  # a setting, not a mode of the function
    """Choose whether errors are written to stdout as JSON, too: for commands run with --json."""
    _json_errors.set(wanted)


def report_error(message: str, exit_code: int) -> int:
    """Print an error, as JSON on stdout too where the command writes JSON; returns the code."""
    print_error(message)
    if _json_errors.get():
        with contextlib.suppress(OSError):
            sys.stdout.write(json.dumps({"error": message, "exit_code": exit_code}) + "\n")
            sys.stdout.flush()
    return exit_code


def exit_code_of(stop: KeyboardInterrupt) -> int:
    """Exit code of an interrupted command: 130 for Ctrl-C, 143 for SIGTERM."""
    return _TERMINATED if isinstance(stop, _Terminated) else _INTERRUPTED


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


@contextlib.contextmanager
def _raising_interrupts() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt where `launch` ends the process until then."""
    if signal.getsignal(signal.SIGINT) is not end_process:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, end_process)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may install signal handlers
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def printable(text: object) -> str:
    """A text with control characters, line ends and bytes that are not UTF-8 escaped.

    Names of files and tensors come from strangers, and a terminal obeys the codes in them.
    """
    known = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in known)


class _OneLine(logging.Formatter):
    """Log records as one printable line; the traceback of an exception stays below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return printable(super().formatMessage(record))


def print_error(message: str) -> None:
    """Print an error on stderr, as one line."""
    _write_to_stderr(f"error: {printable(message)}")


def progress(message: str) -> None:
    """Print a line of progress on stderr."""
    _write_to_stderr(printable(message))


def _write_to_stderr(line: str) -> None:
    """Write a line; a stderr that is closed or full stops no work."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
    except OSError:
        sys.stderr = _nowhere()  # Python would flush it again at its end, and exit with 120


def hanging(line: str, *, indent: int) -> list[str]:
    """A line of a listing, wrapped below its own text; whole where no terminal reads it."""
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return [line]
    return textwrap.wrap(
        line,
        shutil.get_terminal_size().columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def rich_console(**settings: Any) -> "Console":
    """A console for tables and progress; with NO_COLOR in the environment it writes plain text.

    Rich drops colours for NO_COLOR, and would keep bold and italic.
    """
    from rich.console import Console  # after --help

    if os.environ.get("NO_COLOR"):
        settings["color_system"] = None
    return Console(**settings)


def choose(value: str, choices: Iterable[str], *, what: str) -> str:
    """Return `value` if it is one of the choices.

    Raises:
        InputError: It is not; the message names the nearest match.
    """
    known = sorted(choices)
    if value in known:
        return value
    near = difflib.get_close_matches(value.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else ""
    names = "" if near and len(known) > _MANY_NAMES else f"Known: {', '.join(known)}"
    raise InputError(" ".join(filter(None, [f"unknown {what} {value!r}.", hint, names])))


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version` to a command."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


def at_least(minimum: int) -> Callable[[str], int]:
    """An argparse type: a whole number, at least `minimum`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number >= {minimum}")
        return int(text)

    return parse


def parse_threads(text: str) -> int:
    """An argparse type: a number of threads, limited by the number of processors."""
    maximum = max(64, 4 * (os.cpu_count() or 1))
    if not text.isdecimal() or not 1 <= int(text) <= maximum:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 to {maximum} threads")
    return int(text)


def finite(text: str) -> float:
    """An argparse type: a number that is neither NaN nor infinite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, such as 0.05")
    return value


def parse_size(text: str) -> tuple[int, int]:
    """An argparse type: "WIDTHxHEIGHT" as (width, height), both at least 1."""
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, such as 320x180")
    size = int(width), int(height)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: width and height must be at least 1")
    return size


def size_text(size: tuple[int, int]) -> str:
    """Format (width, height) as "WIDTHxHEIGHT"."""
    return f"{size[0]}x{size[1]}"
