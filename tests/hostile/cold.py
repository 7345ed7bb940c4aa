"""Commands started as a shell starts them, and interrupted at an audited event of their start.

Forked commands begin with everything imported. Here a fresh interpreter runs the lines of a console
script. Events before the first line of the script, in Python's own start, cannot be ours; they are
not among those that are counted.
"""

import json
import os
import random
import subprocess
import sys

from tests.hostile.forks import ROOT
from tests.hostile.kills import Workplace, tracebacks
from tests.hostile.tallies import Failure, Tally
from tests.hostile.workplace import Command, environment_of

# The lines of a console script, with a hook that counts the audited events after them.
_SCRIPT = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
out, number, counts = int(sys.argv[1]), int(sys.argv[2]), [0, 0]
def hook(event, arguments):
    counts[0] += 1
    if counts[0] == number:
        os.write(out, b"landed")
        os.kill(os.getpid(), signal.SIGINT)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and not counts[1]:
        before[0] = counts[0]
    else:
        counts[1] = 1
before = [0]
script = sys.argv[3]
sys.argv[:] = sys.argv[3:]
sys.addaudithook(hook)
from swise_deploy.command import launch
if number == 0:
    import atexit
    atexit.register(lambda: os.write(out, json.dumps([counts[0], before[0]]).encode()))
sys.exit(getattr(launch, script)())
"""


def run_cold(command: Command, number: int, place: Workplace) -> tuple[int, str, str]:
    """Start a command; send Ctrl-C at its event of that number. Gives code, stderr and the note."""
    place.reset()  # swise-train refuses the results of a run before
    folder = place.folder
    paths = [ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench", folder]
    words = [command.script, *command.arguments.split()]
    reading, writing = os.pipe()
    done = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(writing), str(number), *words],
        cwd=folder,
        env={
            **os.environ,
            **environment_of(folder),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(writing,),
        text=True,
    )
    os.close(writing)
    _, stderr = done.communicate(timeout=120)
    with os.fdopen(reading) as file:
        note = file.read()
    return done.returncode, stderr, note


def count_cold(command: Command, place: Workplace) -> tuple[int, int]:
    """The number of audited events of a whole run, and of those before Ctrl-C is handled."""
    code, stderr, note = run_cold(command, 0, place)
    if code:
        raise RuntimeError(f"{command.name} ended with {code}: {stderr}")
    total, before = json.loads(note)
    return total, before


def run_cold_interrupts(command: Command, number: int, seed: int, place: Workplace) -> Tally:
    """Interrupt a command `number` times between its first line and its end."""
    tally = Tally(f"{command.name}, started", seed)
    total, before = count_cold(command, place)
    rng = random.Random(f"{seed} {command.name}")  # noqa: S311  # no secret
    numbers = [before + 1, *(rng.randint(before + 1, total) for _ in range(number - 1))]
    for at in numbers:
        code, stderr, note = run_cold(command, at, place)
        if note != "landed":
            continue
        tally.tried += 1
        errors = [line for line in stderr.splitlines() if line.startswith("error:")]
        wrong = list(tracebacks(stderr))
        if code == 0 and not errors:
            pass  # the result was there; only Python ended
        elif code not in command.stopped_codes:
            wrong.append(f"exit code {code}: {stderr[-1500:]}")
        elif code == 130 and (len(errors) != 1 or "interrupted" not in errors[0]):
            wrong.append(f"expected one line of error, got {errors}")
        if wrong:
            tally.failures.append(Failure(f"{tally.name}: event {at}", "\n".join(wrong)))
    return tally
