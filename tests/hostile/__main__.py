"""The whole campaign: `make test-hostile`, or `python -m tests.hostile`.

It prints a table of what was tried and what failed, and exits with 1 where anything failed. A file
that failed is made again by its parser and seed: `--parser PNG --seed 3 --files 100`.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from swise_deploy import __version__
from tests.hostile.cold import count_cold, run_cold_interrupts
from tests.hostile.forks import Forks
from tests.hostile.fuzzing import fuzz
from tests.hostile.kills import Workplace, run_kills
from tests.hostile.limited import LIMITS, run_limited, run_on_full_disks
from tests.hostile.parsers import PARSERS
from tests.hostile.samples import (
    needs_commands,
    write_samples,
    write_samples_by_commands,
)
from tests.hostile.tallies import Failure, Tally, table
from tests.hostile.workplace import COMMANDS, Command, make_inputs


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is tried.

    Attributes:
        files: Number of damaged files, over all parsers.
        kills: Number of kills of both kinds, over all commands.
        starts: Number of interrupts of each command that is started, not forked.
        limits: Number of values of each limit.
        seed: From which every choice follows.
        lanes: Processes at work at the same time.
        parsers: Names of the parsers; empty for all.
        commands: Names of the commands; empty for all.
    """

    files: int = 10_000
    kills: int = 440
    starts: int = 4
    limits: int = 4
    seed: int = 1
    lanes: int = 2
    parsers: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """The tallies of a campaign: damaged files, kills by signal, starts, limits."""

    files: tuple[Tally, ...]
    kills: dict[str, tuple[Tally, ...]]
    starts: tuple[Tally, ...]
    limits: tuple[Tally, ...]
    num_events_before: int

    def all(self) -> list[Tally]:
        """Every tally."""
        return [
            *self.files,
            *(t for ts in self.kills.values() for t in ts),
            *self.starts,
            *self.limits,
        ]


_START, _END = "<!-- figures -->\n", "<!-- end of figures -->"

Task = Callable[[Workplace], object]


