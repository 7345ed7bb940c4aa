"""Free memory of the machine and of the control group (container) of this process."""

import contextlib
from pathlib import Path

_NO_LIMIT = 1 << 60  # control groups of version 1 state a huge number where there is none


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without swapping; None where the system does not state them.

    Args:
        root: Folder with the mounts proc and sys.
    """
    found = [_available(root), *_group_room(root)]
    known = [value for value in found if value is not None]
    return max(min(known), 0) if known else None


def _available(root: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _group_room(root: Path) -> list[int | None]:
    """Free bytes of this process's control group and of each enclosing group."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rooms: list[int | None] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = ("memory.max", "memory.current")
        if "memory" in controllers.split(","):  # version 1
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif controllers:
            continue
        top = groups / "memory" if controllers else groups
        folder = top / path.lstrip("/")
        rooms += [_room(place, *names) for place in [folder, *folder.parents] if _is_in(place, top)]
    return rooms


def _is_in(place: Path, top: Path) -> bool:
    return place == top or top in place.parents


def _room(group: Path, limit_name: str, usage_name: str) -> int | None:
    try:
        limit = int((group / limit_name).read_text(encoding="utf-8"))
        usage = int((group / usage_name).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    if limit >= _NO_LIMIT:
        return None
    return limit - usage + _reclaimable(group)


def _reclaimable(group: Path) -> int:
    """File pages that the kernel drops when memory is short; they count as used."""
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0
