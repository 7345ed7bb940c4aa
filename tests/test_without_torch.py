import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# What a device does not have: everything that pyproject.toml lists under an extra.
ABSENT = [
    "av",
    "cuda",
    "einops",
    "fvcore",
    "lightning_fabric",
    "matplotlib",
    "ncnn",
    "openvino",
    "polygraphy",
    "psutil",
    "pycuda",
    "pytorch_optimizer",
    "ray",
    "safetensors",
    "scipy",
    "skimage",
    "spandrel",
    "tensorboard",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
]

BLOCK = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""

# Rooms that run on the device; of the others, what those rooms import is imported with them.
IMPORT_ALL = """
import importlib, json, pkgutil, traceback
import swise_bench, swise_engines

TORCH = ("swise_bench.measuring.torch_counts",)
failed = {}
for package in (swise_engines, swise_bench):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name not in TORCH:
            try:
                importlib.import_module(found.name)
            except Exception:
                failed[found.name] = traceback.format_exc(limit=-2)
print(json.dumps(failed))
"""


def run_without(
    code: str, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_CACHE_HOME": str(cwd or Path.home() / ".cache"),
        },
    )


def test_the_blocker_blocks():
    done = run_without("import torch")
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr


def test_every_module_of_the_devices_rooms_imports_with_the_base_install_alone():
    done = run_without(IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


@pytest.mark.parametrize(
    "module",
    ["swise_export.runtimes.onnxruntime", "swise_export.manifest", "swise_deploy.pictures.files"],
)
def test_what_runs_onnx_files_imports_with_the_base_install_alone(module):
    done = run_without(f"import {module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module",
    ["swise_engines.doctor.cli", "swise_engines.upscaling.cli", "swise_bench.cli"],
)
def test_a_command_explains_itself_with_the_base_install_alone(module):
    done = run_without(f"import sys\nfrom {module} import main\nmain(['--help'])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("swise_export.cli", ["--fp16"]),
        ("swise_export.training.cli", ["--data", "pictures", "--out", "run"]),
        ("swise_engines.upscaling.cli", ["in.png", "-o", "out.png", "--model", "fsrcnn"]),
        ("swise_bench.cli", ["swisenet:2@torch"]),
    ],
)
def test_a_command_that_needs_torch_says_so_and_how_to_get_it(module, arguments, tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "in.png")
    code = f"import sys\nfrom {module} import main\nsys.exit(main(sys.argv[1:]))"
    done = run_without(code, *arguments, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert re.search(r"needs the package '(torch|lightning_fabric)'", done.stderr)
    assert re.search(r"pip install .*\[(export|train)\]", done.stderr)
    assert "Traceback" not in done.stderr


def test_the_doctor_examines_with_the_base_install_alone():
    done = run_without("from swise_engines.doctor.cli import main\nsys.exit(main(['--json']))")
    assert done.returncode == 0, done.stderr
    abilities = {item["name"]: item for item in json.loads(done.stdout)["abilities"]}
    assert abilities["upscale and benchmark ONNX files"]["works"]


RUN = "import sys\nfrom {} import main\nsys.exit(main(sys.argv[1:]))"


def test_the_base_install_upscales_a_photograph_at_every_scale(tmp_path):
    picture = Path(__file__).resolve().parents[1] / "swise_deploy" / "samples" / "dog.png"
    for scale in (2, 3, 4):
        arguments = [str(picture), "-o", f"x{scale}.png", "--scale", str(scale)]
        done = run_without(RUN.format("swise_engines.upscaling.cli"), *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / f"x{scale}.png") as sr:
            assert sr.size == (192 * scale, 192 * scale)


def test_the_base_install_benchmarks_what_ships(tmp_path):
    arguments = ["swisenet:2", "--lr", "16x12", "--runs", "3", "--seconds", "1", "--json"]
    done = run_without(RUN.format("swise_bench.cli"), *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [subject] = json.loads(done.stdout)["subjects"]
    assert subject["name"] == "swisenet:2"
