import os

import pytest

from swise_deploy.command.cpus import num_usable_cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux confines processes so")
def test_a_confined_process_counts_its_own_processors() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert num_usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert num_usable_cpus() == len(before)


def test_without_affinity_all_processors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert num_usable_cpus() == 7
