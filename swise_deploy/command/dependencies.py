"""Optional packages: imported when they are needed, named with the command that installs them."""

import importlib
from importlib import metadata
from types import ModuleType

from swise_deploy.errors import BackendMissingError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted module name, e.g. "tensorrt_rtx"; a module of this project stands for what
            it imports.
        extra: The extra of swise-deploy that installs it.
        purpose: What it is needed for, as in "building an engine".

    Raises:
        BackendMissingError: The package is absent, or its shared libraries do not load.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise BackendMissingError(
            f"{purpose} needs the package {_culprit(module, error)!r}, which does not import here: "
            f"{error}. "
            f"Install it with: pip install 'swise-deploy[{extra}]'"
        ) from error


def _culprit(module: str, error: ImportError | OSError) -> str:
    absent = getattr(error, "name", None) or module
    return module if absent.partition(".")[0] == module.partition(".")[0] else absent


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, which is not imported; None where it is not here."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
