"""Optional packages: imported when they are needed, named with the command that installs them."""

import importlib
from types import ModuleType

from swise_deploy.errors import BackendMissingError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted module name, e.g. "tensorrt_rtx".
        extra: The extra of swise-deploy that installs it.
        purpose: What it is needed for, as in "building an engine".

    Raises:
        BackendMissingError: The package is absent, or its shared libraries do not load.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise BackendMissingError(
            f"{purpose} needs the package {module!r}, which does not import here: {error}. "
            f"Install it with: pip install 'swise-deploy[{extra}]'"
        ) from error
