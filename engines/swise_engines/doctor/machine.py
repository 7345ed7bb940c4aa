"""Reading a computer: its files and its commands, and the reason where something is not known."""

import select
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import which

Value = str | int | float | bool
COMMAND_LIMIT_S = 5.0
FIRST_LINE_LIMIT_S = 1.0


class UnobservableError(Exception):
    """Something cannot be known on this machine; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing about a machine: its value, or why it is not known.

    Attributes:
        name: What it is, with its unit where it has one, as in "memory_mib".
        value: None where it is not known.
        reason: Why it is not known; None where it is.
    """

    name: str
    value: Value | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Hold either a value or a reason, never neither."""
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"fact {self.name!r}: give a value or the reason why it is unknown")


def observe(name: str, look: Callable[[], Value]) -> Fact:
    """Look at one thing and keep the reason where it cannot be seen."""
    try:
        return Fact(name, value=look())
    except UnobservableError as error:
        return Fact(name, reason=str(error))


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look: a file-system root and the folders of commands.

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

    def ask(self, *command: str) -> str:
        """Standard output of a command.

        Raises:
            UnobservableError: The command is absent, fails, or does not answer in time.
        """
        program = which(command[0], path=self.command_path)
        if program is None:
            raise UnobservableError(f"{command[0]} is not on the PATH")
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
                f"{command[0]} did not answer in {COMMAND_LIMIT_S:.0f} s"
            ) from error
        except OSError as error:
            raise UnobservableError(f"{command[0]}: {error.strerror or error}") from error
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split()) or "no message"
            raise UnobservableError(f"{command[0]} failed with {done.returncode}: {said}")
        return done.stdout

    def ask_first_line(self, *command: str) -> str:
        """First line of a command that does not end by itself, such as tegrastats; it is killed.

        Raises:
            UnobservableError: The command is absent or says nothing in time.
        """
        program = which(command[0], path=self.command_path)
        if program is None:
            raise UnobservableError(f"{command[0]} is not on the PATH")
        try:
            with (
                subprocess.Popen(  # noqa: S603  # fixed commands, no user input
                    [program, *command[1:]],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    stdin=subprocess.DEVNULL,
                    text=True,
                    errors="replace",
                ) as process
            ):
                assert process.stdout is not None
                ready, _, _ = select.select([process.stdout], [], [], FIRST_LINE_LIMIT_S)
                line = process.stdout.readline() if ready else ""
                process.kill()
        except OSError as error:
            raise UnobservableError(f"{command[0]}: {error.strerror or error}") from error
        if not line:
            raise UnobservableError(f"{command[0]} said nothing in {FIRST_LINE_LIMIT_S:.0f} s")
        return line
