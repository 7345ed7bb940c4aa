"""Fixtures that tests of every room share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with test sets and published weights; tests that want it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the test sets and published weights beside the checkout (../shared)")
    return folder
