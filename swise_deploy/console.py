"""What every command shares: exit codes, messages on stderr, suggestions for misspelt names."""

import argparse
import difflib
import logging
import sys
import traceback
from collections.abc import Callable, Iterable

from swise_deploy.errors import InputError, SwiseError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def run_command(command: Callable[[], int]) -> int:
    """Run a command; turn what the user can fix into one message and an exit code.

    Exit codes: 0 done, 1 failed, 2 usage, 3 a backend is missing, 4 the drift gate refused, 130
    Ctrl-C.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    try:
        return command()
    except SwiseError as error:
        print_error(str(error))
        logging.getLogger(__name__).debug("%s", traceback.format_exc())
        return error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted; nothing half-written was left behind")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def print_error(message: str) -> None:
    """One error on stderr."""
    sys.stderr.write(f"error: {message}\n")


def progress(message: str) -> None:
    """One line of progress on stderr."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def choose(value: str, choices: Iterable[str], *, what: str) -> str:
    """Return `value` if it is one of the choices.

    Raises:
        InputError: It is not; the message names the nearest match.
    """
    known = sorted(choices)
    if value in known:
        return value
    near = difflib.get_close_matches(value.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise InputError(f"unknown {what} {value!r}. {hint}Known: {', '.join(known)}")


def parse_size(text: str) -> tuple[int, int]:
    """Parse "WIDTHxHEIGHT" into (width, height), both >= 1; for use as an argparse type."""
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, such as 320x180")
    size = int(width), int(height)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: width and height must be at least 1")
    return size
