"""A probe of one package: `python -m swise_engines.doctor.probe NAME` prints JSON.

Each package is probed in a process of its own, so that a library that crashes or hangs is reported
and does no harm. A line of JSON is printed for each step that is done; a later line adds to it.
"""

import ctypes
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

Findings = dict[str, object]


def probe_module(name: str) -> Iterator[Findings]:
    """Version of a module that imports."""
    module = importlib.import_module(name)
    version = str(getattr(module, "__version__", "unknown"))
    yield {"version": version.partition("-")[0]}  # OpenVINO adds the name of a branch


def probe_tensorrt() -> Iterator[Findings]:
    """Version of TensorRT, then whether its builder and runtime start."""
    from swise_engines.tensorrt.startup import PARTS, start_steps  # other probes do without it

    module = importlib.import_module("tensorrt")
    yield {"version": module.__version__}
    for step in start_steps(PARTS):
        yield {"start_error": step.get("error", ""), "last_step": step.get("started", "import")}


def probe_rtx() -> Iterator[Findings]:
    """Version of TensorRT for RTX and the compute capabilities that it names."""
    from swise_engines.tensorrt.rtx_gpus import rtx_capabilities  # other probes do without it

    module = importlib.import_module("tensorrt_rtx")
    yield {"version": module.__version__, "capabilities": rtx_capabilities(module)}


def probe_onnxruntime() -> Iterator[Findings]:
    """Version of ONNX Runtime and the execution providers in its wheel."""
    runtime = importlib.import_module("onnxruntime")
    yield {"version": runtime.__version__, "providers": runtime.get_available_providers()}


def probe_pycuda() -> Iterator[Findings]:
    """Version of pycuda whose driver module loads."""
    importlib.import_module("pycuda.driver")
    yield {"version": importlib.import_module("pycuda").VERSION_TEXT}


def probe_cuda() -> Findings:
    """Version of the CUDA driver and the GPUs that it shows; creates no context.

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


PROBES: dict[str, Callable[[], Iterator[Findings]]] = {
    "cuda": lambda: iter([probe_cuda()]),
    "tensorrt": probe_tensorrt,
    "tensorrt_rtx": probe_rtx,
    "polygraphy": lambda: probe_module("polygraphy"),
    "pycuda": probe_pycuda,
    "cuda_bindings": lambda: probe_module("cuda.bindings"),
    "onnxruntime": probe_onnxruntime,
    "openvino": lambda: probe_module("openvino"),
    "ncnn": lambda: probe_module("ncnn"),
    "av": lambda: probe_module("av"),
}


def main() -> int:
    """Probe the package that the first argument names."""
    try:
        for findings in PROBES[sys.argv[1]]():
            _print(findings)
    except (ImportError, OSError) as error:
        _print({"error": str(error)})
    return 0


def _print(findings: Findings) -> None:
    sys.stdout.write(json.dumps(findings) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
