"""The C library's handling of memory that a training step frees."""

import ctypes
import os
import sys

# Of <malloc.h>, glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees, for the next step to use.

    By default glibc maps large blocks one by one and unmaps them when they are freed. A training
    step on a CPU allocates all its features anew, so that the system has to clear every page of
    them again at every step. Settings in the environment (MALLOC_*,
    GLIBC_TUNABLES) take precedence.

    Returns:
        Whether it does: False where the environment decides, or the C library is not glibc.
    """
    configured = (
        any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    )
    if sys.platform != "linux" or configured:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
