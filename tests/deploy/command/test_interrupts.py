"""Ctrl-C and SIGTERM that wait for their moment."""

import signal
import threading

import pytest

from swise_deploy.command.interrupts import HeldInterrupts


class TerminatedError(KeyboardInterrupt):
    pass


@pytest.fixture(autouse=True)
def handlers():
    """Handlers as a command has them."""

    def terminate(_number, _frame):
        raise TerminatedError

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)],
)
def test_the_first_signal_waits_for_a_let_through_block(number, error):
    events = []
    with HeldInterrupts() as interrupts:
        signal.raise_signal(number)
        events.append("after the signal")
        with pytest.raises(error) as caught, interrupts.let_through():
            events.append("never")
    assert type(caught.value) is error
    assert events == ["after the signal"]


def test_a_signal_takes_effect_at_once_in_a_let_through_block():
    with HeldInterrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.let_through():
            signal.raise_signal(signal.SIGINT)
        with interrupts.let_through():
            pass  # it came once, not twice


def test_a_deferred_signal_takes_effect_on_leaving():
    held = HeldInterrupts()
    held.__enter__()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        held.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_deferred_signal_takes_effect_after_an_error():
    def fail():
        with HeldInterrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert isinstance(caught.value.__context__, ValueError)


@pytest.mark.parametrize("through", [False, True])
def test_the_second_signal_takes_effect_at_once(through):
    with HeldInterrupts() as interrupts:
        if through:
            with pytest.raises(KeyboardInterrupt), interrupts.let_through():
                signal.raise_signal(signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with interrupts.let_through():
            pass  # neither comes again


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with HeldInterrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        with interrupts.let_through():
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_installs_no_handlers():
    failures = []

    def run():
        try:
            with HeldInterrupts() as interrupts, interrupts.let_through():
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        except BaseException as error:  # noqa: BLE001  # reported below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []
