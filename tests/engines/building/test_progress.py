import os
import signal

import pytest

from swise_deploy.errors import BuildError
from swise_engines.building.progress import (
    BuildProgress,
    ending_on_ctrl_c,
    stopping_on_ctrl_c,
)


def test_the_share_follows_nested_phases_and_never_goes_back():
    seen = []
    progress = BuildProgress(lambda phase, share: seen.append((phase, share)))
    progress.start("build", None, 2)
    progress.start("parse", "build", 4)
    progress.step("parse", 0)
    progress.step("parse", 1)
    progress.finish("parse")
    progress.step("build", 0)
    progress.start("time", "build", 2)
    progress.step("time", 0)
    progress.finish("time")
    progress.finish("build")
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares == [0, 0, 0.125, 0.25, 0.5, 0.5, 0.75, 1.0]


def test_a_phase_that_was_never_started_does_no_harm(report):
    progress = BuildProgress(report)
    assert progress.step("unheard of", 3)
    progress.finish("unheard of")


def test_cancelling_stops_at_the_next_step(report):
    progress = BuildProgress(report)
    progress.start("build", None, 2)
    assert progress.step("build", 0)
    progress.cancel()
    assert not progress.step("build", 1)


def test_ctrl_c_cancels_then_interrupts_and_the_old_handler_is_back(report):
    before = signal.getsignal(signal.SIGINT)
    progress = BuildProgress(report)
    with pytest.raises(KeyboardInterrupt), stopping_on_ctrl_c(progress):
        os.kill(os.getpid(), signal.SIGINT)
    assert progress.cancelled
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_interrupts_also_where_the_build_fails_meanwhile(report):
    def fail():
        with stopping_on_ctrl_c(BuildProgress(report)):
            os.kill(os.getpid(), signal.SIGINT)
            raise BuildError("the builder gave up")

    with pytest.raises(KeyboardInterrupt):
        fail()


@pytest.mark.parametrize("has_steps", [False, True])
def test_ctrl_c_ends_a_build_that_reports_no_steps_at_once(has_steps):
    before = signal.getsignal(signal.SIGINT)
    with ending_on_ctrl_c(has_steps=has_steps):
        assert (signal.getsignal(signal.SIGINT) is signal.SIG_DFL) is not has_steps
    assert signal.getsignal(signal.SIGINT) is before
