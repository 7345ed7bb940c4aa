import os
import subprocess
import sys

import pytest

from swise_bench.main import COMMANDS, main
from swise_deploy import __version__


def test_without_arguments_every_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_a_misspelt_command_is_a_usage_error_that_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bulid"]) == 2
    assert "Did you mean 'build'?" in capsys.readouterr().err


EXPLAIN_ALL = """
import sys
from swise_bench.main import COMMANDS, main

for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, name
slow = {"torch", "onnx", "onnxruntime", "openvino", "numpy", "PIL", "av", "rich"}
heavy = slow & set(sys.modules)
assert not heavy, heavy
"""


def test_every_command_explains_itself_before_it_loads_anything_heavy() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", EXPLAIN_ALL],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(COMMANDS)


def test_the_version_is_printed_where_nothing_is_installed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"swise-deploy {__version__}\n"
