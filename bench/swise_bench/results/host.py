"""The machine that a measurement was made on: its parts, its settings, the load beside it."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swise_deploy.command.cpus import (
    num_usable_cpus,
    own_processor_seconds,
    processor_ticks,
)
from swise_deploy.command.dependencies import installed_version
from swise_export.runtimes.table import RUNTIMES

QUIET_SHARE = 0.05
"""Share of the processors that other programs may take before a measurement is disturbed."""

UNRELIABLE_SHARE = 0.4
"""Share of the processors from which on even ratios are unreliable.

Measured with SwiseNet x2 on two processors, eager torch against the deploy form: 1.36 times the
time with others at 25%, 1.50 on a quiet machine, but 6.4 to 7.5 with others at 80 to 87%. The ratio
of processor times does not help then (6.9 to 7.4): threads that wait for each other spin.
"""

Reliability = Literal["quiet", "disturbed", "unreliable", "unknown"]
"""Trust in times: all of them, ratios of one interleaved run only, none."""

# Packages that decide about speed and numbers; absent ones are left out.
PACKAGES = (
    "swise-deploy",
    "numpy",
    "onnx",
    "onnxruntime-gpu",
    *dict.fromkeys(package for runtime in RUNTIMES.values() for package in runtime.packages),
    "tensorrt",
    "tensorrt-rtx-cu13",
)


@dataclass(frozen=True, slots=True)
class Temperature:
    """One thermal sensor."""

    sensor: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Host:
    """Facts about a machine; an empty string or tuple where the machine does not report them.

    Attributes:
        device: Board or product name, e.g. that of a Jetson.
        cpu: Processor model.
        num_cpus: Logical processors that this process may use.
        cpu_flags: Instruction sets that matter for inference.
        clocks_mhz: Present, lowest and highest clock of each processor, where the kernel tells.
        governors: CPU frequency governors in use.
        power_mode: As `nvpmodel` names it, on a Jetson.
        jetson_clocks: Whether the GPU's lowest clock is set to its highest, on a Jetson.
        gpus: One line per NVIDIA card: name, driver, clocks, temperature, power limit.
        memory_gib: Installed memory.
        temperatures: Every thermal zone that can be read.
        system: Kernel and distribution.
        python: Version of Python.
        packages: Versions of the packages that decide about speed.
        environment: Variables that change the number of threads or their waiting.
    """

    device: str
    cpu: str
    num_cpus: int
    cpu_flags: tuple[str, ...]
    clocks_mhz: tuple[tuple[float, float, float], ...]
    governors: tuple[str, ...]
    power_mode: str
    jetson_clocks: bool | None
    gpus: tuple[str, ...]
    memory_gib: float
    temperatures: tuple[Temperature, ...]
    system: str
    python: str
    packages: Mapping[str, str]
    environment: Mapping[str, str]


def describe_host(root: Path = Path("/")) -> Host:
    """Collect the facts; `root` is where /proc and /sys are found."""
    cpuinfo = _text(root / "proc/cpuinfo")
    flags = set(_first(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo).split())
    memory_kib = int(_first(r"^MemTotal:\s*(\d+)", _text(root / "proc/meminfo")) or 0)
    distribution = _first(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release"))
    return Host(
        device=_text(root / "proc/device-tree/model").strip("\0 \n")
        or _text(root / "sys/class/dmi/id/product_name").strip(),
        cpu=_first(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo) or platform.machine(),
        num_cpus=num_usable_cpus(),
        cpu_flags=tuple(f for f in _INTERESTING_FLAGS if f in flags),
        clocks_mhz=_clocks(root),
        governors=tuple(sorted({p.read_text().strip() for p in root.glob(_CPUFREQ + "governor")})),
        power_mode=_first(r"NV Power Mode:\s*(.+)$", _output(["nvpmodel", "-q"])),
        jetson_clocks=_jetson_clocks(root),
        gpus=tuple(_output([*_NVIDIA_SMI]).splitlines()),
        memory_gib=round(memory_kib / 2**20, 2),
        temperatures=_temperatures(root),
        system=f"{platform.release()}, {distribution or platform.system()}",
        python=platform.python_version(),
        packages=_packages(),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


@dataclass(frozen=True, slots=True)
class Quietness:
    """Load beside a measurement.

    Attributes:
        other_share: Share of the usable processors that was spent outside this process and its
            children, or was stolen by the hypervisor; None where /proc/stat is absent.
        load_before: One-minute load average at the start.
        throttled: True where a processor's clock was cut for heat or power meanwhile; None if
            unknown.
    """

    other_share: float | None
    load_before: float
    throttled: bool | None

    @property
    def reliability(self) -> Reliability:
        """Trust in the times measured meanwhile."""
        if self.other_share is None:
            return "unknown"
        if self.other_share >= UNRELIABLE_SHARE:
            return "unreliable"
        return "disturbed" if self.other_share > QUIET_SHARE or self.throttled else "quiet"

    @property
    def warning(self) -> str:
        """A sentence for readers; empty if the machine was quiet."""
        if self.other_share is None:
            return "the load beside the measurement is unknown: no /proc/stat here"
        notes = []
        if self.reliability == "unreliable":
            notes.append(
                f"unreliable: other programs took {self.other_share:.0%} of the processors; times "
                f"and ratios are unreliable from {UNRELIABLE_SHARE:.0%} on. Measure again on a "
                "quieter machine"
            )
        elif self.other_share > QUIET_SHARE:
            notes.append(
                f"the machine was not quiet: other programs took {self.other_share:.0%} of the "
                "processors; compare ratios within this run, not absolute times"
            )
        if self.throttled:
            notes.append("the processor was throttled for heat or power meanwhile")
        return "; ".join(notes)


class QuietnessWatch:
    """Watches the machine from `start` to `finish`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self.start()

    def start(self) -> None:
        """Take the readings that `finish` compares with."""
        self._load = os.getloadavg()[0]
        self._busy, self._total = processor_ticks(self._root)
        self._own = own_processor_seconds()
        self._throttles = _throttle_count(self._root)

    def finish(self) -> Quietness:
        """The load since `start`."""
        busy, total = processor_ticks(self._root)
        throttles = _throttle_count(self._root)
        throttled = None if throttles is None else throttles > (self._throttles or 0)
        if total <= self._total:
            return Quietness(None, self._load, throttled)
        ticks_own = (own_processor_seconds() - self._own) * os.sysconf("SC_CLK_TCK")
        share = max(0.0, busy - self._busy - ticks_own) / (total - self._total)
        return Quietness(share, self._load, throttled)


