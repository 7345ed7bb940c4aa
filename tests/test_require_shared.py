"""--require-shared turns a skipped check against the outside world into a failure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = """
import pytest

def test_of_a_file_that_is_absent(shared):
    if not (shared / "weights.bin").is_file():
        pytest.skip("needs weights.bin")

def test_of_something_else():
    pytest.skip("needs something else")
"""


@pytest.mark.parametrize("folder_exists", [True, False])
@pytest.mark.parametrize(
    ("flags", "num_skipped", "exit_code"), [([], 2, 0), (["--require-shared"], 1, 1)]
)
def test_a_skip_for_want_of_shared_data(
    tmp_path: Path, folder_exists: bool, flags: list[str], num_skipped: int, exit_code: int
) -> None:
    tests = tmp_path / "checkout" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(CONFTEST, tests)
    (tests / "test_it.py").write_text(TESTS, encoding="utf-8")
    if folder_exists:
        (tmp_path / "shared" / "data").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tests, *flags, "."],
        cwd=tests,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == exit_code, done.stdout
    assert f"{num_skipped} skipped" in done.stdout
