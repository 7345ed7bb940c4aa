"""Console scripts: Ctrl-C at any import is one line and exit code 130."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swise_deploy.command import launch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]


def test_every_script_runs_the_main_of_its_module():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    scripts = tomllib.loads(text)["project"]["scripts"]
    assert scripts.keys() == launch.MODULES.keys()
    for script, entry in scripts.items():
        module, _, function = entry.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        assert f'_run("{script}")' in (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert callable(importlib.import_module(launch.MODULES[script]).main)


def test_next_to_nothing_is_imported_before_ctrl_c_is_handled():
    code = (
        "import os, sys; before = set(sys.modules); import swise_deploy.command.launch; "
        "print(*sorted(set(sys.modules) - before))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # -S: packages that a user installed may import the rest as the interpreter starts.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert set(done.stdout.split()) <= {
        "swise_deploy",
        "swise_deploy.public_names",
        "swise_deploy.command",
        "swise_deploy.command.launch",
        "importlib",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
        "warnings",
    }


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A console script that prints every import on stderr as it ends."""
    code = f"import sys; from swise_deploy.command.launch import {script}; sys.exit({script}())"
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_after_import(process: "subprocess.Popen[str]", module: str) -> tuple[int, list[str]]:
    """Press Ctrl-C once a module was imported; gives the exit code and the other lines."""
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.rstrip().endswith(f" {module}"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read().splitlines()
    return process.returncode, [line for line in rest if not line.startswith("import time:")]


@pytest.mark.parametrize("module", ["argparse", "difflib", "swise_deploy.command.console"])
@pytest.mark.parametrize("script", ["build", "doctor", "upscale", "bench", "export", "train"])
def test_ctrl_c_during_an_import_is_one_line_and_130(script, module):
    # The option that is not there ends a command that was not stopped with 2.
    code, lines = stop_after_import(start(script, "--no-such-option"), module)
    if code == 2:
        pytest.skip("the command was faster than the signal")
    assert code == 130
    (line,) = lines
    assert line.startswith("error: interrupted")


def test_ctrl_c_in_a_command_removes_its_files(tmp_path):
    code = """
import sys, time
from pathlib import Path
from swise_deploy.command import launch
from swise_deploy.command.console import run_command
from swise_deploy.storage.files import writing
def main():
    def command():
        with writing(Path(sys.argv[1])) as temporary:
            temporary.write_text("half")
            print("writing", flush=True)
            time.sleep(30)
        return 0
    return run_command(command)
sys.modules["slow_command"] = sys.modules[__name__]
launch.MODULES["swise-build"] = "slow_command"
sys.exit(launch.build())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out.txt")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.startswith("error: interrupted")
    assert list(tmp_path.iterdir()) == []
