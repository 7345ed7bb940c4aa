"""Every error that a user can fix.

    SwiseError                  1  failed
    |-- InputError              2  an option, file, picture or checkpoint cannot be used
    |-- BackendMissingError     3  a required package or device is missing
    |-- QualityGateError        4  the artefact lost more quality than the budget allows
    |-- UndecidedError          5  a gate cannot decide: the measurement is not reliable enough
    |-- OutputError             1  a result cannot be written
    |-- ExportError             1  a network cannot be converted to ONNX
    `-- BuildError              1  an ONNX file cannot be converted to an engine

The number is the exit code of the command line. A message states what happened, the actual value,
the expected value and the fix. Errors of other libraries are translated once, where they are
caught.
"""

import errno

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the system's errors where a file cannot grow: a full disk, a quota, a limit."""


class SwiseError(Exception):
    """A failure that the user can fix."""

    exit_code = 1


class InputError(SwiseError):
    """An option, file, picture or checkpoint cannot be used."""

    exit_code = 2


class BackendMissingError(SwiseError):
    """A required package or device is missing."""

    exit_code = 3


class QualityGateError(SwiseError):
    """The artefact lost more quality than the budget allows; it was deleted."""

    exit_code = 4


class UndecidedError(SwiseError):
    """A gate cannot decide, since the measurement is not reliable enough."""

    exit_code = 5


class OutputError(SwiseError):
    """A result cannot be written."""


class ExportError(SwiseError):
    """A network cannot be converted to ONNX."""


class BuildError(SwiseError):
    """An ONNX file cannot be converted to an engine."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, or its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
