"""Every script of examples/ runs from start to end and prints its result."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
NEEDS = {
    "build_engine": ("tensorrt_rtx", r"swisenet_x2\.sm86\.engine: [\d,]+ bytes for SM 8\.6"),
    "compare_runtimes": (
        "torch",
        r"swisenet:2@torch takes [\d.]+ times as long as swisenet:2@deploy",
    ),
    "export_network": ("torch", r"swisenet_x2_fp16\.onnx: [+-]0\.00\d\d dB on 5 pictures"),
    "train_network": ("lightning_fabric", r"weights: [\d,]{5,} bytes"),
    "upscale_picture": ("torch", r"192x192 to 384x384 with \w"),
}


def test_every_example_is_known_and_described() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py")}
    assert scripts == set(NEEDS)
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in page for name in scripts)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    package, printed = NEEDS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_CACHE_HOME": str(tmp_path),
            "OMP_NUM_THREADS": "2",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert re.match(printed, lines[-1]), done.stdout
