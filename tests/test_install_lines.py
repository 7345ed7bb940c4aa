"""Every line of the docs that installs this project resolves it and its extras, as printed."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
LINE = re.compile(r"(?:^\s*|`|\$ )(pip install [^`#&\n]+)", re.M)
PARTS = ["bench", "engines", "export", "swise_deploy"]
FILES = ["LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"]


def requirements(line: str) -> list[str]:
    """The words of a line that name this project."""
    words = shlex.split(line)[2:]
    return [word for word in words if re.match(r"(\./.*)?swise[-_]deploy|\.(\[|$)", word)]


LINES = sorted(
    {
        line.strip()
        for page in PAGES
        for line in LINE.findall(page.read_text(encoding="utf-8"))
        if requirements(line)
    }
)


def run_pip(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run pip without an index and without building in an environment of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "--no-index", "--no-build-isolation"],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with its wheel in dist/ and, as on a device, beside it."""
    if int(metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools >= 77 in this environment to build the wheel")
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "results")
    for part in PARTS:
        shutil.copytree(REPOSITORY / part, folder / part, ignore=ignore)
    for file in FILES:
        shutil.copy(REPOSITORY / file, folder)
    done = run_pip("wheel", "--no-deps", "--wheel-dir", "dist", ".", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "absent from the `packages`" not in done.stdout + done.stderr
    for wheel in (folder / "dist").iterdir():
        shutil.copy(wheel, folder)
    return folder


def test_the_docs_have_lines_for_a_checkout_a_wheel_and_an_index() -> None:
    words = {word for line in LINES for word in requirements(line)}
    assert {".", ".[cpu]", ".[cpu,export]", "swise-deploy[cpu,export]"} <= words
    assert any(word.endswith(".whl[cpu,tensorrt]") for word in words)


@pytest.mark.parametrize("line", LINES)
def test_an_install_line_resolves(line: str, checkout: Path) -> None:
    """The index of the third form is the folder of the wheel."""
    arguments = ["--dry-run", "--no-deps", "--ignore-installed", "--find-links", "dist"]
    done = run_pip("install", *arguments, *requirements(line), cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert "Would install swise-deploy-" in done.stdout
    assert "does not provide the extra" not in done.stdout + done.stderr
