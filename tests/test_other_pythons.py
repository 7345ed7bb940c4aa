import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = [REPOSITORY / room for room in (".", "export", "engines", "bench")]

# Parses every file with the grammar of the Python that runs it, and writes nothing.
PARSE = """
import ast, pathlib, sys
files = [p for room in sys.argv[1:] for p in pathlib.Path(room).glob("swise_*/**/*.py")]
for path in files:
    ast.parse(path.read_text(encoding="utf-8"), str(path))
print(len(files))
"""


def find_python(version: str) -> str:
    """A Python of that version on the PATH or of pyenv; skips without one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
    for candidate in (shutil.which(f"python{version}"), *map(str, installed)):
        if (
            candidate
            and subprocess.run([candidate, "-V"], check=False, capture_output=True).returncode == 0
        ):
            return candidate
    pytest.skip(f"needs Python {version}, which is not on the PATH nor in pyenv")


def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python that has none of the dependencies, with the checkout to import from."""
    environment = {"PYTHONPATH": os.pathsep.join(map(str, ROOMS)), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [python, *arguments], check=False, capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_every_module_is_written_in_the_grammar_of(version):
    done = run(find_python(version), "-c", PARSE, *map(str, ROOMS))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
@pytest.mark.parametrize(
    "module",
    ["swise_engines.doctor.cli", "swise_engines.upscaling.cli", "swise_engines.building.cli"],
)
def test_a_command_explains_itself_before_anything_is_installed_on(version, module):
    done = run(find_python(version), "-c", f"from {module} import main; main(['--help'])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: swise-")
