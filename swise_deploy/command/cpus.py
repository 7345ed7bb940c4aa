"""The processors of this machine."""

import os


def num_usable_cpus() -> int:
    """Number of logical processors that this process may use, which may be fewer than all."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
