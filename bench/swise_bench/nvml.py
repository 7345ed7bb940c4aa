"""Power and memory from NVIDIA's management library, through ctypes.

Function names, structures and units: NVML API Reference Guide, device queries.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

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


class Nvml:
    """The first card; made by `open_nvml`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._device = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(0), ctypes.byref(self._device))

    def power_watts(self) -> float:
        """Present power of the card."""
        milliwatts = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", self._device, ctypes.byref(milliwatts))
        return milliwatts.value / 1000

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
        return sum(used)

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
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
