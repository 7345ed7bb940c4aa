"""A command in a forked process that signals itself at a chosen event, which no clock decides.

Events are audited operations on files, and calls and returns of the main thread's functions.
"""

import atexit
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

EventKind = Literal["file", "call"]

_FILE_EVENTS = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.utime"}
    | {"os.link", "os.symlink", "os.listdir", "os.scandir", "fcntl.flock", "subprocess.Popen"}
)


class Trigger:
    """Counts events; sends a signal to this process at the one with a number."""

    def __init__(self, kind: EventKind, number: int, signal_number: int, landed: int) -> None:
        self.kind, self.number, self.signal_number = kind, number, signal_number
        self.counts = {"file": 0, "call": 0}
        self._landed = landed
        self._is_done = False

    def install(self, *, count_calls: bool) -> None:
        """Start to count."""
        sys.addaudithook(self._on_audit)
        if count_calls:
            sys.setprofile(self._on_profile)

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_done:
            return
        is_writing = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if is_writing or event in _FILE_EVENTS or event.startswith(("shutil.", "tempfile.")):
            self._count("file")

    def _on_profile(self, frame: FrameType, event: str, argument: object) -> None:
        del frame, event, argument
        if not self._is_done:
            self._count("call")

    def _count(self, kind: EventKind) -> None:
        self.counts[kind] += 1
        if kind == self.kind and self.counts[kind] == self.number:
            self._is_done = True
            sys.setprofile(None)
            os.write(self._landed, str(time.process_time()).encode())
            faulthandler.cancel_dump_traceback_later()
            faulthandler.dump_traceback_later(PATIENCE_S, exit=True, file=HANGS)
            os.kill(os.getpid(), self.signal_number)


PATIENCE_S = 30.0
"""Seconds by the clock between a signal and the end, whatever other programs take."""

HANGS: Any = None  # the open file that gets the traceback of a hang


def run_script(
    script: str,
    arguments: Sequence[str],
    *,
    folder: str,
    answer: str,
    environment: dict[str, str],
    kind: EventKind = "file",
    number: int = 0,
    signal_number: int = 0,
    count_calls: bool = False,
    limits: dict[str, int] | None = None,
    limit_s: float = 120.0,
) -> int:
    """Run a console script in this process; gives its exit code.

    Args:
        script: Name of a function of `swise_deploy.command.launch`.
        arguments: Its arguments.
        folder: The working directory.
        answer: The file that gets the counts of events.
        environment: Added to this process's own.
        kind: Which events `number` counts.
        number: The event at which the signal is sent; 0 for none.
        signal_number: The signal.
        count_calls: Also count calls, which takes time.
        limits: Limits by name, such as RLIMIT_NOFILE; RLIMIT_AS is beyond what is used already.
        limit_s: Seconds after which the process counts as hanging.
    """
    global HANGS  # noqa: PLW0603  # faulthandler needs a file that stays open
    place = Path(answer).parent
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        opened = os.open(place / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    HANGS = (place / "hangs").open("wb")
    landed = os.open(place / "landed", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(folder)
    sys.argv = [script, *arguments]
    sys.path.insert(0, folder)
    trigger = Trigger(kind, number, signal_number, landed)

    def write_counts() -> None:
        Path(answer).write_text(json.dumps(trigger.counts), encoding="utf-8")

    if not number and not limits:
        atexit.register(write_counts)
    for limit, value in (limits or {}).items():
        amount = value + (_virtual_bytes() if limit == "RLIMIT_AS" else 0)
        resource.setrlimit(getattr(resource, limit), (amount, amount))
    faulthandler.dump_traceback_later(limit_s, exit=True, file=HANGS)
    from swise_deploy.command import launch

    run = getattr(launch, script)
    trigger.install(count_calls=count_calls or kind == "call")
    code: int = run()
    return code


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def is_interrupt(signal_number: int) -> bool:
    """True for the signal of Ctrl-C."""
    return signal_number == signal.SIGINT
