"""The processors of this machine."""

import os


def num_usable_cpus() -> int:
    """Logical processors that this process may use: fewer than there are where it was confined."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
