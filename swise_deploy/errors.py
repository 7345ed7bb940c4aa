"""Every error that a user can fix.

    SwiseError                  1  failed
    |-- InputError              2  what was given cannot be used: option, file, picture, checkpoint
    |-- BackendMissingError     3  a package or device that this step needs is not here
    |-- QualityGateError        4  the artefact lost more quality than was allowed
    |-- UndecidedError          5  a gate cannot decide: the measurement is not reliable enough
    |-- OutputError             1  a result could not be written
    |-- ExportError             1  a network could not be turned into ONNX
    `-- BuildError              1  an ONNX file could not be turned into an engine

The number is the exit code of the command line. A message says what happened, the actual value,
what was expected and how to fix it. Errors of other libraries are translated once, where they are
met.
"""


class SwiseError(Exception):
    """Something failed in a way that the user can fix."""

    exit_code = 1


class InputError(SwiseError):
    """What was given cannot be used: an option, a file, a picture, a checkpoint."""

    exit_code = 2


class BackendMissingError(SwiseError):
    """A package or device that this step needs is not here."""

    exit_code = 3


class QualityGateError(SwiseError):
    """The artefact lost more quality than was allowed; it was not kept."""

    exit_code = 4


class UndecidedError(SwiseError):
    """A gate cannot decide, since the measurement is not reliable enough."""

    exit_code = 5


class OutputError(SwiseError):
    """A result could not be written."""


class ExportError(SwiseError):
    """A network could not be turned into ONNX."""


class BuildError(SwiseError):
    """An ONNX file could not be turned into an engine."""


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
