"""Console scripts of the commands, which handle Ctrl-C from their first import on.

A command imports argparse, NumPy and more before it runs. Until then Ctrl-C would print a traceback
of some import; here it ends the process with the message and the exit code of every interrupt.
This module and those above it import next to nothing themselves. Before its first line Ctrl-C is
Python's own: no command can handle it while the interpreter starts.
"""

# `signal` without its enumerations, whose import takes milliseconds; no stubs.
import _signal as signal  # type: ignore[import-not-found]
import importlib
import os

MESSAGE = b"error: interrupted; no partial files were left\n"
EXIT_CODE = 130  # 128 + SIGINT, as shells report it


def end_process(number: int, frame: object) -> None:
    """End the process at once: nothing was started that has to be cleared away."""
    del number, frame
    os.write(2, MESSAGE)
    os._exit(EXIT_CODE)


MODULES = {
    "swise": "swise_bench.main",
    "swise-export": "swise_export.cli",
    "swise-bench": "swise_bench.cli",
    "swise-upscale": "swise_engines.upscaling.cli",
    "swise-train": "swise_export.training.cli",
    "swise-build": "swise_engines.building.cli",
    "swise-doctor": "swise_engines.doctor.cli",
}
"""Console script to the module whose `main` runs it."""


def _run(script: str) -> int:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_process)  # `run_command` handles it from there on
    code: int = importlib.import_module(MODULES[script]).main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the result is there; Python only ends
    return code


def swise() -> int:
    """Run `swise`."""
    return _run("swise")


def export() -> int:
    """Run `swise-export`."""
    return _run("swise-export")


def bench() -> int:
    """Run `swise-bench`."""
    return _run("swise-bench")


def upscale() -> int:
    """Run `swise-upscale`."""
    return _run("swise-upscale")


def train() -> int:
    """Run `swise-train`."""
    return _run("swise-train")


def build() -> int:
    """Run `swise-build`."""
    return _run("swise-build")


def doctor() -> int:
    """Run `swise-doctor`."""
    return _run("swise-doctor")
