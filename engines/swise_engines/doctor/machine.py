"""A computer's files and commands, and the reason where a value is unknown."""

import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

Value = str | int | float | bool
COMMAND_LIMIT_S = 5.0
FIRST_LINE_LIMIT_S = 1.0


class UnobservableError(Exception):
    """A value cannot be read on this machine; the message is the reason."""


class NotInstalledError(UnobservableError):
    """A value belongs to a package that is not installed; the message has its purpose."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One value of a machine, or the reason why it is unknown.

    Attributes:
        name: Its name, with its unit where it has one, as in "memory_mib".
        value: None where it is unknown.
        reason: Why it is unknown; None where it is known.
        is_absent: Whether it is unknown because a package is not installed.
    """

    name: str
    value: Value | None = None
    reason: str | None = None
    is_absent: bool = False

    def __post_init__(self) -> None:
        """Require a value or a reason, and never both."""
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"fact {self.name!r}: give a value or the reason why it is unknown")


def observe(name: str, look: Callable[[], Value]) -> Fact:
    """Read one value; keep the reason where it cannot be read."""
    try:
        return Fact(name, value=look())
    except UnobservableError as error:
        return Fact(name, reason=str(error), is_absent=isinstance(error, NotInstalledError))


@dataclass(frozen=True, slots=True)
class Machine:
    """A file-system root, and the folders of the commands that may be run.

    Attributes:
        root: "/" for the computer that this runs on; a copy of another one's files otherwise.
        command_path: Folders of commands, separated as in PATH.
    """

    root: Path
    command_path: str

    def read(self, path: str) -> str:
        """Text of a file, given as an absolute path on that machine.

        Raises:
            UnobservableError: It is absent or not readable.
        """
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError as error:
            raise UnobservableError(f"{path} does not exist") from error
        except OSError as error:
            raise UnobservableError(f"{path}: {error.strerror or error}") from error

    def find(self, pattern: str) -> list[str]:
        """Absolute paths on that machine that match a glob pattern, sorted."""
        found = self.root.glob(pattern.lstrip("/"))
        return sorted(f"/{path.relative_to(self.root).as_posix()}" for path in found)

    def output_of(self, *command: str) -> str:
        """Standard output of a command.

        Raises:
            UnobservableError: The command is absent, fails, or takes too long.
        """
        with self._program(command[0]) as program:
            try:
                done = subprocess.run(  # noqa: S603  # fixed commands, no user input
                    [program, *command[1:]],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=COMMAND_LIMIT_S,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise UnobservableError(
                    f"{command[0]} took longer than {COMMAND_LIMIT_S:.0f} s"
                ) from error
        if done.returncode != 0:
            text = " ".join((done.stderr or done.stdout).split()) or "no message"
            raise UnobservableError(f"{command[0]} failed with {done.returncode}: {text}")
        return done.stdout

    def first_line_of(self, *command: str) -> str:
        """First line of a command that does not end by itself, such as tegrastats; it is killed.

        Raises:
            UnobservableError: The command is absent, or prints nothing in time.
        """
        with (
            self._program(command[0]) as program,
            subprocess.Popen(  # noqa: S603  # fixed commands, no user input
                [program, *command[1:]],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
            ) as process,
        ):
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], FIRST_LINE_LIMIT_S)
            line = process.stdout.readline() if ready else ""
            process.kill()
        if not line:
            raise UnobservableError(f"{command[0]} printed nothing in {FIRST_LINE_LIMIT_S:.0f} s")
        return line

    @contextmanager
    def _program(self, name: str) -> Iterator[str]:
        """Path of a command; an error of the system while it starts becomes the reason."""
        program = which(name, path=self.command_path)
        if program is None:
            raise UnobservableError(f"{name} is not on the PATH")
        try:
            yield program
        except OSError as error:
            raise UnobservableError(f"{name}: {error.strerror or error}") from error
