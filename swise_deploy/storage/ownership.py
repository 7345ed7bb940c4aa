"""Whether a file is the user's own: content that others may write is not trusted."""

import os
import stat
from pathlib import Path


def reason_not_own(path: Path) -> str:
    """Why others may have written a file or folder; "" where only its owner, the user, may.

    Root's files are trusted as well. Where the system has no owners, nothing is found.
    """
    if not hasattr(os, "geteuid"):
        return ""
    try:
        status = path.stat()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    if status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user (uid {status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by other users (mode {stat.filemode(status.st_mode)})"
    return ""
