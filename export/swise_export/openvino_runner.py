"""An ONNX file in OpenVINO, on a CPU."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swise_deploy.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.runner import PictureIO, RunnerContext
from swise_export.counting import count_onnx, picture_input, picture_layout, read_onnx

if TYPE_CHECKING:
    import openvino


class OpenVinoRunner(RunnerContext):
    """Runs an ONNX file in OpenVINO, in the precision that the file states.

    The file is compiled for every size that comes, and kept compiled for the last one: with its
    shape known, OpenVINO plans memory and kernels better than for a dynamic one.

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
        self._shape: tuple[int, ...] = ()
        self._request: Any = None  # openvino.InferRequest; None before the first picture

    def activate(self) -> None:
        """Read the file; it is compiled when the first picture tells the size."""
        try:
            self._model = openvino_core().read_model(self._path)
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read {self._path}: {error}") from error

    def infer(self, lr: NDArray[np.generic]) -> NDArray[np.generic]:
        """Upscale a batch, in the layout that `io` names."""
        if lr.shape != self._shape:
            self._compile(lr.shape)
        outputs = self._request.infer([lr], share_inputs=True)
        return np.array(outputs[0])

    def deactivate(self) -> None:
        """Free the compiled model."""
        self._model = self._request = None
        self._shape = ()

    def _compile(self, shape: tuple[int, ...]) -> None:
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
            model.reshape({0: list(shape)})
            compiled = openvino_core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise InputError(
                f"OpenVINO cannot compile {self._path} for an input of shape {shape}: {error}"
            ) from error
        self._request = compiled.create_infer_request()
        self._shape = shape


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
