"""ONNX files in OpenVINO on a CPU."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.dependencies import installed_version, require
from swise_deploy.errors import InputError, first_line
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.runtimes.onnx_file import OnnxFileRunner

if TYPE_CHECKING:
    import openvino


# A network that is compiled for one shape runs about 7% faster (SwiseNet x2, 2 threads), and the
# compilation takes as long as a picture of 128x128: worthwhile for a shape that repeats, not for a
# folder of pictures of different sizes.
_REPEATS_TO_COMPILE = 3


Program = Callable[[NDArray[np.number]], NDArray[np.number]]
"""A compiled file: from a batch in the file's own layout and type to its picture output."""


class OpenVinoRunner(OnnxFileRunner):
    """Runs an ONNX file in OpenVINO, in the precision of the file.

    It is compiled for the first shape, which videos and tiles repeat. Other shapes run in a second
    compilation for any shape, until one of them occurs three times in a row.

    Args:
        path: The file.
        threads: CPU threads; None for OpenVINO's default.

    Raises:
        BackendMissingError: OpenVINO is not installed.
        InputError: The file is not a picture network, or OpenVINO cannot run it.
    """

    runtime = "openvino"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._openvino = require("openvino", extra="openvino", purpose="running ONNX in OpenVINO")
        super().__init__(path)
        self.name = f"openvino {self._openvino.__version__.partition('-')[0]} CPU"
        self._threads = threads
        self._model: openvino.Model | None = None
        self._forget()

    def activate(self) -> None:
        """Read the file; it is compiled when the shape of the first batch is known."""
        try:
            self._model = openvino_core().read_model(self.path)
        except RuntimeError as error:
            raise InputError(
                f"OpenVINO cannot read {self.path}: {first_line(error)}. Use --runner onnxruntime"
            ) from error

    def run_file(self, batch: NDArray[np.number]) -> NDArray[np.number]:
        """Run the file on a batch in its own layout and type.

        Raises:
            InputError: OpenVINO cannot compile the file for this shape, or cannot run it.
        """
        program = self._program_for(batch.shape)
        try:
            return program(batch)
        except RuntimeError as error:
            raise InputError(
                f"OpenVINO cannot run {self.path} on a batch of shape {batch.shape}: "
                f"{reason_of(error)}. Use --runner onnxruntime"
            ) from error

    def deactivate(self) -> None:
        """Free the compiled model."""
        self._model = None
        self._forget()

    def _forget(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._of_shape: Program | None = None
        self._of_any_shape: Program | None = None
        self._last_shape: tuple[int, ...] = ()
        self._num_in_a_row = 0

    def _program_for(self, shape: tuple[int, ...]) -> Program:
        self._num_in_a_row = self._num_in_a_row + 1 if shape == self._last_shape else 1
        self._last_shape = shape
        if self._of_shape is not None and shape == self._shape:
            return self._of_shape
        if self._of_shape is None or self._num_in_a_row >= _REPEATS_TO_COMPILE:
            self._of_shape = self._of_any_shape = None  # free memory before the compilation
            self._of_shape, self._shape = self._compiled(shape), shape
            return self._of_shape
        if self._of_any_shape is None:
            self._of_any_shape = self._compiled(None)
        return self._of_any_shape

    def _compiled(self, shape: tuple[int, ...] | None) -> Program:
        """Compile the file for a shape, or for any shape that it takes.

        Raises:
            InputError: OpenVINO cannot.
        """
        assert self._model is not None, "infer before activate"
        try:
            return self._compile(self._model.clone(), shape)
        except RuntimeError as error:
            inputs = "inputs of any shape" if shape is None else f"an input of shape {shape}"
            raise InputError(
                f"OpenVINO cannot compile {self.path} for {inputs}: {reason_of(error)}. Use "
                "--runner onnxruntime"
            ) from error

    def _compile(self, model: "openvino.Model", shape: tuple[int, ...] | None) -> Program:
        """Compile a copy of the file's model.

        Raises:
            RuntimeError: OpenVINO cannot.
        """
        interface = self.file.interface
        if shape is not None:
            model.reshape({interface.input.name: list(shape)})
        request = self._request(model, precision="f32")

        def run(batch: NDArray[np.number]) -> NDArray[np.number]:
            outputs = request.infer({interface.input.name: batch}, share_inputs=True)
            return np.array(outputs[interface.output.name])

        return run

    def _request(self, model: "openvino.Model", *, precision: Literal["f32", "bf16"]) -> Any:
        """Compile a model; returns an openvino.InferRequest.

        Args:
            model: With the shapes that it is compiled for.
            precision: Precision of what is not INT8, where OpenVINO has kernels for it.
        """
        options: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,
        }
        if self._threads is not None:
            options["INFERENCE_NUM_THREADS"] = self._threads
        return openvino_core().compile_model(model, "CPU", options).create_infer_request()


def reason_of(error: RuntimeError) -> str:
    """What went wrong: the lines before it name files of OpenVINO's sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else first_line(error)


@functools.cache
def openvino_core() -> "openvino.Core":
    """Return the only Core of the process, which is never freed.

    OpenVINO 2026's CPU plugin seems to replace the main thread's signal stack and to restore the
    old one when it is freed. After two plugins were freed one after the other, the next signal,
    such as Ctrl-C, ended the process with a segmentation fault. A single Core avoids that.

    Raises:
        BackendMissingError: OpenVINO is not installed.
    """
    module = require("openvino", extra="openvino", purpose="running ONNX in OpenVINO")
    core: openvino.Core = module.Core()
    return core


def open_runner(path: Path, *, threads: int | None = None) -> OpenVinoRunner:
    """Open a file on the CPU."""
    return OpenVinoRunner(path, threads=threads)


def describe() -> str:
    """Runtime, version and device; OpenVINO is not imported for it."""
    return f"openvino {installed_version('openvino') or 'of unknown version'} CPU"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    return ""


def profile(
    path: Path, *, batch: NDArray[np.number], threads: int, num_runs: int = 5
) -> list[tuple[str, str, float]]:
    """Time every node by OpenVINO's performance counters (see `RuntimeModule.profile`).

    The nodes are those of the compiled graph; fused nodes have no time of their own.
    """
    core, name = openvino_core(), read_onnx_file(path).interface.input.name
    model = core.read_model(path)
    model.reshape({name: list(batch.shape)})
    options = {
        "PERF_COUNT": True,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    found = []
    for _ in range(num_runs):
        request.infer({name: batch})
        found += [
            (info.node_name, info.node_type, info.real_time.total_seconds() * 1000)
            for info in request.profiling_info
            if info.real_time.total_seconds() > 0
        ]
    return found
