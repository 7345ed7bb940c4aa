"""Runtimes that work on this machine, and why others do not."""

import shutil

from swise_deploy.command.dependencies import install_command
from swise_deploy.errors import SwiseError
from swise_export.runtimes.table import RUNTIMES, is_installed, load_runtime


def unusable_reason(name: str) -> str:
    """Why a runtime cannot run here, with the command that installs it; "" where it can.

    Args:
        name: Key of the runtimes table.
    """
    runtime = RUNTIMES[name]
    if runtime.is_program:
        return "" if shutil.which(name) else f"no program {name} on the PATH"
    if not is_installed(runtime):
        return f"not installed: {install_command(runtime.extra)}"
    try:
        return load_runtime(name).unusable_reason()
    except SwiseError as error:
        return str(error)
