"""The extra [tensorrt] on a Jetson: wheels alone, for the CUDA of its JetPack."""

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]
JETSON = {"platform_machine": "aarch64", "platform_system": "Linux", "sys_platform": "linux"}


def requirements_on_a_jetson(python: str) -> list[str]:
    """Base dependencies and extra [tensorrt], as pip on a Jetson chooses them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["tensorrt"]]
    found = []
    for requirement in map(Requirement, lines):
        marker, requirement.marker = requirement.marker, None
        if marker is None or marker.evaluate({**JETSON, "python_version": python}):
            found.append(str(requirement))
    return found


def test_a_jetson_takes_bindings_for_cuda_12_and_compiles_nothing():
    bindings = [r for r in requirements_on_a_jetson("3.10") if r.startswith(("cuda", "pycuda"))]
    (bounds,) = (Requirement(text).specifier for text in bindings)
    assert bounds.contains("12.6.2")
    assert bounds.contains("12.9.10")
    assert not bounds.contains("13.0.0")


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.10", "3.12"], ids=["JetPack 6", "JetPack 7"])
def test_every_package_has_a_wheel_for_a_jetson(python, tmp_path):
    """Ubuntu 22.04 and 24.04 have glibc 2.35 and 2.39."""
    platforms = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64")
    wanted = ["--implementation", "cp", "--python-version", python, "--only-binary", ":all:"]
    for platform in platforms:
        wanted += ["--platform", platform]
    install = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-input"]
    into = ["--ignore-installed", "--target", str(tmp_path)]
    done = subprocess.run(
        [*install, *into, *wanted, *requirements_on_a_jetson(python)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Temporary failure in name resolution" in done.stderr:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
