"""An examination of a machine: every fact with its value, or with the reason why it is unknown."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swise_engines.doctor import jetson
from swise_engines.doctor.imports import (
    Package,
    PythonInstallation,
    describe_python,
    find_hidden_tensorrt,
    probe_packages,
)
from swise_engines.doctor.machine import Fact, Machine, UnobservableError, observe
from swise_engines.doctor.sections import (
    Gpu,
    Section,
    describe_gpu,
    describe_jetson,
    describe_machine,
    describe_packages,
    installed_onnx_runtimes,
    read_jetpack,
)
from swise_engines.targets.catalogue import target_of_gpu


@dataclass(frozen=True, slots=True)
class Examination:
    """The state of a machine at one time.

    Attributes:
        sections: Facts under a title, in the order of the report.
        gpu: None where no GPU can be used; `no_gpu` is the reason then.
        no_gpu: Why there is none; empty where there is one.
        jetpack: E.g. "6.2" on a Jetson; None elsewhere.
        python: The interpreter.
        packages: Results of the probes, by the names of `probe.PROBES`.
        hidden_tensorrt: Python versions whose system packages contain TensorRT.
        onnx_runtimes: Installed distributions of ONNX Runtime; more than one is a fault.
        modes: Power modes that the device has.
        free_memory_mib: None where it is unknown.
    """

    sections: Mapping[str, Section]
    gpu: Gpu | None
    no_gpu: str
    jetpack: str | None
    python: PythonInstallation
    packages: Mapping[str, Package]
    hidden_tensorrt: tuple[tuple[int, int], ...]
    onnx_runtimes: tuple[str, ...]
    modes: tuple[jetson.PowerMode, ...]
    free_memory_mib: float | None

    def fact(self, section: str, name: str) -> Fact:
        """One fact by its section and name."""
        return next(fact for fact in self.sections[section] if fact.name == name)

    @property
    def driver_cuda(self) -> str:
        """Newest CUDA version that the driver supports, such as "12.6"; "" without a driver."""
        return self.packages["cuda"].version or ""


def this_machine() -> Machine:
    """The computer that this runs on."""
    return Machine(root=Path("/"), command_path=os.environ.get("PATH", os.defpath))


def examine(machine: Machine, packages: Mapping[str, Package] | None = None) -> Examination:
    """Examine a machine; changes nothing and creates no CUDA context.

    Args:
        machine: Whose files and commands to read.
        packages: Results of probes that were made before; None probes now.
    """
    found = probe_packages() if packages is None else packages
    python = describe_python()
    is_jetson = bool(machine.find("/etc/nv_tegra_release"))
    gpu, no_gpu = _find_gpu(machine, found["cuda"], is_jetson=is_jetson)
    sections = {
        "machine": describe_machine(machine),
        "gpu": describe_gpu(machine, found["cuda"], gpu, no_gpu),
        "python": describe_packages(python, found),
    }
    if is_jetson:
        sections["jetson"] = describe_jetson(machine)
    memory = next(f for f in sections["machine"] if f.name == "memory_available_mib").value
    jetpack = observe("jetpack", lambda: read_jetpack(machine)).value if is_jetson else None
    return Examination(
        sections=sections,
        gpu=gpu,
        no_gpu=no_gpu,
        jetpack=str(jetpack) if jetpack else None,
        python=python,
        packages=found,
        hidden_tensorrt=tuple(find_hidden_tensorrt(machine)),
        onnx_runtimes=installed_onnx_runtimes(),
        modes=tuple(_read_modes(machine)) if is_jetson else (),
        free_memory_mib=memory if isinstance(memory, float) else None,
    )


def _find_gpu(machine: Machine, cuda: Package, *, is_jetson: bool) -> tuple[Gpu | None, str]:
    devices = cuda.details.get("devices", [])
    if not isinstance(devices, list) or not devices:
        return None, cuda.error or "the CUDA driver shows no GPU"
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


def _read_modes(machine: Machine) -> list[jetson.PowerMode]:
    try:
        return jetson.parse_nvpmodel_conf(machine.read("/etc/nvpmodel.conf"))
    except UnobservableError:
        return []
