"""Commands killed, or interrupted as by Ctrl-C, at events that a seed chooses.

After each kill the results are absent or whole, the next run succeeds, and it leaves nothing that a
run which was never killed does not leave.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.hostile.forks import Ended, Forks
from tests.hostile.tallies import Failure, Tally
from tests.hostile.triggers import PATIENCE_S, EventKind
from tests.hostile.workplace import (
    Command,
    copy_inputs,
    environment_of,
    find_torn,
    names_in,
)

Blow = Literal["SIGKILL", "SIGINT"]

LIMIT_S = 5.0
"""Seconds of processor time between a signal and the end."""

_AGE_S = 60.0  # leftovers of a killed run are as old as those that a user meets
_UNSTABLE = re.compile(
    r"cache/swise-deploy/fastest.*|out/run/tensorboard/events.*|tmp/torchinductor.*"
)


@dataclass(frozen=True, slots=True)
class Counted:
    """A run that nobody kills: its events by kind, and what it leaves.

    Attributes:
        events: Of a run in a fresh folder.
        events_over_older: Of a run over the results of an earlier one; {} where that is refused.
        names: Of files and folders.
    """

    events: dict[EventKind, int]
    events_over_older: dict[EventKind, int]
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal at one event of a command."""

    command: Command
    blow: Blow
    kind: EventKind
    number: int
    is_over_older: bool = False

    def __str__(self) -> str:
        where = f"{self.kind} event {self.number}"
        older = " over older results" if self.is_over_older else ""
        return f"{self.command.name}: {self.blow} at {where}{older}"


class Workplace:
    """One lane: a folder with a copy of the inputs, and a preloaded process."""

    def __init__(self, inputs: Path, folder: Path, forks: Forks) -> None:
        self._inputs, self.place, self.forks = inputs, folder, forks
        self.folder = folder / "work"
        (folder / "matplotlib").mkdir(parents=True, exist_ok=True)

    def reset(self) -> None:
        """Start from the inputs again."""
        copy_inputs(self._inputs, self.folder)

    def run(self, command: Command, arguments: str = "", **more: object) -> Ended:
        """Run a command in the folder; stdout and stderr are files beside it."""
        (self.place / "answer").unlink(missing_ok=True)
        return self.forks.run(
            "tests.hostile.triggers:run_script",
            {
                "script": command.script,
                "arguments": (arguments or command.arguments).split(),
                "folder": str(self.folder),
                "answer": str(self.place / "answer"),
                "environment": environment_of(self.folder),
                **more,
            },
        )

    def text(self, name: str) -> str:
        """What the last run wrote to "stdout", "stderr", "landed" or "hangs"."""
        return (self.place / name).read_text(encoding="utf-8", errors="replace")

    def count(self, command: Command) -> Counted:
        """Run a command twice, as the next run after a kill does; gives its events."""
        self.reset()
        ended = self.run(command, count_calls=True)
        if ended.code:
            raise RuntimeError(f"{command.name} ended with {ended.code}: {self.text('stderr')}")
        again = self.run(command, count_calls=True)
        events: list[dict[EventKind, int]] = [
            {"file": run.answer["file"], "call": run.answer["call"]} for run in (ended, again)
        ]
        return Counted(events[0], {} if again.code else events[1], self._names())

    def _names(self) -> frozenset[str]:
        return frozenset(n for n in names_in(self.folder) if not _UNSTABLE.fullmatch(n))

    def strike(self, kill: Kill, counted: Counted) -> list[str] | None:
        """Kill a command at an event; gives what is wrong, or None where it ended before."""
        self.reset()
        if kill.is_over_older and self.run(kill.command).code:
            return [f"the run before it failed: {self.text('stderr')[-1500:]}"]
        number = int(getattr(signal, kill.blow))
        ended = self.run(kill.command, kind=kill.kind, number=kill.number, signal_number=number)
        if not self.text("landed"):
            return None
        wrong = list(self._judged_end(kill, ended))
        wrong += [f"torn: {text}" for text in find_torn(self.folder)]
        self._age()
        wrong += self._judged_next(kill.command)
        litter = sorted(self._names() - counted.names)
        wrong += [f"litter: {name}" for name in litter]
        return wrong

    def _judged_end(self, kill: Kill, ended: Ended) -> Iterator[str]:
        stderr = self.text("stderr")
        seconds = ended.processor_s - float(self.text("landed"))
        if seconds > LIMIT_S:
            yield f"hangs: works for {seconds:.1f} s after the signal"
        if self.text("hangs"):
            yield f"hangs for more than {PATIENCE_S:g} s: {self.text('hangs')[-2000:]}"
        yield from tracebacks(stderr)
        if kill.blow == "SIGKILL":
            if ended.code != -signal.SIGKILL:
                yield f"ended with {ended.code} instead of SIGKILL"
            return
        errors = [line for line in stderr.splitlines() if line.startswith("error:")]
        if ended.code == 0 and not errors:
            return  # the result was there; only Python ended
        if ended.code not in kill.command.stopped_codes:
            yield f"exit code {ended.code} after Ctrl-C: {stderr[-1500:]}"
        elif ended.code == 130 and (len(errors) != 1 or "interrupted" not in errors[0]):
            yield f"expected one line of error after Ctrl-C, got {errors}"

    def _judged_next(self, command: Command) -> Iterator[str]:
        ended = self.run(command)
        if ended.code == 2 and "--resume" in self.text("stderr"):
            ended = self.run(command, "--resume -o out/run")
        if ended.code:
            yield f"the next run ends with {ended.code}: {self.text('stderr')[-1500:]}"
        yield from tracebacks(self.text("stderr"))
        yield from (f"torn after the next run: {text}" for text in find_torn(self.folder))

    def _age(self) -> None:
        past = time.time() - _AGE_S
        for name in ("out", "cache", "tmp"):
            for path in (self.folder / name).rglob("*"):
                os.utime(path, (past, past), follow_symlinks=False)


