"""Tiles that equal the full frame, for networks that average over the whole picture.

The graph is split in two. The first part runs once on the whole picture and gives its averages; the
second one takes a tile and those averages, and sees a few pixels around each one, so that ordinary
overlapping tiles are exact. The first part ends at the last average: it holds no upsampler, and
needs a third of the memory of the whole network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from swise_deploy.errors import InputError, first_line
from swise_engines.upscaling.tiles.memory import bytes_per_pixel_of
from swise_export.graph.loading import load_onnx
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.runtimes.onnx_file import OnnxFileRunner

_SPATIAL_AXES = ([2, 3], [-2, -1])
_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class SplitNetwork:
    """A network in two parts.

    Attributes:
        averages: Picture to averages.
        picture: Picture and averages to the upscaled picture.
        names: The averages, as outputs of the one and inputs of the other.
    """

    averages: onnx.ModelProto
    picture: onnx.ModelProto
    names: tuple[str, ...]


def split_network(path: Path) -> SplitNetwork | None:
    """Split an ONNX file at its averages over the picture; None where it has none.

    Raises:
        InputError: The file cannot be read, or cannot be split.
    """
    model = load_onnx(path)
    interface = read_onnx_file(path).interface
    constants = {value.name: value for value in model.graph.initializer}
    names = tuple(n.output[0] for n in model.graph.node if _is_average(n, constants))
    if not names:
        return None
    source, result = interface.input.name, interface.output.name
    try:
        extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
        averages = extractor.extract_model([source], list(names))
        picture = extractor.extract_model([source, *names], [result])
    except Exception as error:  # onnx raises several kinds
        raise InputError(
            f"{path} cannot be split at its averages: {first_line(error)}. Leave --exact out"
        ) from error
    return SplitNetwork(averages, picture, names)


def _is_average(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = [list(a.ints) for a in node.attribute if a.name == "axes"]
    if len(node.input) > 1 and node.input[1] in constants:
        axes = [onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()]
    return bool(axes) and axes[0] in _SPATIAL_AXES


class ExactRunner(OnnxFileRunner):
    """Runs a split network in ONNX Runtime on the CPU; `prepare` takes the whole picture first.

    Args:
        path: The ONNX file.
        split: Its parts.
        threads: Threads within one operation; None for ONNX Runtime's default.
        budget_bytes: Memory for the averages of a whole picture.
    """

    runtime = "onnxruntime"

    def __init__(
        self, path: Path, split: SplitNetwork, *, threads: int | None, budget_bytes: int
    ) -> None:
        super().__init__(path)
        self.name = f"onnxruntime {ort.__version__} {_PROVIDER}, exact tiles"
        self._split = split
        self._threads = threads
        self._max_pixels = int(
            budget_bytes / bytes_per_pixel_of(split.averages, self.file.interface.input)
        )
        self._sessions: tuple[ort.InferenceSession, ort.InferenceSession] | None = None
        self._averages: dict[str, NDArray[np.number]] = {}

    def activate(self) -> None:
        """Load both parts."""
        if self._sessions is None:
            self._sessions = self._open(self._split.averages), self._open(self._split.picture)

    def deactivate(self) -> None:
        """Free both parts."""
        self._sessions = None

    def prepare(self, lr: NDArray[np.number]) -> None:
        """Compute the averages of a whole picture, in the layout that `io` names.

        Raises:
            InputError: The picture is too large for the memory.
        """
        assert self._sessions is not None, "prepare before activate"
        num_pixels = math.prod(lr.shape) // 3
        if num_pixels > self._max_pixels:
            raise InputError(
                f"the averages of {num_pixels:,} pixels do not fit into the memory for --exact, "
                f"which holds {self._max_pixels:,}. Raise --memory, or leave --exact out"
            )
        batch = self._adapter.encode(lr)
        found = self._sessions[0].run(
            list(self._split.names), {self.file.interface.input.name: batch}
        )
        self._averages = dict(zip(self._split.names, found, strict=True))

    def run_file(self, batch: NDArray[np.number]) -> NDArray[np.number]:
        """Run the second part on tiles of the picture that was prepared."""
        assert self._sessions is not None, "infer before activate"
        interface = self.file.interface
        tiles = len(batch)
        feeds = {name: np.repeat(value, tiles, axis=0) for name, value in self._averages.items()}
        (sr,) = self._sessions[1].run(
            [interface.output.name], {interface.input.name: batch, **feeds}
        )
        result: NDArray[np.number] = sr
        return result

    def _open(self, model: onnx.ModelProto) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        return ort.InferenceSession(model.SerializeToString(), options, providers=[_PROVIDER])
