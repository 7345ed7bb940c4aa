"""The base of runners of ONNX files, which reads the file's facts and converts pictures."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.precision import FilePrecision
from swise_deploy.runner import DeviceKind, PictureIO, RunnerContext
from swise_export.counting import precision_of_file
from swise_export.interface.adapter import PictureAdapter
from swise_export.interface.onnx_file import OnnxFile, read_onnx_file


class OnnxFileRunner(RunnerContext):
    """A runner of an ONNX file with any kind of pictures.

    Subclasses load the file and run it on batches in the file's own layout and type.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged, or not a picture network.
    """

    runtime: str
    device: DeviceKind = "cpu"
    name: str

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: OnnxFile = read_onnx_file(path)
        self.scale: int = self.file.scale
        self.io: PictureIO = self.file.io
        self.form: str = self.file.form
        self._adapter = PictureAdapter(self.file.interface)

    @property
    def precision(self) -> FilePrecision | None:
        """Precision of the file's layers that multiply."""
        return precision_of_file(self.file)

    def infer(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        """Upscale a batch, in the layout that `io` names."""
        return self._adapter.decode(self.run_file(self._adapter.encode(lr)), lr)

    @abstractmethod
    def run_file(self, batch: NDArray[np.number]) -> NDArray[np.number]:
        """Run the file on a batch in its own layout and type, and return its picture output."""
