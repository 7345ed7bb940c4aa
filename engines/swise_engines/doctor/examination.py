"""Everything that can be seen of a machine, each thing with its value or the reason why not."""

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
    Backend,
    PythonInstallation,
    describe_python,
    find_hidden_tensorrt,
    probe_backends,
)
from swise_engines.doctor.machine import Fact, Machine, UnobservableError, Value, observe
from swise_engines.targets.catalogue import target_of_gpu

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
        target: Shipped target of this very device where that is known.
    """

    name: str
    sm: str
    is_jetson: bool
    target: str | None


@dataclass(frozen=True, slots=True)
class Examination:
    """One look at a machine.

    Attributes:
        sections: Facts under a title, in the order of reading.
        gpu: None where no GPU can be used; `no_gpu` is the reason then.
        no_gpu: Why there is none; empty where there is one.
        jetpack: E.g. "6.2" on a Jetson; None elsewhere.
        python: The interpreter.
        backends: What imports and what does not, by the names of `probe.PROBES`.
        hidden_tensorrt: Python versions whose system packages contain TensorRT.
        modes: Power modes that the device has.
        free_memory_mib: None where not known.
    """

    sections: Mapping[str, Section]
    gpu: Gpu | None
    no_gpu: str
    jetpack: str | None
    python: PythonInstallation
    backends: Mapping[str, Backend]
    hidden_tensorrt: tuple[tuple[int, int], ...]
    modes: tuple[jetson.PowerMode, ...]
    free_memory_mib: float | None

    def fact(self, section: str, name: str) -> Fact:
        """One fact by its section and name."""
        return next(fact for fact in self.sections[section] if fact.name == name)


def this_machine() -> Machine:
    """The computer that this runs on."""
    return Machine(root=Path("/"), command_path=os.environ.get("PATH", os.defpath))


def examine(machine: Machine, backends: Mapping[str, Backend] | None = None) -> Examination:
    """Look at a machine; nothing is changed and no CUDA context is made.

    Args:
        machine: Whose files and commands to read.
        backends: What imports, where that is known already; tried otherwise.
    """
    found = probe_backends() if backends is None else backends
    python = describe_python()
    is_jetson = bool(machine.find("/etc/nv_tegra_release"))
    gpu, no_gpu = _find_gpu(machine, found["cuda"], is_jetson=is_jetson)
    sections = {
        "machine": _look_at_machine(machine),
        "gpu": _look_at_gpu(machine, found["cuda"], gpu, no_gpu),
        "python": _look_at_python(python, found),
    }
    if is_jetson:
        sections["jetson"] = _look_at_jetson(machine)
    memory = next(f for f in sections["machine"] if f.name == "memory_available_mib").value
    jetpack = observe("jetpack", lambda: _read_jetpack(machine)).value if is_jetson else None
    return Examination(
        sections=sections,
        gpu=gpu,
        no_gpu=no_gpu,
        jetpack=str(jetpack) if jetpack else None,
        python=python,
        backends=found,
        hidden_tensorrt=tuple(find_hidden_tensorrt(machine)),
        modes=tuple(_read_modes(machine)) if is_jetson else (),
        free_memory_mib=memory if isinstance(memory, float) else None,
    )


def _look_at_machine(machine: Machine) -> Section:
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


def _look_at_gpu(machine: Machine, cuda: Backend, gpu: Gpu | None, no_gpu: str) -> Section:
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


def _look_at_jetson(machine: Machine) -> Section:
    def l4t() -> str:
        release = jetson.parse_l4t_release(machine.read("/etc/nv_tegra_release"))
        return ".".join(map(str, release))

    def mode() -> str:
        return jetson.parse_nvpmodel(machine.ask("nvpmodel", "-q")).name

    def locked() -> bool:
        return jetson.read_gpu_clock(machine, "min") == jetson.read_gpu_clock(machine, "max")

    stats = _once(lambda: jetson.parse_tegrastats(machine.ask_first_line(*_TEGRASTATS)))

    def from_stats(pick: Callable[[jetson.TegraStats], Value | None]) -> Value:
        return _present(pick(stats()), "tegrastats does not report it for this module")

    def watts(stats: jetson.TegraStats) -> float | None:
        return None if stats.total_mw is None else stats.total_mw / 1000

    def gpu_degrees(stats: jetson.TegraStats) -> float | None:
        return stats.temperatures_c.get("gpu", stats.temperatures_c.get("GPU"))

    return (
        observe("module", lambda: machine.read("/proc/device-tree/model").strip("\0\n")),
        observe("l4t", l4t),
        observe("jetpack", lambda: _read_jetpack(machine)),
        observe("power_mode", mode),
        observe("gpu_clock_mhz", lambda: jetson.read_gpu_clock(machine, "cur")),
        observe("gpu_clock_max_mhz", lambda: jetson.read_gpu_clock(machine, "max")),
        observe("clocks_locked", locked),
        observe("module_power_w", lambda: from_stats(watts)),
        observe("gpu_temperature_c", lambda: from_stats(gpu_degrees)),
    )


def _look_at_python(python: PythonInstallation, backends: Mapping[str, Backend]) -> Section:
    kind = "virtual environment" if python.is_virtual else "installation"
    runtime = backends["onnxruntime"]

    def providers() -> str:
        runtime.require_version()
        names = cast("list[str]", runtime.details["providers"])
        return ", ".join(name.removesuffix("ExecutionProvider") for name in names)

    packages = ("tensorrt", "tensorrt_rtx", "polygraphy", "pycuda", "cuda_bindings", "onnxruntime")
    return (
        Fact("python", f"{platform.python_version()}, {kind} {python.prefix}"),
        Fact("sees_system_packages", python.sees_system),
        *(observe(name, backends[name].require_version) for name in packages),
        observe("onnxruntime_providers", providers),
        observe("torch", lambda: _present(installed_version("torch"), "torch is not installed")),
    )


def _find_gpu(machine: Machine, cuda: Backend, *, is_jetson: bool) -> tuple[Gpu | None, str]:
    devices = cuda.details.get("devices", [])
    if not isinstance(devices, list) or not devices:
        return None, cuda.error or "the CUDA driver sees no GPU"
    name, sm = str(devices[0]["name"]), str(devices[0]["sm"])
    if is_jetson:
        return Gpu(name, sm, is_jetson, _jetson_target(machine)), ""
    card = target_of_gpu(name)
    return Gpu(name, sm, is_jetson, card.name if card else None), ""


def _jetson_target(machine: Machine) -> str | None:
    try:
        compatible = jetson.parse_compatible(machine.read("/proc/device-tree/compatible"))
        model = machine.read("/proc/device-tree/model")
    except UnobservableError:
        return None
    return jetson.target_of_module(compatible, model)


def _once(look: Callable[[], _T]) -> Callable[[], _T]:
    """Look now; give the result, or raise the same reason, as often as it is asked for."""
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


def _read_jetpack(machine: Machine) -> str:
    release = jetson.parse_l4t_release(machine.read("/etc/nv_tegra_release"))
    return jetson.jetpack_of(release)


def _read_modes(machine: Machine) -> list[jetson.PowerMode]:
    try:
        return jetson.parse_nvpmodel_conf(machine.read("/etc/nvpmodel.conf"))
    except UnobservableError:
        return []


def _read_memory(machine: Machine, key: str) -> float:
    for line in machine.read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return round(int(rest.split()[0]) / 1024, 1)
    raise UnobservableError(f"/proc/meminfo has no {key}")


def _free_gib(folder: Path) -> float:
    present = next(path for path in (folder, *folder.parents) if path.exists())
    return round(shutil.disk_usage(present).free / 2**30, 1)
