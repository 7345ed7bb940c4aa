"""Import one backend and say what it is: `python -m swise_engines.doctor.probe NAME` prints JSON.

Each runs in a process of its own: a library that crashes or hangs is reported and not suffered.
"""

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any


def probe_module(name: str) -> dict[str, object]:
    """Version of a module that imports."""
    module = importlib.import_module(name)
    return {"version": str(getattr(module, "__version__", "unknown"))}


def probe_rtx() -> dict[str, object]:
    """Version of TensorRT for RTX and the compute capabilities that it names."""
    from swise_engines.tensorrt.rtx_gpus import (
        rtx_capabilities,  # the other probes need not wait for it
    )

    module = importlib.import_module("tensorrt_rtx")
    return {"version": module.__version__, "capabilities": rtx_capabilities(module)}


def probe_onnxruntime() -> dict[str, object]:
    """Version of ONNX Runtime and the execution providers that its wheel contains."""
    runtime = importlib.import_module("onnxruntime")
    return {"version": runtime.__version__, "providers": runtime.get_available_providers()}


def probe_pycuda() -> dict[str, object]:
    """Version of pycuda whose driver module loads."""
    importlib.import_module("pycuda.driver")
    return {"version": importlib.import_module("pycuda").VERSION_TEXT}


def probe_cuda() -> dict[str, object]:
    """The CUDA driver itself: its version and the GPUs that it sees; no context is made.

    Raises:
        OSError: There is no libcuda, or the driver refuses; the message says which.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise OSError(f"no NVIDIA driver is visible here: {error}") from error
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


PROBES: dict[str, Callable[[], dict[str, object]]] = {
    "cuda": probe_cuda,
    "tensorrt": lambda: probe_module("tensorrt"),
    "tensorrt_rtx": probe_rtx,
    "polygraphy": lambda: probe_module("polygraphy"),
    "pycuda": probe_pycuda,
    "cuda_bindings": lambda: probe_module("cuda.bindings"),
    "onnxruntime": probe_onnxruntime,
}


def main() -> int:
    """Probe what the first argument names."""
    try:
        found = PROBES[sys.argv[1]]()
    except (ImportError, OSError) as error:
        found = {"error": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
