"""Commands run one after the other or side by side; each result is kept as soon as it exists."""

import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from swise_deploy.command.console import progress
from swise_deploy.storage.files import write_json, writing

ROOT = Path(__file__).resolve().parents[3]
ROOMS = (ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench")

# Of a step: it makes files, it uses them, or it times and wants the machine for itself.
MAKES, USES, TIMES = range(3)
NOT_STARTED, TIMED_OUT = 127, 124  # as a shell and timeout(1) have them
LEFT_OUT = 125  # not run: no time is left, or its result is not needed or cannot be made
LEAST_S = 2.0  # no step starts with less time left
GRACE_S = 3.0  # between SIGTERM and SIGKILL


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        name: Its name for the user, and that of its files.
        command: Program and arguments.
        subjects: Further arguments, FILE or FILE@RUNNER; those that no step made are left out.
        turn: MAKES, USES or TIMES: steps of one turn wait for all of the turn before.
        chain: Steps of one chain run one after the other, also where several run at a time.
        makes: The file it makes; it is removed where the step fails.
        needs: A file without which the step is left out; "" for none.
        unless: A file whose presence makes the step needless; "" for none.
        limit_s: Time limit; None takes that of the run.
    """

    name: str
    command: tuple[str, ...]
    subjects: tuple[str, ...] = ()
    turn: int = MAKES
    chain: str = ""
    makes: str = ""
    needs: str = ""
    unless: str = ""
    limit_s: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a step."""

    name: str
    exit_code: int
    seconds: float
    last_line: str

    @property
    def has_failed(self) -> bool:
        """True if it ran and did not succeed."""
        return self.exit_code not in (0, LEFT_OUT)


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a run.

    Attributes:
        step_s: Of each step that has none of its own.
        ends_at: time.monotonic() at which the last step is stopped; None for no end.
    """

    step_s: float
    ends_at: float | None = None

    def of(self, step: Step) -> float:
        """Seconds that a step gets if it starts now."""
        own = self.step_s if step.limit_s is None else step.limit_s
        return min(own, self.left_s)

    @property
    def left_s(self) -> float:
        """Seconds until the end of the run."""
        return math.inf if self.ends_at is None else self.ends_at - time.monotonic()


def run_steps(
    steps: Sequence[Step],
    folder: Path,
    environment: Mapping[str, object],
    *,
    timeout_s: float,
    jobs: int = 1,
    budget_s: float | None = None,
) -> list[Outcome]:
    """Run every step; its output and the outcomes so far are in the folder when it ends.

    Outcomes of other steps that lie in the folder from an earlier call stay there.

    Args:
        steps: In the order of their importance, within a turn.
        folder: Where results are kept.
        environment: Facts for the summary.
        timeout_s: Limit of each step that has none of its own.
        jobs: Steps at a time, of those that time nothing.
        budget_s: Limit of all steps together; None for none.
    """
    limits = Limits(timeout_s, None if budget_s is None else time.monotonic() + budget_s)
    known = {outcome.name: outcome for outcome in _earlier_outcomes(folder)}
    outcomes: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        outcomes.append(outcome)
        known.pop(outcome.name, None)
        known[outcome.name] = outcome
        progress(
            f"{len(outcomes)} of {len(steps)}: {outcome.name}, exit {outcome.exit_code}, "
            f"{outcome.seconds:.0f} s: {outcome.last_line}"
        )
        document = [dataclasses.asdict(outcome) for outcome in known.values()]
        write_json(folder / "steps.json", {"steps": document})
        total = len(steps) + len(known) - len(outcomes)
        with writing(folder / "summary.md") as temporary:
            text = _summary(environment, list(known.values()), total)
            temporary.write_text(text, encoding="utf-8")

    for turn in (MAKES, USES, TIMES):
        chains: dict[str, list[Step]] = {}
        for step in steps:
            if step.turn == turn:
                chains.setdefault(step.chain if turn != TIMES else "", []).append(step)
        for outcome in _run_chains(list(chains.values()), folder, limits, jobs):
            keep(outcome)
    return outcomes


def _earlier_outcomes(folder: Path) -> list[Outcome]:
    path = folder / "steps.json"
    if not path.is_file():
        return []
    return [Outcome(**step) for step in json.loads(path.read_text(encoding="utf-8"))["steps"]]


def _run_chains(
    chains: Sequence[Sequence[Step]], folder: Path, limits: Limits, jobs: int
) -> Iterator[Outcome]:
    """Outcomes as they come, from several chains at a time."""
    if jobs == 1:  # in the order in which they are written
        yield from (_run(step, folder, limits) for chain in chains for step in chain)
        return
    waiting = [iter(chain) for chain in chains]
    with ThreadPoolExecutor(jobs) as pool:

        def submit(chain: Iterator[Step]) -> None:
            step = next(chain, None)
            if step is not None:
                running[pool.submit(_run, step, folder, limits)] = chain

        running: dict[Future[Outcome], Iterator[Step]] = {}
        for chain in waiting:
            submit(chain)
        while running:
            future = next(as_completed(running))
            chain = running.pop(future)
            submit(chain)
            yield future.result()


def _run(step: Step, folder: Path, limits: Limits) -> Outcome:
    limit_s = limits.of(step)
    made = [subject for subject in step.subjects if _is_there(subject)]
    if reason := _reason_to_leave_out(step, made, limits.left_s):
        return Outcome(step.name, LEFT_OUT, 0.0, f"left out: {reason}")
    started = time.perf_counter()
    printed = folder / f"{step.name.replace(' ', '_')}.txt"
    with printed.open("w", encoding="utf-8") as sink:
        try:
            code = _run_command([*step.command, *made], sink.fileno(), limit_s)
        except OSError as error:
            code = NOT_STARTED
            print(f"did not start: {error}", file=sink)
        if code == TIMED_OUT:
            print(f"\nstopped after {limit_s:.0f} s", file=sink)
    if code and step.makes:  # such as an engine that does not load: it would fail every benchmark
        Path(step.makes).unlink(missing_ok=True)
    lines = printed.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    return Outcome(step.name, code, round(time.perf_counter() - started, 1), lines[-1][:200])


def _reason_to_leave_out(step: Step, made: Sequence[str], left_s: float) -> str:
    if step.unless and Path(step.unless).exists():
        return f"{Path(step.unless).name} is there"
    if step.needs and not Path(step.needs).exists():
        return f"{Path(step.needs).name} was not made"
    if step.subjects and not made:
        return "none of its subjects was made"
    if left_s < LEAST_S:
        return "no time is left"
    return ""


def _run_command(command: Sequence[str], output: int, limit_s: float) -> int:
    """Run a command in a session of its own, which ends with it: it may have started others."""
    path = os.pathsep.join([*map(str, ROOMS), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(  # noqa: S603  # the commands are built in these scripts
        command,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            _end_session(process)


def _end_session(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_S)


def _is_there(subject: str) -> bool:
    """True if a file was made; a network, such as swisenet:2, is always there."""
    path = Path(subject.partition("@")[0])
    return path.is_file() or not path.suffix


def _summary(environment: Mapping[str, object], outcomes: Sequence[Outcome], total: int) -> str:
    rows = [
        f"| {o.name} | {o.exit_code} | {o.seconds:.0f} | `{re.sub('[|`]', ' ', o.last_line)}` |"
        for o in outcomes
    ]
    left_out = ("host", "nvidia_smi")  # long; they are in environment.json
    facts = json.dumps({k: v for k, v in environment.items() if k not in left_out}, indent=2)
    failed = [outcome.name for outcome in outcomes if outcome.has_failed]
    num_run = sum(outcome.exit_code != LEFT_OUT for outcome in outcomes)
    state = f"{num_run} of {total} steps run, {len(failed)} failed"
    table = ["| step | exit | seconds | last line |", "| --- | --- | --- | --- |", *rows]
    title = [f"# GPU check\n\n{state}{': ' * bool(failed)}{', '.join(failed)}.", ""]
    return "\n".join([*title, *table, "", "```json", facts, "```", ""])
