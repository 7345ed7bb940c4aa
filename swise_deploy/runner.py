"""Runners: networks that are ready to run, for upscaling, verification and benchmarks."""

from abc import abstractmethod
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from swise_deploy.errors import SwiseError
from swise_deploy.pictures.files import RgbImage
from swise_deploy.precision import FilePrecision
from swise_deploy.storage.context import Closing

DeviceKind = Literal["cpu", "gpu"]

PictureIO = Literal["float", "uint8"]
"""Layout and type of the pictures that a network takes and gives.

float: (N, 3, H, W), float32, RGB in [0, 1], the output not clamped.
uint8: (N, H, W, 3), uint8, RGB; scaling, clamping and rounding are part of the artefact.
"""


@runtime_checkable
class Runner(Protocol):
    """A network that is ready to run: torch module, ONNX file or engine.

    `activate` loads it and may be slow; `infer` runs it; `deactivate` frees it. A runner is a
    context manager that activates and deactivates. One runner serves one thread at a time.
    """

    @property
    def name(self) -> str:
        """Runtime, version and device for display; no logic reads it."""

    @property
    def runtime(self) -> str:
        """Key of the runtimes table, such as "onnxruntime"."""

    @property
    def device(self) -> DeviceKind:
        """Kind of processor that computes."""

    @property
    def precision(self) -> FilePrecision | None:
        """Precision of the layers that multiply; None where it is not known."""

    @property
    def form(self) -> str:
        """Form of the graph, "deploy" or "plain"; "" where it is not known."""

    @property
    def scale(self) -> int:
        """Output size over input size."""

    @property
    def io(self) -> PictureIO:
        """Layout and type of the pictures that it takes and gives."""

    def activate(self) -> None:
        """Load the network."""

    def infer(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        """Upscale a batch, in the layout that `io` names."""

    def deactivate(self) -> None:
        """Free the resources of `activate`; harmless when there are none."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class RunnerContext(Closing):
    """The context manager of every runner: active between entering and leaving."""

    @abstractmethod
    def activate(self) -> None:
        """Load the network."""

    @abstractmethod
    def deactivate(self) -> None:
        """Free the resources of `activate`."""

    def __enter__(self) -> Self:
        self.activate()
        return self

    def close(self) -> None:
        """Deactivate."""
        self.deactivate()


def upscale(runner: Runner, image: RgbImage, *, batch: int | None = None) -> RgbImage:
    """Upscale one picture: (H, W, 3) uint8 to (H*scale, W*scale, 3) uint8.

    Args:
        runner: Activated.
        image: The picture.
        batch: Pictures that the runner takes in a call, filled up by repeating it; None for any.

    Raises:
        SwiseError: The output contains NaN or infinity.
    """
    sr = runner.infer(batch_from_images(np.repeat(image[None], batch or 1, axis=0), runner.io))
    if runner.io == "uint8":
        return np.asarray(sr[0], np.uint8)
    check_finite(sr, runner.name)
    return image_from_float(sr)


def check_finite(sr: NDArray[np.number], name: str) -> None:
    """Refuse an output with NaN or infinity, which would be written as a black picture.

    Raises:
        SwiseError: The message names the runner.
    """
    if not np.isfinite(sr).all():
        raise SwiseError(
            f"the output of {name} contains NaN or infinity: the weights are damaged, or a layer "
            "overflows in half precision. Export the network with swise-export, which checks both"
        )


def float_from_image(image: RgbImage) -> NDArray[np.float32]:
    """Convert (H, W, 3) uint8 to (1, 3, H, W) float32 in [0, 1]."""
    return _float_from_images(image[None])


def batch_from_images(images: NDArray[np.uint8], io: PictureIO) -> NDArray[np.number]:
    """Convert (N, H, W, 3) uint8 to the layout and type that `io` names."""
    return images if io == "uint8" else _float_from_images(images)


def _float_from_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def image_from_float(sr: NDArray[np.number]) -> RgbImage:
    """Convert (1, 3, H, W) float to (H, W, 3) uint8: clamped, rounded to nearest."""
    rounded = np.rint(np.clip(sr[0].astype(np.float32), 0, 1) * np.float32(255))
    return np.ascontiguousarray(rounded.transpose(1, 2, 0), np.uint8)
