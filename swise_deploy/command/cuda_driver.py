"""Version and GPUs of NVIDIA's driver, read through ctypes."""

import ctypes
from typing import Any


def probe_cuda() -> dict[str, object]:
    """Read the version of the CUDA driver and its GPUs, without creating a context.

    Raises:
        OSError: There is no libcuda, or the driver reports an error.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        detail = "" if "No such file" in str(error) else f": {error}"
        raise OSError(f"no NVIDIA driver is visible here{detail}") from error
    _check(driver, driver.cuInit(0))
    version, count = ctypes.c_int(), ctypes.c_int()
    _check(driver, driver.cuDriverGetVersion(ctypes.byref(version)))
    _check(driver, driver.cuDeviceGetCount(ctypes.byref(count)))
    return {
        "version": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "devices": [_describe_gpu(driver, index) for index in range(count.value)],
    }


def _describe_gpu(driver: Any, index: int) -> dict[str, object]:
    device, major, minor, integrated = (ctypes.c_int() for _ in range(4))
    name, size = ctypes.create_string_buffer(128), ctypes.c_size_t()
    _check(driver, driver.cuDeviceGet(ctypes.byref(device), index))
    _check(driver, driver.cuDeviceGetName(name, len(name), device))
    _check(driver, driver.cuDeviceTotalMem_v2(ctypes.byref(size), device))
    # CUdevice_attribute: compute capability major 75 and minor 76, integrated 18.
    for attribute, result in ((75, major), (76, minor), (18, integrated)):
        _check(driver, driver.cuDeviceGetAttribute(ctypes.byref(result), attribute, device))
    return {
        "name": name.value.decode(errors="replace"),
        "sm": f"{major.value}.{minor.value}",
        "memory_mib": size.value >> 20,
        "integrated": bool(integrated.value),
    }


def _check(driver: Any, status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        raise OSError(f"CUDA error {status}: {(text.value or b'unknown').decode()}")