_INTERESTING_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_CPUFREQ = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_"
_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
_NVIDIA_SMI = (
    "nvidia-smi",
    "--format=csv,noheader",
    "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,temperature.gpu,power.limit,pstate",
)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _output(command: Sequence[str]) -> str:
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603  # fixed commands, no shell
            [program, *command[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _clocks(root: Path) -> tuple[tuple[float, float, float], ...]:
    clocks = []
    for current in sorted(root.glob(_CPUFREQ + "cur_freq")):
        kinds = (current, *(current.with_name(f"scaling_{k}_freq") for k in ("min", "max")))
        now, low, high = (int(_text(path).strip() or 0) / 1000 for path in kinds)
        clocks.append((now, low, high))
    return tuple(clocks)


def _jetson_clocks(root: Path) -> bool | None:
    for folder in root.glob("sys/class/devfreq/*gpu*"):
        low, high = _text(folder / "min_freq").strip(), _text(folder / "max_freq").strip()
        return bool(low) and low == high
    return None


def _temperatures(root: Path) -> tuple[Temperature, ...]:
    found = []
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        value = _text(zone / "temp").strip()
        if value.lstrip("-").isdecimal():
            sensor = _text(zone / "type").strip() or zone.name
            found.append(Temperature(sensor, int(value) / 1000))
    return tuple(found)


def _packages() -> dict[str, str]:
    versions = ((name, installed_version(name)) for name in PACKAGES)
    return {name: version for name, version in versions if version}


def _throttle_count(root: Path) -> int | None:
    pattern = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
    counts = [int(_text(path).strip() or 0) for path in root.glob(pattern)]
    return sum(counts) if counts else None
