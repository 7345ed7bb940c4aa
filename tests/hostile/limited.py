"""Commands under limits of memory, file size, descriptors and disk space.

Each of them is done, or ends with one error, without a traceback and without a torn result.
"""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.hostile.forks import Ended
from tests.hostile.kills import Workplace, tracebacks
from tests.hostile.tallies import Failure, Tally
from tests.hostile.workplace import Command, find_torn

LIMITS: dict[str, tuple[int, ...]] = {
    "RLIMIT_AS": tuple(size << 20 for size in (16, 64, 256, 1024)),
    "RLIMIT_FSIZE": (4000, 16_000, 50_000, 200_000),
    "RLIMIT_NOFILE": (8, 16, 24, 40),
}
"""Limits to values: bytes, or descriptors. RLIMIT_AS is beyond what a process has at its start, and
what a command writes on stderr fits into every RLIMIT_FSIZE."""

DISK_KIB = (0, 8, 64, 256)
"""Room on the disk of the results; 0 is the smallest that can be mounted, filled up."""


def run_limited(place: Workplace, limit: str, number: int, commands: Sequence[Command]) -> Tally:
    """Run every command at every value of a limit; `number` values at most."""
    tally = Tally(limit, 0)
    for command in commands:
        for value in LIMITS[limit][:number]:
            place.reset()
            ended = place.run(command, limits={limit: value})
            _count(tally, place, command, ended, f"{command.name}, {limit} {value:,}")
    return tally


def run_on_full_disks(place: Workplace, number: int, commands: Sequence[Command]) -> Tally:
    """Run every command with its results on a small tmpfs; skipped where none can be mounted."""
    tally = Tally("full disk", 0)
    for command in (c for c in commands if " out/" in c.arguments):
        for size_kib in DISK_KIB[:number]:
            place.reset()
            try:
                with _small_disk(place.folder / "out", size_kib):
                    ended = place.run(command)
                    _count(tally, place, command, ended, f"{command.name}, {size_kib} KiB")
            except PermissionError as error:
                tally.skipped = str(error)
                return tally
    return tally


@contextmanager
def _small_disk(folder: Path, size_kib: int) -> Iterator[None]:
    options = f"size={max(4, size_kib)}k"
    mount = ["mount", "-t", "tmpfs", "-o", options, "swise-hostile", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        if not size_kib:
            (folder / "filler").write_bytes(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607  # of the system


def _count(tally: Tally, place: Workplace, command: Command, ended: Ended, case: str) -> None:
    stderr = place.text("stderr")
    wrong = [f"torn: {text}" for text in find_torn(place.folder)]
    if tally.name == "RLIMIT_AS" and ended.code in (-signal.SIGABRT, -signal.SIGSEGV):
        tally.aborted += 1
        _add(tally, case, ended, wrong)
        return
    wrong += tracebacks(stderr)
    if place.text("hangs"):
        wrong.append(f"hangs: {place.text('hangs')[-2000:]}")
    errors = [line for line in stderr.splitlines() if line.startswith("error:")]
    if ended.code and ended.code not in (1, 2, 3, 4, 5):
        name = signal.Signals(-ended.code).name if ended.code < 0 else str(ended.code)
        wrong.append(f"ended with {name}: {stderr[-1000:]}")
    elif ended.code and not errors and command.script != "doctor":
        wrong.append(f"exit code {ended.code} without a line of error: {stderr[-1000:]}")
    _add(tally, case, ended, wrong)


def _add(tally: Tally, case: str, ended: Ended, wrong: list[str]) -> None:
    tally.tried += 1
    tally.refused += ended.code != 0
    if wrong:
        tally.failures.append(Failure(case, "\n".join(wrong)))
