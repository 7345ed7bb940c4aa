import argparse
import errno
import io
import os
import shlex
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from swise_deploy.command import console
from swise_deploy.command.console import (
    at_least,
    choose,
    finite,
    hanging,
    parse_threads,
    rich_console,
    run_command,
)

INTERRUPT_DURING_STAGING = """
import sys, time
from pathlib import Path
from swise_deploy.command.console import run_command
from swise_deploy.storage.files import staging

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
def test_an_interrupted_command_leaves_no_files_and_exits_with_130_or_143(number, code, tmp_path):
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
    assert stderr.startswith("error: interrupted")
    assert stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_command_restores_the_signal_handler():
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: 0) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_memory_of_a_failed_command_is_free_for_its_message(monkeypatch):
    class Large:
        pass

    large = []

    def command() -> int:
        picture = Large()
        large.append(weakref.ref(picture))
        raise MemoryError("no more")

    held = []

    def report(_message: str, exit_code: int) -> int:
        held.append(large[0]())
        return exit_code

    monkeypatch.setattr(console, "report_error", report)
    assert run_command(command) == 1
    assert held == [None]


def test_a_picture_too_large_for_the_memory_is_one_message(capsys):
    def command() -> int:
        raise MemoryError("Unable to allocate 27.9 GiB for an array with shape (100000, 100000, 3)")

    assert run_command(command) == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: not enough memory: Unable to allocate 27.9 GiB")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("can't start new thread"), "error: not enough memory: can't start"),
        (ImportError("x.so: failed to map segment from shared object"), "error: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "error: not enough memory"),
        (OSError(errno.EMFILE, "Too many open files", "a.txt"), "error: too many open files"),
    ],
)
def test_what_the_system_has_no_more_of_is_one_message(error, message, capsys):
    def command() -> int:
        raise error

    assert run_command(command) == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith(message)
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["n" * 300, "loop"])
def test_a_path_that_the_system_refuses_is_named_in_one_line(name, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")

    def command() -> int:
        (tmp_path / name).stat()
        return 0

    assert run_command(command) == 1
    assert capsys.readouterr().err.startswith(f"error: cannot look at {tmp_path / name}: ")


def test_other_errors_are_bugs_and_stay_what_they_are():
    def command() -> int:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_command(command)


def _in_shell(code: str, redirection: str, **environment: str) -> subprocess.CompletedProcess[str]:
    rest = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    shell = f'{shlex.quote(sys.executable)} -c "$CODE" {redirection}'
    return subprocess.run(
        ["/bin/sh", "-c", shell],
        capture_output=True,
        text=True,
        env={**rest, "CODE": code},
        check=False,
        timeout=60,
    )


WRITING = """
import sys
import weakref
from swise_deploy.command.console import run_command
sys.exit(run_command(lambda: sys.stdout.write('result') and 0))
"""


def test_a_command_runs_where_stdout_is_closed():
    done = _in_shell(WRITING, ">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_stdout_is_one_message():
    done = _in_shell(WRITING, ">/dev/full")
    message = "error: cannot write the result to stdout: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


TELEMETRY = """
import sys
import weakref
from swise_deploy.command.console import run_command

def command():
    import onnxruntime, os
    print(os.environ["ORT_DISABLE_TELEMETRY"])
    return 0

sys.exit(run_command(command))
"""


@pytest.mark.parametrize(("asked", "kept"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_onnxruntime_s_telemetry_is_off_unless_the_user_enables_it(asked, kept, tmp_path):
    done = _in_shell(TELEMETRY, "", XDG_CACHE_HOME=str(tmp_path), **asked)
    assert (done.returncode, done.stdout) == (0, f"{kept}\n"), done.stderr
    if not asked:
        assert list(tmp_path.iterdir()) == []  # it keeps an identity of the device there


def test_numbers_below_the_minimum_are_refused():
    assert at_least(1)("1") == 1
    for text in ("0", "-3", "1.5", "many", "²"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number >= 1"):
            at_least(1)(text)


def test_too_many_threads_are_refused():
    assert parse_threads("1") == 1
    assert parse_threads("64") == 64
    with pytest.raises(argparse.ArgumentTypeError, match=r"'100000': expected 1 to \d+ threads"):
        parse_threads("100000")


@pytest.mark.parametrize("text", ["nan", "inf", "half", ""])
def test_text_that_is_not_a_number_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number"):
        finite(text)
    assert finite("-0.5") == -0.5


def test_for_a_misspelt_name_among_many_only_the_nearest_is_suggested():
    many = [f"rtx-{number}" for number in range(4000, 4040)]
    with pytest.raises(Exception, match=r"Did you mean 'rtx-4039'\?$"):
        choose("rtx4039", many, what="target")
    with pytest.raises(Exception, match=r"Did you mean 'bench'\? Known: bench, build$"):
        choose("bensh", ["build", "bench"], what="command")


FORGED = "\x1b[31mred\x1b[0m\nerror: all is well"


@pytest.mark.parametrize("how", ["error", "progress", "warning"])
def test_control_characters_of_a_message_are_not_printed(how):
    """A name from a file may hold colours, a title, or a line end that forges a message."""
    code = f"""
import logging, sys
from swise_deploy.command.console import progress, run_command
from swise_deploy.errors import InputError
def command():
    name = {FORGED!r}
    if {how!r} == "error":
        raise InputError(f"cannot read {{name}}")
    progress(f"reads {{name}}") if {how!r} == "progress" else logging.warning("left out: %s", name)
    return 0
sys.exit(run_command(command))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if how == "error" else 0)
    (line,) = done.stderr.splitlines()
    assert "\x1b" not in line
    assert line.endswith(r"\x1b[31mred\x1b[0m\nerror: all is well")


def test_no_color_is_plain_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[bold red]slow[/]"
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for value, is_plain in (("", False), ("1", True)):
        monkeypatch.setenv("NO_COLOR", value)
        file = io.StringIO()
        rich_console(file=file, force_terminal=True).print(text)
        assert ("\x1b" not in file.getvalue()) == is_plain


@pytest.mark.parametrize("columns", [60, 200])
def test_a_listing_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "  name     " + "value, " * 40
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = hanging(line, indent=11)
    assert max(map(len, lines)) <= columns
    assert all(one.startswith(" " * 11) for one in lines[1:])
    assert " ".join(" ".join(lines).split()) == " ".join(line.split())
    monkeypatch.delenv("COLUMNS")
    assert hanging(line, indent=11) == [line]
