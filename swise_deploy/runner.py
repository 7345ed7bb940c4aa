"""What upscaling, verification and benchmarking know of a network: a runner."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from swise_deploy.errors import SwiseError
from swise_deploy.pictures.files import RgbImage

PictureIO = Literal["float", "uint8"]
"""How pictures enter and leave an artefact.

float: (N, 3, H, W), float32, RGB in [0, 1], the output not clamped.
uint8: (N, H, W, 3), uint8, RGB; scaling, clamping and rounding are part of the artefact.
"""


@runtime_checkable
class Runner(Protocol):
    """A network that is ready to run: torch module, ONNX file or engine.

    `activate` loads it and may be slow; `infer` runs it; `deactivate` frees it. A runner is a
    context manager that does the first and the last. One runner serves one thread at a time.
    """

    @property
    def name(self) -> str:
        """What runs where, e.g. "onnxruntime CPUExecutionProvider"."""

    @property
    def scale(self) -> int:
        """Output size over input size."""

    @property
    def io(self) -> PictureIO:
        """How pictures enter and leave."""

    def activate(self) -> None:
        """Load what runs."""

    def infer(self, lr: NDArray[np.generic]) -> NDArray[np.generic]:
        """Upscale a batch, in the layout that `io` names."""

    def deactivate(self) -> None:
        """Free what `activate` took; harmless when there is nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class RunnerContext(ABC):
    """The context manager that every runner is: active between entering and leaving."""

    @abstractmethod
    def activate(self) -> None:
        """Load what runs."""

    @abstractmethod
    def deactivate(self) -> None:
        """Free what `activate` took."""

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.deactivate()


def upscale(runner: Runner, image: RgbImage) -> RgbImage:
    """Upscale one picture: (H, W, 3) uint8 to (H*scale, W*scale, 3) uint8.

    Raises:
        SwiseError: The network gives pixels that are no finite numbers.
    """
    if runner.io == "uint8":
        return np.asarray(runner.infer(image[None])[0], np.uint8)
    sr = runner.infer(float_from_image(image))
    refuse_no_numbers(sr, runner.name)
    return image_from_float(sr)


def refuse_no_numbers(sr: NDArray[np.generic], name: str) -> None:
    """Refuse what would be written as a black picture.

    Raises:
        SwiseError: There are NaN or infinities; the message names what ran.
    """
    if not np.isfinite(sr).all():
        raise SwiseError(
            f"the network gives pixels that are no finite numbers, in {name}: its weights are "
            "broken, or something overflows in half precision. Export it with swise-export, which "
            "checks both"
        )


def float_from_image(image: RgbImage) -> NDArray[np.float32]:
    """(H, W, 3) uint8 to (1, 3, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def image_from_float(sr: NDArray[np.generic]) -> RgbImage:
    """(1, 3, H, W) float to (H, W, 3) uint8: clamped, rounded to nearest."""
    levels = np.rint(np.clip(sr[0].astype(np.float32), 0, 1) * np.float32(255))
    return np.ascontiguousarray(levels.transpose(1, 2, 0), np.uint8)
