"""Power, energy and memory of an NVIDIA card, from NVIDIA's management library (nvidia-ml-py)."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError


class NvmlError(BackendMissingError):
    """NVML is missing or does not answer."""


class Nvml:
    """The card that CUDA calls its first; made by `open_nvml`.

    NVML counts all cards in the order of the bus. CUDA may put the fastest first, and hides
    those that CUDA_VISIBLE_DEVICES excludes.

    Args:
        pynvml: The module of nvidia-ml-py, initialised.
    """

    def __init__(self, pynvml: Any) -> None:
        self._pynvml = pynvml
        self._device: object = None
        bus_id = _bus_id_of_first_gpu()
        if bus_id is not None:
            with suppress(NvmlError):  # a GPU that is part of a processor may be on no bus
                self._device = self._call(pynvml.nvmlDeviceGetHandleByPciBusId, bus_id)
        if self._device is None:
            self._device = self._call(pynvml.nvmlDeviceGetHandleByIndex, 0)

    def power_watts(self) -> float:
        """Power of the card, averaged over up to a second."""
        milliwatts: int = self._call(self._pynvml.nvmlDeviceGetPowerUsage, self._device)
        return milliwatts / 1000

    def used_joules(self) -> float:
        """Energy that the card has used since the driver was loaded; Volta and later count it."""
        read = self._pynvml.nvmlDeviceGetTotalEnergyConsumption
        millijoules: int = self._call(read, self._device)
        return millijoules / 1000

    def used_by_this_process(self) -> int:
        """Bytes of device memory that this process holds.

        Raises:
            NvmlError: The process holds none, or runs in a container that hides process ids.
        """
        processes = self._call(self._pynvml.nvmlDeviceGetComputeRunningProcesses, self._device)
        used = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        if not used:
            raise NvmlError(
                "NVML lists no memory for this process: it runs on the CPU, or in a container "
                "with process ids of its own"
            )
        if None in used:
            raise NvmlError("NVML does not report the memory of single processes on this card")
        return sum(used)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except self._pynvml.NVMLError as error:
            raise NvmlError(f"{function.__name__}: {error}") from error


@contextmanager
def open_nvml() -> Iterator[Nvml]:
    """Initialise NVML for the duration of a block.

    Raises:
        NvmlError: nvidia-ml-py is not installed, or there is no NVIDIA driver.
    """
    try:
        pynvml = require("pynvml", extra="nvml", purpose="reading power and memory of a GPU")
    except BackendMissingError as error:
        raise NvmlError(str(error)) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlError(f"no NVIDIA driver: nvmlInit: {error}") from error
    try:
        yield Nvml(pynvml)
    finally:
        pynvml.nvmlShutdown()


def _bus_id_of_first_gpu() -> bytes | None:
    """PCI bus id of the first GPU of this process; None where CUDA does not report it."""
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
