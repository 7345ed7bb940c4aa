"""Old spellings of options, which work with a warning."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

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
