"""The harness itself: a small campaign in the usual run, the whole one with -m slow."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from swise_deploy.errors import InputError
from tests.hostile import fuzzing
from tests.hostile.__main__ import Campaign, report, run
from tests.hostile.tallies import Tally


def described(tallies: list[Tally]) -> str:
    return "\n".join(f"{f.case}\n{f.reason}" for tally in tallies for f in tally.failures)


def test_a_small_campaign_finds_nothing(tmp_path: Path) -> None:
    campaign = Campaign(
        files=30,
        kills=8,
        starts=0,
        limits=0,
        lanes=1,
        parsers=("PNG", "checkpoint .pth", "TIFF"),
        commands=("swise-upscale picture",),
    )
    results = run(campaign, tmp_path)
    assert not described(results.all())
    assert [tally.tried for tally in results.files] == [10, 10, 10]
    assert sum(tally.tried for tallies in results.kills.values() for tally in tallies) >= 6
    assert sum(tally.refused for tally in results.files) > 5
    text = report(campaign, results, 60.0)
    assert "| **all** | **30** |" in text
    assert "seed 1, 1 minutes" in text


@pytest.mark.parametrize(
    ("read", "limit_s", "end", "reason"),
    [
        (lambda: None, 1000, "read", None),
        (lambda: raising(InputError("x is damaged")), 1000, "refused", "x is damaged"),
        (lambda: raising(KeyError("x")), 1000, "failed", "KeyError"),
        (lambda: raising(MemoryError()), 1000, "failed", "MemoryError"),
        (lambda: np.ones(80 << 17).sum(), 1000, "failed", "MiB"),
        (lambda: sum(range(1_000_000)), 0, "failed", "s of processor time"),
    ],
)
def test_a_parser_that_fails_is_found(
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[], object],
    limit_s: float,
    end: str,
    reason: str | None,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(fuzzing, "LIMIT_MIB", 40)
    monkeypatch.setattr(fuzzing, "LIMIT_S", limit_s)
    found = fuzzing.judged(read)
    assert found["end"] == end
    assert reason is None or reason in str(found["reason"])


def raising(error: Exception) -> None:
    raise error


@pytest.mark.slow
def test_the_whole_campaign_finds_nothing(tmp_path: Path) -> None:
    results = run(Campaign(), tmp_path)
    assert not described(results.all())
    assert sum(tally.tried for tally in results.files) >= 10_000
    assert sum(tally.tried for tallies in results.kills.values() for tally in tallies) >= 400
