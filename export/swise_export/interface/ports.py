"""The pictures that an ONNX file takes and gives, as one value."""

from dataclasses import dataclass
from typing import Literal

from swise_deploy.errors import InputError
from swise_deploy.runner import PictureIO

ElementType = Literal["float32", "float16", "float64", "uint8"]
Layout = Literal["NCHW", "NHWC"]

CHANNELS = (1, 3, 4)
"""Luma, RGB, RGB with opacity."""

WHITES = (1.0, 255.0)
"""Values that networks use for white."""

MAX_SIDE = 1 << 16


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output that carries pictures.

    Attributes:
        name: Tensor name.
        dtype: Element type.
        layout: Order of the axes.
        channels: 1 for luma, 3 for RGB, 4 for RGB and opacity.
        white: The value of white; black is 0.
    """

    name: str
    dtype: ElementType
    layout: Layout = "NCHW"
    channels: int = 3
    white: float = 1.0

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS:
            raise InputError(
                f"{self.name} has {self.channels} channels; expected 1 (luma), 3 (RGB) or 4 "
                "(RGB and opacity). Export the network with one of them"
            )
        if self.white not in WHITES:
            raise InputError(
                f"{self.name} has white at {self.white}; expected 1 or 255. Export it again"
            )

    def shape(self, batch: int, width: int, height: int) -> tuple[int, int, int, int]:
        """The tensor's shape for a batch of pictures."""
        if self.layout == "NHWC":
            return batch, height, width, self.channels
        return batch, self.channels, height, width


@dataclass(frozen=True, slots=True)
class Interface:
    """The pictures that a graph takes and gives, and their sizes.

    Attributes:
        input: The picture input.
        output: The picture output.
        scale: Output size over input size.
        size: The only (width, height) of its input; None for any.
        batch: The only number of pictures in a batch; None for any.
        multiple: Number of which width and height have to be multiples.
    """

    input: Port
    output: Port
    scale: int
    size: tuple[int, int] | None = None
    batch: int | None = None
    multiple: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= 64 or not 1 <= self.multiple <= MAX_SIDE:
            raise InputError(
                f"{self.output.name} has scale {self.scale} and sides of multiple {self.multiple}; "
                f"expected a scale of 1 to 64 and a multiple of 1 to {MAX_SIDE}. Export it again"
            )

    @property
    def io(self) -> PictureIO:
        """Layout and type of the pictures that a runner of this graph takes.

        "uint8" for a graph that takes and gives uint8 pictures, channels last; "float" for every
        other graph, for which `PictureAdapter` converts.
        """
        ports = (self.input, self.output)
        is_uint8 = all(
            (port.dtype, port.layout, port.channels) == ("uint8", "NHWC", 3) for port in ports
        )
        return "uint8" if is_uint8 and self.multiple == 1 else "float"

    @property
    def is_ordinary(self) -> bool:
        """True where pictures need no conversion and no padding."""
        if self.io == "uint8":
            return True
        ordinary = ("float32", "NCHW", 3, 1.0)
        return self.multiple == 1 and all(
            (port.dtype, port.layout, port.channels, port.white) == ordinary
            for port in (self.input, self.output)
        )
