"""Options of the commands: one parser for all, and old spellings, which work with a warning."""

import argparse
import contextlib
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from swise_deploy.command.console import report_error, use_json_errors
from swise_deploy.precision import EXPORT_PRECISIONS, ExportPrecision

_UNKNOWN = re.compile(r"unrecognized arguments: (--[\w-]+)")
_EXAMPLES = re.compile(r"^examples:\n(?:[ ]+.*(?:\n|\Z))+", re.M)
_USAGE = 2


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Text wrapped to the terminal; what is indented keeps its lines while they fit.

    The usage names what is required; all options are listed below it, in groups.
    """

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        del groups
        actions = list(actions)
        required = [a for a in actions if not a.option_strings or a.required]
        text = super()._format_usage(usage, required, [], prefix).rstrip()
        if usage is not None or len(required) == len(actions):
            return f"{text}\n\n"
        indent = " " * (self._current_indent + len("usage: "))
        fits = len(text.splitlines()[-1]) + len(" [options]") <= self._width
        return f"{text} [options]\n\n" if fits else f"{text}\n{indent}[options]\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled: list[str] = []
        sentence: list[str] = []
        for line in [*text.splitlines(), ""]:
            is_plain = bool(line) and not line.startswith(" ")
            if not is_plain or line.startswith("exit codes:"):
                filled += textwrap.wrap(" ".join(sentence), width)
                sentence = []
            if is_plain:
                sentence.append(line)
            else:
                filled += _fitting_example(line, width)
        return "\n".join(indent + line for line in filled[:-1])


def _fitting_example(line: str, width: int) -> list[str]:
    """An example in its line; where that is too long, its explanation and its words below it."""
    if len(line) <= width:
        return [line]
    command, _, remark = line.strip().partition("   ")
    words = textwrap.wrap(
        command,
        width - len(" \\"),
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = [f"{part} \\" for part in words[:-1]] + words[-1:]
    about = textwrap.wrap(
        remark.strip(), width, initial_indent="      # ", subsequent_indent="      # "
    )
    return lines + about


class CommandParser(argparse.ArgumentParser):
    """The parser of every command.

    The help shows its examples before the options and fits the terminal, a misspelt option is
    answered with the nearest one, and with --json errors are written as JSON, too.
    """

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", _HelpFormatter)
        found = _EXAMPLES.search(settings.get("epilog") or "")
        if found is not None:
            settings["description"] = f"{settings['description']}\n\n{found[0].strip()}"
            settings["epilog"] = settings["epilog"].replace(found[0], "").strip()
        super().__init__(**settings)
        self._arguments: list[str] = []

    def parse_args(  # type: ignore[override]  # as argparse, whose overloads differ
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> argparse.Namespace:
        """Parse; first answer the shell where it asks for completions."""
        if "_ARGCOMPLETE" in os.environ:
            _complete(self)
        return super().parse_args(args, namespace)

    def parse_known_args(  # type: ignore[override]  # as argparse, whose overloads differ
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and remember whether errors are to be JSON."""
        self._arguments = list(sys.argv[1:] if args is None else args)
        use_json_errors("--json" in self._arguments and "--json" in self._option_string_actions)
        return super().parse_known_args(self._arguments, namespace)

    def error(self, message: str) -> NoReturn:
        """Report an error of usage, with the nearest option for a misspelt one."""
        unknown = self._unknown_options()
        if unknown and not _UNKNOWN.search(message) and "required" in message:
            message = f"unrecognized arguments: {unknown[0]}"  # what is missing may be its value
        found = _UNKNOWN.search(message)
        if found is not None:
            shown = [
                text
                for text, action in self._option_string_actions.items()
                if action.help != argparse.SUPPRESS
            ]
            near = difflib.get_close_matches(found[1], shown, n=1, cutoff=0.6)
            message += f". Did you mean {near[0]}?" if near else ""
        self.print_usage(sys.stderr)
        self.exit(report_error(f"{self.prog}: {message}", _USAGE))

    def _unknown_options(self) -> list[str]:
        """Long options of the command line that are neither known nor the beginning of one."""
        before = self._arguments[: [*self._arguments, "--"].index("--")]
        given = [text.partition("=")[0] for text in before if text.startswith("--")]
        known = list(self._option_string_actions)
        return [text for text in given if not any(option.startswith(text) for option in known)]


def _complete(parser: CommandParser) -> None:
    """Answer the shell's request for completions, where argcomplete is installed."""
    with contextlib.suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(parser)


OptionGroup = argparse.ArgumentParser | argparse._ArgumentGroup  # noqa: SLF001  # no public name


def add_old_spelling(group: OptionGroup, old: str, option: argparse.Action) -> None:
    """Accept an older spelling of an option, with a warning; --help does not list it.

    Args:
        group: Group or parser of `option`.
        old: The older spelling, such as "--lr".
        option: Result of `add_argument` for the new spelling.
    """
    new = option.option_strings[-1]

    class OldSpelling(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: str | Sequence[Any] | None,
            option_string: str | None = None,
        ) -> None:
            sys.stderr.write(f"warning: {option_string} is now {new}; use that\n")
            option(parser, namespace, values, new)

    group.add_argument(
        old,
        action=OldSpelling,
        dest=option.dest,
        nargs=option.nargs,
        type=option.type or str,
        choices=option.choices,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def add_precisions(group: OptionGroup, *, default: ExportPrecision) -> None:
    """Add --precision, and a flag for each precision that is short for it.

    Args:
        group: Receives them as a group of which at most one is given.
        default: The precision without any of them.
    """
    one = group.add_mutually_exclusive_group()
    flags = [f"--{name}" for name in EXPORT_PRECISIONS]
    one.add_argument(
        "--precision",
        choices=EXPORT_PRECISIONS,
        default=default,
        help=f"number format (default: {default}); {', '.join(flags[:-1])} and {flags[-1]} are "
        "short for it",
    )
    for name in EXPORT_PRECISIONS:
        one.add_argument(
            f"--{name}",
            dest="precision",
            action="store_const",
            const=name,
            default=default,
            help=_OF_PRECISION.get(name),
        )


_OF_PRECISION: Mapping[ExportPrecision, str] = {
    "bf16": "16 bits with the range of fp32, for SM 8.0 and later with TensorRT 10 or later",
    "int8": "as many layers in INT8 as --max-drift allows",
    "fp8": "as many layers in FP8 (E4M3) as --max-drift allows, for SM 8.9 and later",
}
