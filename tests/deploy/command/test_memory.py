from pathlib import Path

import pytest

from swise_deploy.command.memory import free_memory_bytes

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB available."""
    write(tmp_path / "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    return tmp_path


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}")


def test_without_groups_the_machine_decides(root: Path) -> None:
    assert free_memory_bytes(root) == 8 * GIB


def test_nothing_stated_is_unknown(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path) is None


@pytest.mark.parametrize("group", ["/", "/a/b"])
def test_a_container_has_what_its_group_has_left(root: Path, group: str) -> None:
    write(root / "proc/self/cgroup", f"0::{group}\n")
    folder = root / "sys/fs/cgroup" / group.lstrip("/")
    write(folder / "memory.max", 4 * GIB)
    write(folder / "memory.current", 3 * GIB)
    write(folder / "memory.stat", f"anon 5\ninactive_file {GIB // 2}\n")
    assert free_memory_bytes(root) == 1.5 * GIB


def test_the_narrowest_group_around_decides(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/a/b\n")
    for name, limit in (("a/b", "max"), ("a", 2 * GIB)):
        write(root / "sys/fs/cgroup" / name / "memory.max", limit)
        write(root / "sys/fs/cgroup" / name / "memory.current", GIB)
    assert free_memory_bytes(root) == GIB


def test_groups_of_version_1(root: Path) -> None:
    write(root / "proc/self/cgroup", "3:cpu:/x\n5:memory:/x\n")
    write(root / "sys/fs/cgroup/memory/x/memory.limit_in_bytes", 3 * GIB)
    write(root / "sys/fs/cgroup/memory/x/memory.usage_in_bytes", GIB)
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", GIB)
    assert free_memory_bytes(root) == 2 * GIB
