"""Trust in files by their owner: content that other users may write is not trusted."""

import os
import stat
from pathlib import Path


def reason_not_own(path: Path) -> str:
    """The reason not to trust a file or folder; "" where only the user or root can write it.

    On systems without owners the result is "".
    """
    if not hasattr(os, "geteuid"):
        return ""
    try:
        status = path.stat()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    if status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user (uid {status.st_uid})"
    # A group of the user's own number has the user alone in it, by the convention of most systems.
    is_private_group = status.st_gid == status.st_uid
    others = stat.S_IWOTH if is_private_group else stat.S_IWGRP | stat.S_IWOTH
    if status.st_mode & others:
        return f"{path} can be written by other users (mode {stat.filemode(status.st_mode)})"
    return ""
