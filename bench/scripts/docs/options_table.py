"""Prints the table of commands and options of docs/commands.md: one spelling for each meaning.

python bench/scripts/docs/options_table.py
"""

import argparse
import contextlib
import sys
from collections import defaultdict
from unittest import mock

from swise_bench.main import COMMANDS, main
from swise_deploy.command.console import run_command
from swise_deploy.command.options import CommandParser


def visible_options(command: str) -> dict[str, str]:
    """The options that a command's --help lists, by their long spelling, with the short one."""
    found: dict[str, str] = {}

    def keep(parser: CommandParser, *_: object) -> None:
        for action in parser._actions:  # noqa: SLF001  # argparse has no public list of them
            if action.help == argparse.SUPPRESS or not action.option_strings:
                continue
            long = [text for text in action.option_strings if text.startswith("--")]
            short = [text for text in action.option_strings if not text.startswith("--")]
            found[long[0]] = short[0] if short else ""

    with (
        mock.patch.object(CommandParser, "print_help", keep),
        contextlib.suppress(SystemExit),
    ):
        main([command, "--help"])
    return found


def table() -> str:
    """The table in Markdown, the options of most commands first."""
    options: defaultdict[str, list[str]] = defaultdict(list)
    shorts: dict[str, str] = {}
    for command in COMMANDS:
        for option, short in visible_options(command).items():
            options[option].append(command)
            shorts[option] = short or shorts.get(option, "")
    lines = ["| option | commands |", "|---|---|"]
    ordered = sorted(options.items(), key=lambda item: (-len(item[1]), item[0]))
    for option, commands in ordered:
        if option == "--help":
            continue
        short = f"`{shorts[option]}`, " if shorts[option] else ""
        lines.append(f"| {short}`{option}` | {', '.join(commands)} |")
    return "\n".join(lines) + "\n"


def _print() -> int:
    sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    sys.exit(run_command(_print))
