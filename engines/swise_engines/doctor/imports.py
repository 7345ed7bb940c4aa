"""Packages that import here, each probed in a process of its own, and Python's own settings."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import cast

from swise_engines.doctor.machine import Machine, NotInstalledError, UnobservableError
from swise_engines.doctor.probe import PROBES
from swise_engines.tensorrt.startup import environment_of_child
from swise_export.runtimes.table import optional_runtimes

PROBE_LIMIT_S = 60.0  # a first import from an SD card is slow

PURPOSES: Mapping[str, str] = {
    "tensorrt": "engines for Jetsons and servers",
    "tensorrt_rtx": "engines for RTX cards",
    "polygraphy": "building engines",
    "cuda_bindings": "CUDA, with its graphs",
    "pycuda": "CUDA without cuda-bindings",
    "onnxruntime": "ONNX files",
    **{package: runtime.purpose for package, runtime in optional_runtimes().items()},
    "av": "videos",
    "torch": "exporting and training",
    "spandrel": "checkpoints of other projects",
    "ray": "a folder on several machines",
}
"""Packages in the order of the report, and what each is for."""

# Distributions that install the same module, onnxruntime: the last one installed wins.
ONNX_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-training",
)


def absence_of(name: str) -> str:
    """The text for a package that is not installed."""
    return f"not installed; for {PURPOSES[name]}"


@dataclass(frozen=True, slots=True)
class Package:
    """The result of one probe: a version, or why the package does not load.

    Attributes:
        name: As in `PROBES`.
        version: None where it does not load.
        error: Text of the exception; None where it loads.
        details: What else the probe found, e.g. ONNX Runtime's providers.
    """

    name: str
    version: str | None
    error: str | None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """True if it loads."""
        return self.version is not None

    @property
    def is_absent(self) -> bool:
        """True if it is not installed, as opposed to installed and broken."""
        return self.error is not None and self.error.startswith("No module named")

    @property
    def start_error(self) -> str:
        """Reason why an installed TensorRT does not start; "" where it starts."""
        return str(self.details.get("start_error", ""))

    @property
    def reason(self) -> str:
        """Reason why it does not load, in a few words."""
        return "not installed" if self.is_absent else str(self.error)

    def require_version(self) -> str:
        """Its version.

        Raises:
            NotInstalledError: It is not installed; the message has its purpose.
            UnobservableError: It does not load.
        """
        if self.version is not None:
            return self.version
        if self.is_absent and self.name in PURPOSES:
            raise NotInstalledError(absence_of(self.name))
        raise UnobservableError(str(self.error))


@dataclass(frozen=True, slots=True)
class PythonInstallation:
    """The interpreter that this runs in.

    Attributes:
        version: E.g. (3, 10).
        prefix: Its folder; that of the virtual environment where there is one.
        is_virtual: Whether it is a virtual environment.
        sees_system: Whether packages that apt installed (dist-packages) are visible.
        pip: Command that installs into it.
    """

    version: tuple[int, int]
    prefix: Path
    is_virtual: bool
    sees_system: bool
    pip: str = "pip"


def describe_python() -> PythonInstallation:
    """The running interpreter; pyvenv.cfg states what a virtual environment may see."""
    prefix = Path(sys.prefix)
    is_virtual = sys.prefix != sys.base_prefix
    sees_system = sys.base_prefix == "/usr"
    if is_virtual and sees_system:
        text = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").lower()
        settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        wanted = {key.strip(): value.strip() for key, value in settings.items()}
        sees_system = wanted.get("include-system-site-packages") == "true"
    return PythonInstallation(sys.version_info[:2], prefix, is_virtual, sees_system, _own_pip())


def _own_pip() -> str:
    """`pip` where the shell finds that of this interpreter; else the interpreter is named."""
    found = which("pip")
    is_own = found is not None and Path(found).parent == Path(sys.executable).parent
    return "pip" if is_own else f"{shlex.quote(sys.executable)} -m pip"


def probe_packages() -> dict[str, Package]:
    """Probe every package of `PROBES` at the same time, each in its own process."""
    with ThreadPoolExecutor(max_workers=len(PROBES)) as pool:
        return dict(zip(PROBES, pool.map(probe_package, PROBES), strict=True))


def probe_package(name: str) -> Package:
    """Probe one package; a crash or a hang becomes its error."""
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, a name from PROBES
            [sys.executable, "-m", "swise_engines.doctor.probe", name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_LIMIT_S,
            env=environment_of_child(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Package(name, None, f"importing it takes longer than {PROBE_LIMIT_S:.0f} s")
    found: dict[str, object] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found.update(cast("dict[str, object]", json.loads(line)))
    error, version = found.pop("error", None), found.pop("version", None)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        crash = f"ended with {done.returncode}: {last[0]}"
        if version is None:
            return Package(name, None, f"importing it {crash}")
        found["start_error"] = f"starting it, after {found.get('last_step', 'import')}, {crash}"
    return Package(
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
