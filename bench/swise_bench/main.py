"""The `swise` command: one name for every step, each imported only when it is called."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import cast

from swise_deploy import __version__
from swise_deploy.command.console import choose, run_command

COMMANDS: dict[str, tuple[str, str]] = {
    "export": ("swise_export.cli", "a checkpoint to a verified ONNX file"),
    "build": ("swise_engines.building.cli", "an ONNX file to a TensorRT engine"),
    "bench": ("swise_bench.cli", "cost and quality of models, measured"),
    "upscale": ("swise_engines.upscaling.cli", "pictures and videos, upscaled"),
    "train": ("swise_export.training.cli", "weights from photographs"),
    "info": ("swise_bench.verbs.info_cli", "the facts of an ONNX file, engine, checkpoint or plan"),
    "compare": ("swise_bench.verbs.compare_cli", "two files: pixels, quality, time"),
    "list": ("swise_bench.verbs.list_cli", "networks, shipped weights, targets, runtimes"),
    "deploy": ("swise_bench.verbs.deploy_cli", "checkpoint to measured engine in one command"),
    "cache": ("swise_deploy.storage.cli", "cached results, shown and cleared"),
    "doctor": ("swise_engines.doctor.cli", "abilities of this machine, and what it lacks"),
}
"""Subcommand to the module whose `main(argv)` runs it, and what it makes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; exit codes as `swise_deploy.errors` lists them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"swise-deploy {__version__}\n")
        return 0
    return run_command(lambda: _run(arguments[0], arguments[1:]))


def _run(name: str, arguments: Sequence[str]) -> int:
    module = importlib.import_module(COMMANDS[choose(name, COMMANDS, what="command")][0])
    return cast("Callable[[Sequence[str]], int]", module.main)(arguments)


def _help() -> str:
    lines = [f"  {name:<8} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: swise COMMAND [OPTIONS]",
            "",
            "A super-resolution checkpoint goes in; a verified, measured engine comes out.",
            "",
            *lines,
            "",
            "`swise COMMAND --help` explains a command; each is also a program: swise-export, ...",
            "",
        ]
    )
