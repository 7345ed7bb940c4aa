"""Power and memory from NVIDIA's management library, through ctypes.

Function names, structures and units: NVML API Reference Guide, device queries.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from swise_deploy.errors import BackendMissingError


class NvmlError(BackendMissingError):
    """NVML is not here, or does not answer."""


class _ProcessInfo(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("usedGpuMemory", ctypes.c_ulonglong),
        ("gpuInstanceId", ctypes.c_uint),
        ("computeInstanceId", ctypes.c_uint),
    )


_NOT_AVAILABLE = ctypes.c_ulonglong(-1).value


class Nvml:
    """The card that CUDA calls its first; made by `open_nvml`.

    NVML counts all cards in the order of the bus. CUDA may put the fastest first, and leaves out
    what CUDA_VISIBLE_DEVICES hides.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._device = ctypes.c_void_p()
        device, bus_id = ctypes.byref(self._device), _bus_id_of_first_gpu()
        if bus_id is not None:
            with suppress(NvmlError):  # a GPU that is part of a processor may be on no bus
                self._call("nvmlDeviceGetHandleByPciBusId_v2", ctypes.c_char_p(bus_id), device)
        if not self._device:
            self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(0), device)

    def power_watts(self) -> float:
        """Power of the card, averaged over up to a second."""
        milliwatts = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", self._device, ctypes.byref(milliwatts))
        return milliwatts.value / 1000

    def used_joules(self) -> float:
        """Energy that the card has used since the driver was loaded; Volta and later count it."""
        millijoules = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(millijoules))
        return millijoules.value / 1000

    def used_by_this_process(self) -> int:
        """Bytes of device memory that this process holds.

        Raises:
            NvmlError: The process holds none, or runs in a container that hides process ids.
        """
        count = ctypes.c_uint(64)
        infos = (_ProcessInfo * count.value)()
        self._call(
            "nvmlDeviceGetComputeRunningProcesses_v3", self._device, ctypes.byref(count), infos
        )
        used = [info.usedGpuMemory for info in infos[: count.value] if info.pid == os.getpid()]
        if not used:
            raise NvmlError(
                "NVML lists no memory for this process: it runs on the CPU, or in a container "
                "with process ids of its own"
            )
        if _NOT_AVAILABLE in used:
            raise NvmlError("NVML does not tell the memory of single processes on this card")
        return sum(used)

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise NvmlError(f"this driver's NVML has no {name}; update the driver") from error
        status = function(*arguments)
        if status != 0:
            raise NvmlError(f"{name} answered with NVML error {status}")


@contextmanager
def open_nvml() -> Iterator[Nvml]:
    """Load and initialise NVML for the duration of a block.

    Raises:
        NvmlError: There is no NVIDIA driver here.
    """
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise NvmlError("no NVIDIA driver here (libnvidia-ml.so.1 does not load)") from error
    status = library.nvmlInit_v2()
    if status != 0:
        raise NvmlError(f"nvmlInit_v2 answered with NVML error {status}")
    try:
        yield Nvml(library)
    finally:
        library.nvmlShutdown()


def _bus_id_of_first_gpu() -> bytes | None:
    """Where on the PCI bus the first GPU of this process is; None where CUDA does not tell."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, bus_id = ctypes.c_int(), ctypes.create_string_buffer(32)
    found = (
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
        and driver.cuDeviceGetPCIBusId(bus_id, len(bus_id), device) == 0
    )
    return bus_id.value if found else None
