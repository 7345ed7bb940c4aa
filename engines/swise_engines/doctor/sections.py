"""The facts of each section of a report: machine, GPU, Jetson, Python."""

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from swise_deploy.command.dependencies import installed_version
from swise_deploy.storage.caches import cache_folder
from swise_engines.doctor import jetson, nvidia_smi
from swise_engines.doctor.imports import (
    ONNX_RUNTIMES,
    PURPOSES,
    Package,
    PythonInstallation,
    absence_of,
)
from swise_engines.doctor.machine import (
    Fact,
    Machine,
    NotInstalledError,
    UnobservableError,
    Value,
    observe,
)

Section = tuple[Fact, ...]
_T = TypeVar("_T")
_TEGRASTATS = ("tegrastats", "--interval", "100")


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: As the driver calls it.
        sm: Compute capability, e.g. "8.7".
        is_jetson: Whether it is part of a Jetson.
        target: Shipped target of this device where there is one.
    """

    name: str
    sm: str
    is_jetson: bool
    target: str | None


def describe_machine(machine: Machine) -> Section:
    """System, processor, memory, and the disk of the cache."""
    cache = cache_folder()
    return (
        Fact("system", f"{platform.system()} {platform.release()}"),
        Fact("processor", platform.machine()),
        observe("cores", lambda: os.cpu_count() or 1),
        observe("memory_mib", lambda: _read_memory(machine, "MemTotal")),
        observe("memory_available_mib", lambda: _read_memory(machine, "MemAvailable")),
        observe("swap_mib", lambda: _read_memory(machine, "SwapTotal")),
        Fact("cache", str(cache)),
        observe("cache_free_gib", lambda: _free_gib(cache)),
    )


def describe_gpu(machine: Machine, cuda: Package, gpu: Gpu | None, no_gpu: str) -> Section:
    """The first GPU, or the reason why there is none."""
    if gpu is None:
        return (Fact("name", reason=no_gpu), observe("cuda", cuda.require_version))
    row = _once(lambda: nvidia_smi.read_gpus(machine)[0])

    def from_smi(pick: Callable[[nvidia_smi.GpuReading], Value | None]) -> Value:
        return _present(pick(row()), "nvidia-smi does not report it for this GPU")

    return (
        Fact("name", gpu.name),
        Fact("compute_capability", gpu.sm),
        Fact("target", gpu.target)
        if gpu.target
        else Fact("target", reason=f"{gpu.name!r} is not among the shipped targets"),
        observe("cuda", cuda.require_version),
        observe("driver", lambda: from_smi(lambda row: row.driver)),
        observe("memory_mib", lambda: from_smi(lambda row: row.memory_mib)),
        observe("memory_used_mib", lambda: from_smi(lambda row: row.memory_used_mib)),
        observe("clock_mhz", lambda: from_smi(lambda row: row.sm_clock_mhz)),
        observe("clock_max_mhz", lambda: from_smi(lambda row: row.max_sm_clock_mhz)),
        observe("temperature_c", lambda: from_smi(lambda row: row.temperature_c)),
        observe("power_w", lambda: from_smi(lambda row: row.power_w)),
    )


def describe_jetson(machine: Machine) -> Section:
    """Module, releases, power mode, clocks, power and temperature of a Jetson."""

    def l4t() -> str:
        release = jetson.parse_l4t_release(machine.read("/etc/nv_tegra_release"))
        return ".".join(map(str, release))

    def mode() -> str:
        return jetson.parse_nvpmodel(machine.output_of("nvpmodel", "-q")).name

    def locked() -> bool:
        return jetson.read_gpu_clock(machine, "min") == jetson.read_gpu_clock(machine, "max")

    stats = _once(lambda: jetson.parse_tegrastats(machine.first_line_of(*_TEGRASTATS)))

    def from_stats(pick: Callable[[jetson.TegraStats], Value | None]) -> Value:
        return _present(pick(stats()), "tegrastats does not report it for this module")

    def watts(stats: jetson.TegraStats) -> float | None:
        return None if stats.total_mw is None else stats.total_mw / 1000

    def gpu_degrees(stats: jetson.TegraStats) -> float | None:
        return stats.temperatures_c.get("gpu", stats.temperatures_c.get("GPU"))

    return (
        observe("module", lambda: machine.read("/proc/device-tree/model").strip("\0\n")),
        observe("l4t", l4t),
        observe("jetpack", lambda: read_jetpack(machine)),
        observe("power_mode", mode),
        observe("gpu_clock_mhz", lambda: jetson.read_gpu_clock(machine, "cur")),
        observe("gpu_clock_max_mhz", lambda: jetson.read_gpu_clock(machine, "max")),
        observe("clocks_locked", locked),
        observe("module_power_w", lambda: from_stats(watts)),
        observe("gpu_temperature_c", lambda: from_stats(gpu_degrees)),
    )


def describe_packages(python: PythonInstallation, packages: Mapping[str, Package]) -> Section:
    """The interpreter and the version of each package."""
    kind = "virtual environment" if python.is_virtual else "installation"
    runtime = packages["onnxruntime"]

    def providers() -> str:
        runtime.require_version()
        names = cast("list[str]", runtime.details["providers"])
        return ", ".join(name.removesuffix("ExecutionProvider") for name in names)

    def version(name: str) -> Callable[[], Value]:
        return packages[name].require_version if name in packages else lambda: _installed(name)

    facts = []
    for name in PURPOSES:
        facts.append(observe(name, version(name)))
        if name == "tensorrt" and packages[name].works:
            start_error = packages[name].start_error
            facts.append(Fact("tensorrt_starts", f"no: {start_error}" if start_error else "yes"))
        if name == "onnxruntime":
            facts.append(observe("onnxruntime_providers", providers))
            facts.append(observe("onnxruntime_packages", _onnx_runtime_packages))
    return (
        Fact("python", f"{platform.python_version()}, {kind} {python.prefix}"),
        Fact("sees_system_packages", python.sees_system),
        *facts,
    )


def installed_onnx_runtimes() -> tuple[str, ...]:
    """Distributions of ONNX Runtime that are installed side by side."""
    return tuple(name for name in ONNX_RUNTIMES if installed_version(name) is not None)


def _onnx_runtime_packages() -> str:
    found = installed_onnx_runtimes()
    if not found:
        raise NotInstalledError(absence_of("onnxruntime"))
    return ", ".join(f"{name} {installed_version(name)}" for name in found)


def _installed(distribution: str) -> str:
    version = installed_version(distribution)
    if version is None:
        raise NotInstalledError(absence_of(distribution))
    return version


def _once(look: Callable[[], _T]) -> Callable[[], _T]:
    """Look once; return the value, or raise the same reason, at every call."""
    try:
        value = look()
    except UnobservableError as error:
        reason = str(error)

        def refuse() -> _T:
            raise UnobservableError(reason)

        return refuse
    return lambda: value


def _present(value: Value | None, reason: str) -> Value:
    if value is None:
        raise UnobservableError(reason)
    return value


def read_jetpack(machine: Machine) -> str:
    """JetPack release of a Jetson.

    Raises:
        UnobservableError: The release file is absent or not known.
    """
    release = jetson.parse_l4t_release(machine.read("/etc/nv_tegra_release"))
    return jetson.jetpack_of(release)


def _read_memory(machine: Machine, key: str) -> float:
    for line in machine.read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return round(int(rest.split()[0]) / 1024, 1)
    raise UnobservableError(f"/proc/meminfo has no {key}")


def _free_gib(folder: Path) -> float:
    present = next(path for path in (folder, *folder.parents) if path.exists())
    return round(shutil.disk_usage(present).free / 2**30, 1)
