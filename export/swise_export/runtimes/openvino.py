"""An ONNX file in OpenVINO, on a CPU."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.runner import PictureIO, RunnerContext
from swise_export.graph.counting import count_onnx, picture_input, picture_layout, read_onnx

if TYPE_CHECKING:
    import openvino


# With its shape known a network runs about 7% faster (SwiseNet x2, 2 threads), and compiling it
# takes as long as a picture of 128x128: worth it for a shape that comes back, not for a folder of
# pictures that are all of different sizes.
_TIMES_WORTH_COMPILING = 3


class OpenVinoRunner(RunnerContext):
    """Runs an ONNX file in OpenVINO, in the precision that the file states.

    It is compiled for the shape that comes first, which videos and tiles then repeat. Other shapes
    run in a second compilation that takes any, until one comes three times in a row.

    Raises:
        BackendMissingError: OpenVINO is not installed.
        InputError: The file is no picture network, or OpenVINO cannot run it.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._openvino = require("openvino", extra="openvino", purpose="running ONNX in OpenVINO")
        model = read_onnx(path)
        counts = count_onnx(model, lr_size=(64, 64))
        self.scale = counts.sr_size[0] // counts.lr_size[0]
        self.io: PictureIO = "uint8" if picture_layout(picture_input(model)) == "nhwc" else "float"
        self.name = f"openvino {self._openvino.__version__.partition('-')[0]} CPU"
        self._path = path
        self._threads = threads
        self._model: openvino.Model | None = None
        self._forget()

    def activate(self) -> None:
        """Read the file; it is compiled when the first picture tells the size."""
        try:
            self._model = openvino_core().read_model(self._path)
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read {self._path}: {error}") from error

    def infer(self, lr: NDArray[np.generic]) -> NDArray[np.generic]:
        """Upscale a batch, in the layout that `io` names."""
        outputs = self._request_for(lr.shape).infer([lr], share_inputs=True)
        return np.array(outputs[0])

    def deactivate(self) -> None:
        """Free the compiled model."""
        self._model = None
        self._forget()

    def _forget(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._of_shape: Any = None  # openvino.InferRequest
        self._of_any_shape: Any = None  # openvino.InferRequest
        self._last_shape: tuple[int, ...] = ()
        self._num_in_a_row = 0

    def _request_for(self, shape: tuple[int, ...]) -> Any:
        self._num_in_a_row = self._num_in_a_row + 1 if shape == self._last_shape else 1
        self._last_shape = shape
        if shape == self._shape:
            return self._of_shape
        if self._of_shape is None or self._num_in_a_row >= _TIMES_WORTH_COMPILING:
            self._of_shape = self._of_any_shape = None  # frees memory before more is taken
            self._of_shape, self._shape = self._compiled(shape), shape
            return self._of_shape
        if self._of_any_shape is None:
            self._of_any_shape = self._compiled(None)
        return self._of_any_shape

    def _compiled(self, shape: tuple[int, ...] | None) -> Any:
        """A request for a shape, or for any that the file takes."""
        assert self._model is not None, "infer before activate"
        options: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
        }
        if self._threads is not None:
            options["INFERENCE_NUM_THREADS"] = self._threads
        model = self._model.clone()
        try:
            if shape is not None:
                model.reshape({0: list(shape)})
            return openvino_core().compile_model(model, "CPU", options).create_infer_request()
        except RuntimeError as error:
            asked = "inputs of any shape" if shape is None else f"an input of shape {shape}"
            raise InputError(
                f"OpenVINO cannot compile {self._path} for {asked}: {error}"
            ) from error


@functools.cache
def openvino_core() -> "openvino.Core":
    """The only Core of the process, which is never freed.

    OpenVINO 2026's CPU plugin seems to give the main thread a signal stack of its own and to put
    the old one back when it is freed: after two plugins, freed one after the other, the next
    signal, such as Ctrl-C, ended the process with a segmentation fault. One that is kept does not.

    Raises:
        BackendMissingError: OpenVINO is not installed.
    """
    module = require("openvino", extra="openvino", purpose="running ONNX in OpenVINO")
    core: openvino.Core = module.Core()
    return core
