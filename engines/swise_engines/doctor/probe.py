"""A probe of one package: `python -m swise_engines.doctor.probe NAME` prints JSON.

Each package is probed in a process of its own, so that a library that crashes or hangs is reported
and does no harm. A line of JSON is printed for each step that is done; a later line adds to it.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial

from swise_deploy.command.cuda_driver import probe_cuda
from swise_export.runtimes.table import optional_runtimes

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


PROBES: dict[str, Callable[[], Iterator[Findings]]] = {
    "cuda": lambda: iter([probe_cuda()]),
    "tensorrt": probe_tensorrt,
    "tensorrt_rtx": probe_rtx,
    "polygraphy": lambda: probe_module("polygraphy"),
    "pycuda": probe_pycuda,
    "cuda_bindings": lambda: probe_module("cuda.bindings"),
    "onnxruntime": probe_onnxruntime,
    **{package: partial(probe_module, package) for package in optional_runtimes()},
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
