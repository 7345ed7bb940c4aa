"""Commands without an ONNX Runtime, and with one that another package has broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = "import sys\nfrom {} import main\nsys.exit(main(sys.argv[1:]))"
ABSENT = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')\n"
# What is left where onnxruntime-gpu lay and `pip uninstall onnxruntime` took the files of both.
BROKEN = "from onnxruntime.capi import _pybind_state\n"


def run_with(
    runtime: str, module: str, *arguments: str, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run the main of a module where this text stands for the package onnxruntime."""
    package = cwd / "path" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(runtime)
    path = os.pathsep.join([str(package.parent), *(entry for entry in sys.path if entry)])
    return subprocess.run(
        [sys.executable, "-c", RUN.format(module), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("runtime", [ABSENT, BROKEN], ids=["absent", "broken"])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("swise_engines.upscaling.cli", ["in.png", "-o", "out.png"]),
        ("swise_bench.cli", ["swisenet:2"]),
        ("swise_engines.building.cli", ["swisenet:2", "--backend", "tensorrt_rtx"]),
        ("swise_engines.building.cli", ["swisenet:2", "--trtexec", "--target", "jetson-nano"]),
        ("swise_bench.main", ["compare", "swisenet:2", "swisenet:3"]),
    ],
)
def test_a_command_that_needs_it_ends_with_3_and_the_line_that_installs_one(
    runtime: str, module: str, arguments: list[str], tmp_path: Path
) -> None:
    sample = Path(__file__).resolve().parents[1] / "swise_deploy" / "samples" / "dog.png"
    (tmp_path / "in.png").write_bytes(sample.read_bytes())
    done = run_with(runtime, module, *arguments, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "pip install" in done.stderr
    assert "[cpu]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_the_error_is_json_too(tmp_path: Path) -> None:
    done = run_with(ABSENT, "swise_bench.cli", "swisenet:2", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["exit_code"] == 3


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("swise_engines.doctor.cli", ["--json"]),
        ("swise_bench.main", ["list", "targets"]),
        ("swise_bench.main", ["--version"]),
    ],
)
def test_a_command_that_does_not_need_it_works(
    module: str, arguments: list[str], tmp_path: Path
) -> None:
    done = run_with(ABSENT, module, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if "--json" in arguments:
        abilities = {item["name"]: item for item in json.loads(done.stdout)["abilities"]}
        ability = abilities["upscale and benchmark ONNX files"]
        assert not ability["works"]
        assert "[cpu]" in ability["fix"][0]
