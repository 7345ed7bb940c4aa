import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from swise_deploy.console import at_least, choose, finite, parse_threads, run_command

INTERRUPT_DURING_STAGING = """
import sys, time
from pathlib import Path
from swise_deploy.console import run_command
from swise_deploy.files import staging

def command():
    with staging(Path(sys.argv[1]) / "result.bin") as folder:
        (folder / "half").write_text("half a result")
        print("working", flush=True)
        time.sleep(30)
    return 0

sys.exit(run_command(command))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_stopped_command_leaves_nothing_behind_and_exits_as_shells_report_it(
    number, code, tmp_path
):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPT_DURING_STAGING, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == code
    assert stderr == "error: interrupted; nothing half-written was left behind\n"
    assert list(tmp_path.iterdir()) == []


def test_a_command_gives_the_signal_back_that_it_took():
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: 0) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_picture_too_large_for_the_memory_is_one_message(capsys):
    def command() -> int:
        raise MemoryError("Unable to allocate 27.9 GiB for an array with shape (100000, 100000, 3)")

    assert run_command(command) == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: not enough memory: Unable to allocate 27.9 GiB")


def test_a_command_runs_where_stdout_is_closed():
    code = (
        "import sys\n"
        "from swise_deploy.console import run_command\n"
        "sys.exit(run_command(lambda: sys.stdout.write('result') and 0))"
    )
    shell = f'{sys.executable} -c "{code}" >&-'
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = time.monotonic()
    done = subprocess.run(
        ["/bin/sh", "-c", shell], capture_output=True, text=True, env=env, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started < 20


def test_numbers_below_the_least_are_refused_with_it():
    assert at_least(1)("1") == 1
    for text in ("0", "-3", "1.5", "many", "²"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number >= 1"):
            at_least(1)(text)


def test_threads_that_would_drown_the_machine_are_refused():
    assert parse_threads("1") == 1
    assert parse_threads("64") == 64
    with pytest.raises(argparse.ArgumentTypeError, match=r"'100000': expected 1 to \d+ threads"):
        parse_threads("100000")


@pytest.mark.parametrize("text", ["nan", "inf", "half", ""])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number"):
        finite(text)
    assert finite("-0.5") == -0.5


def test_a_misspelt_name_among_many_is_answered_with_the_nearest_alone():
    many = [f"rtx-{number}" for number in range(4000, 4040)]
    with pytest.raises(Exception, match=r"Did you mean 'rtx-4039'\?$"):
        choose("rtx4039", many, what="target")
    with pytest.raises(Exception, match=r"Did you mean 'bench'\? Known: bench, build$"):
        choose("bensh", ["build", "bench"], what="command")