def run(campaign: Campaign, folder: Path) -> Results:
    """Run a campaign in an empty folder."""
    make_inputs(folder / "inputs")
    commands = [c for c in COMMANDS if c.is_usable()]
    if campaign.commands:
        commands = [c for c in commands if c.name in campaign.commands]
    parsers = [p for p in PARSERS if not campaign.parsers or p.name in campaign.parsers]
    files: dict[str, Tally] = {}
    kills: dict[str, dict[str, Tally]] = {"SIGKILL": {}, "SIGINT": {}}
    starts: dict[str, Tally] = {}
    limits: dict[str, Tally] = {}
    events: list[int] = []
    failures = folder / "failures"

    def kill(command: Command) -> Task:
        shares = sum(c.share for c in commands)
        number = -(-campaign.kills * command.share // shares)
        return lambda place: _say(
            command.name,
            [
                kills[blow].setdefault(command.name, tally)
                for blow, tally in run_kills(
                    place, command, number, campaign.seed, failures
                ).items()
            ],
        )

    def start(command: Command) -> Task:
        def task(place: Workplace) -> None:
            events.append(count_cold(command, place)[1])
            tally = run_cold_interrupts(command, campaign.starts, campaign.seed, place)
            starts[command.name] = tally
            _say(command.name, [tally])

        return task

    def read(index: int) -> Task:
        def task(place: Workplace) -> None:
            parser = parsers[index]
            number = -(-campaign.files // len(parsers))
            try:
                tally = fuzz(
                    place.forks,
                    parser,
                    number,
                    campaign.seed,
                    samples=folder / "samples",
                    folder=place.place / "fuzz",
                )
            except RuntimeError as error:  # the other parsers' figures are kept
                tally = Tally(parser.name, campaign.seed)
                tally.failures.append(Failure(f"{parser.name}: the harness", str(error)))
            files[parser.name] = tally
            _say(parser.name, [tally])

        return task

    def limited(name: str) -> Task:
        def task(place: Workplace) -> None:
            chosen = run_limited(place, name, campaign.limits, commands)
            limits[name] = chosen
            _say(name, [chosen])

        return task

    def full(place: Workplace) -> None:
        limits["full disk"] = run_on_full_disks(place, campaign.limits, commands)
        _say("full disk", [limits["full disk"]])

    tasks: list[Task] = []
    if campaign.limits:
        tasks += [*(limited(name) for name in LIMITS), full]
    if campaign.kills:
        tasks += [kill(command) for command in commands]
    if campaign.starts:
        tasks += [start(command) for command in commands]
    if campaign.files:
        names = {parser.name for parser in parsers}
        write_samples(folder / "samples")
        if needs_commands(names):
            with Forks() as forks:
                place = Workplace(folder / "inputs", folder / "samples-lane", forks)
                write_samples_by_commands(place, folder / "samples")
        tasks += [read(index) for index in range(len(parsers))]
    _run_in_lanes(tasks, campaign.lanes, folder)
    order = [c.name for c in commands]
    return Results(
        tuple(files[p.name] for p in parsers if p.name in files),
        {blow: tuple(t[n] for n in order if n in t) for blow, t in kills.items()},
        tuple(starts[n] for n in order if n in starts),
        tuple(limits.values()),
        max(events, default=0),
    )


def _run_in_lanes(tasks: list[Task], lanes: int, folder: Path) -> None:
    waiting = iter(tasks)
    lock = threading.Lock()

    def work(lane: int) -> None:
        with Forks() as forks:
            place = Workplace(folder / "inputs", folder / f"lane{lane}", forks)
            while True:
                with lock:
                    task = next(waiting, None)
                if task is None:
                    return
                task(place)

    with ThreadPoolExecutor(lanes) as pool:
        for done in [pool.submit(work, lane) for lane in range(lanes)]:
            done.result()


def _say(name: str, tallies: list[Tally]) -> None:
    tried, failed = sum(t.tried for t in tallies), sum(len(t.failures) for t in tallies)
    sys.stderr.write(f"{name}: {tried} tried, {failed} failed\n")


def report(campaign: Campaign, results: Results, seconds: float) -> str:
    """The results as Markdown, with the date and the seed."""
    today = datetime.now(timezone.utc).date()
    made_on = f"{os.cpu_count()} processors, Python {platform.python_version()}"
    facts = f"version {__version__}, seed {campaign.seed}, {seconds / 60:.0f} minutes on {made_on}"
    lines = [f"{today}, {facts}.", ""]
    if results.files:
        lines += [*table("damaged files of", results.files), ""]
        slowest = max(results.files, key=lambda t: t.slowest_s)
        largest = max(results.files, key=lambda t: t.peak_mib)
        time_taken = f"{slowest.slowest_s:.2f} s ({slowest.name})"
        memory = f"{largest.peak_mib:.0f} MiB ({largest.name})"
        lines += [f"Longest time of one file: {time_taken}; most memory: {memory}.", ""]
    for blow, tallies in results.kills.items():
        if tallies:
            lines += [*table(f"{blow} of", tallies), ""]
    if results.starts:
        lines += [*table("Ctrl-C in a fresh process of", results.starts), ""]
        what = "Audited events between a command's first line and its handling of Ctrl-C"
        lines += [f"{what}: {results.num_events_before}.", ""]
    if results.limits:
        lines += [*table("runs of all commands under", results.limits), ""]
        aborted = sum(tally.aborted for tally in results.limits)
        lines += [f"Ended by a library's C++ code where memory ran out: {aborted}.", ""]
    return "\n".join(lines)


def main() -> int:
    """Run the campaign that the command line asks for."""
    default = Campaign()
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    for name in ("files", "kills", "starts", "limits", "seed", "lanes"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    for option, names in (
        ("--parser", [p.name for p in PARSERS]),
        ("--command", [c.name for c in COMMANDS]),
    ):
        parser.add_argument(option, action="append", default=[], choices=names, metavar="NAME")
    parser.add_argument("--report", type=Path, help="a page that gets the tables between its marks")
    parser.add_argument("--keep", type=Path, help="an empty folder; it is kept, with the failures")
    given = parser.parse_args()
    campaign = Campaign(
        given.files, given.kills, given.starts, given.limits, given.seed, given.lanes,
        tuple(given.parser), tuple(given.command),
    )  # fmt: skip
    folder = given.keep or Path(tempfile.mkdtemp(prefix="swise-hostile-"))
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        results = run(campaign, folder.resolve())
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    text = report(campaign, results, time.monotonic() - started)
    sys.stdout.write(text)
    if given.report is not None:
        page = given.report.read_text(encoding="utf-8")
        start, end = page.index(_START) + len(_START), page.index(_END)
        given.report.write_text(f"{page[:start]}\n{text}{page[end:]}", encoding="utf-8")
    failures = [failure for tally in results.all() for failure in tally.failures]
    for failure in failures:
        sys.stdout.write(f"\n{failure.case}\n{failure.reason}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