def tracebacks(stderr: str) -> Iterator[str]:
    """Signs on stderr that Python or a library failed where nobody handled it."""
    for sign in ("Traceback", "Exception ignored", "terminate called", "Fatal Python error"):
        if sign in stderr:
            yield f"{sign} on stderr: {stderr[-3000:]}"
            return


def choose_kills(
    command: Command, counted: Counted, number: int, rng: random.Random
) -> Iterator[Kill]:
    """Draw kills: SIGKILL and SIGINT in turn, half at operations on files, half at any call.

    A quarter of them hits a run over the results of an earlier one.
    """
    for i in range(number):
        blow: Blow = "SIGKILL" if i % 2 == 0 else "SIGINT"
        is_over_older = i // 4 % 4 == 3 and bool(counted.events_over_older)
        events = counted.events_over_older if is_over_older else counted.events
        kind: EventKind = "file" if i // 2 % 2 == 0 and events["file"] else "call"
        yield Kill(command, blow, kind, rng.randint(1, events[kind]), is_over_older)


def run_kills(
    place: Workplace, command: Command, number: int, seed: int, failures: Path
) -> dict[Blow, Tally]:
    """Kill one command `number` times; gives the tallies of both signals."""
    counted = place.count(command)
    tallies: dict[Blow, Tally] = {
        "SIGKILL": Tally(command.name, seed),
        "SIGINT": Tally(command.name, seed),
    }
    rng = random.Random(f"{seed} {command.name}")  # noqa: S311  # no secret
    for kill in choose_kills(command, counted, number, rng):
        wrong = place.strike(kill, counted)
        if wrong and any(text.startswith("hangs") for text in wrong):
            wrong = place.strike(kill, counted)  # other programs may have taken the machine
        if wrong is None:
            continue
        tallies[kill.blow].tried += 1
        if wrong:
            tallies[kill.blow].failures.append(Failure(str(kill), "\n".join(wrong)))
            kept = failures / re.sub(r"\W+", "-", str(kill))
            shutil.copytree(place.place, kept, dirs_exist_ok=True, symlinks=True)
            (kept / "wrong.json").write_text(json.dumps(wrong, indent=2), encoding="utf-8")
    return tallies
