"""Fixtures that tests of every room share."""

import signal
from collections.abc import Generator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --require-shared, which .ci/run passes where the folder is there."""
    parser.addoption(
        "--require-shared",
        action="store_true",
        help="fail every test that uses the shared test sets or weights and is skipped",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where --require-shared forbids it."""
    report = yield
    uses_shared = "shared" in getattr(item, "fixturenames", ())
    if report.skipped and uses_shared and item.config.getoption("--require-shared"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped under --require-shared: {reason}"
    return report


def pytest_configure() -> None:
    """Hear Ctrl-C: what a shell starts in the background ignores it, and so do its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with test sets and published weights; tests that want it skip without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the test sets and published weights beside the checkout (../shared)")
    return SHARED


@pytest.fixture(autouse=True)
def _allocator_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run within the tests' own process do not change how it allocates memory."""
    monkeypatch.setattr("swise_deploy.training.cli.keep_freed_memory", lambda: False)
