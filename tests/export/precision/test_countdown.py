"""Progress of long loops, on a clock that advances on demand."""

import time

import pytest

from swise_export.precision.countdown import Countdown


def test_steps_that_took_no_time_do_not_enter_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    reported: list[str] = []
    countdown = Countdown("sensitivity", 20, "layers", report=reported.append)
    for _ in range(10):
        countdown.advance(took_time=False)
    for _ in range(4):
        now_s += 2.0
        countdown.advance()
    # The third timed step is the first after 5 s: 13 done, 6 s for 3 steps, 7 to go.
    assert reported == ["sensitivity: 13 of 20 layers, 14 s left"]
