"""Which backends import here, each tried in a process of its own, and where JetPack hides them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import swise_engines
from swise_engines.doctor.machine import Machine, UnobservableError
from swise_engines.doctor.probe import PROBES

PROBE_LIMIT_S = 60.0  # a first import from an SD card takes its time


@dataclass(frozen=True, slots=True)
class Backend:
    """What one backend said: its version, or why it does not load.

    Attributes:
        name: As in `PROBES`.
        version: None where it does not load.
        error: The import's own words; None where it loads.
        details: What else the probe found, e.g. ONNX Runtime's providers.
    """

    name: str
    version: str | None
    error: str | None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether it loads."""
        return self.version is not None

    @property
    def is_absent(self) -> bool:
        """Whether it is simply not installed, and not there but broken or slow."""
        return self.error is not None and self.error.startswith("No module named")

    def require_version(self) -> str:
        """Its version.

        Raises:
            UnobservableError: It does not load.
        """
        if self.version is None:
            raise UnobservableError(str(self.error))
        return self.version


@dataclass(frozen=True, slots=True)
class PythonInstallation:
    """The interpreter that this runs in.

    Attributes:
        version: E.g. (3, 10).
        prefix: Its folder; of the virtual environment where there is one.
        is_virtual: Whether it is a virtual environment.
        sees_system: Whether packages that apt installed (dist-packages) are visible.
    """

    version: tuple[int, int]
    prefix: Path
    is_virtual: bool
    sees_system: bool


def describe_python() -> PythonInstallation:
    """The running interpreter; what a virtual environment may see is in its pyvenv.cfg."""
    prefix = Path(sys.prefix)
    is_virtual = sys.prefix != sys.base_prefix
    sees_system = sys.base_prefix == "/usr"
    if is_virtual and sees_system:
        text = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").lower()
        settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        wanted = {key.strip(): value.strip() for key, value in settings.items()}
        sees_system = wanted.get("include-system-site-packages") == "true"
    return PythonInstallation(sys.version_info[:2], prefix, is_virtual, sees_system)


def probe_backends() -> dict[str, Backend]:
    """Every backend of `PROBES`, tried at the same time, each in its own process."""
    with ThreadPoolExecutor(max_workers=len(PROBES)) as pool:
        return dict(zip(PROBES, pool.map(probe_backend, PROBES), strict=True))


def probe_backend(name: str) -> Backend:
    """Try one backend; a crash or a hang is its error."""
    package = str(Path(swise_engines.__file__).parents[1])
    paths = [package, os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, a name from PROBES
            [sys.executable, "-m", "swise_engines.doctor.probe", name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_LIMIT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Backend(name, None, f"importing it took longer than {PROBE_LIMIT_S:.0f} s")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return Backend(name, None, f"importing it ended with {done.returncode}: {last[0]}")
    found = cast("dict[str, object]", json.loads(done.stdout.splitlines()[-1]))
    error, version = found.pop("error", None), found.pop("version", None)
    return Backend(
        name,
        None if version is None else str(version),
        None if error is None else str(error),
        found,
    )


def find_hidden_tensorrt(machine: Machine) -> list[tuple[int, int]]:
    """Python versions whose system packages (apt, JetPack) contain `tensorrt`."""
    folders = machine.find("/usr/lib/python3*/dist-packages/tensorrt")
    versions = [Path(folder).parts[3].removeprefix("python").split(".") for folder in folders]
    return [(int(parts[0]), int(parts[1])) for parts in versions if len(parts) == 2]
