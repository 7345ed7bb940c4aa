"""Fixtures that tests of every room share."""

import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Hear Ctrl-C: what a shell starts in the background ignores it, and so do its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with test sets and published weights; tests that want it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the test sets and published weights beside the checkout (../shared)")
    return folder


@pytest.fixture(autouse=True)
def _allocator_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run within the tests' own process do not change how it allocates memory."""
    monkeypatch.setattr("swise_deploy.training.cli.keep_freed_memory", lambda: False)
