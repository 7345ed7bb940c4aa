"""Conversion of pictures between runners and ONNX files of any convention.

Runners take and give (N, 3, H, W) float32 RGB in [0, 1]. A file may expect half precision, values
in 0..255, channels last, luma alone, or sides that are multiples of a window. This module converts
for every runtime.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from swise_deploy.pictures.imresize import imresize
from swise_export.interface.ports import Interface, Port

_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
"""Full-range luma of ITU-R BT.601, as JFIF has it: a grey picture is its own luma."""


class PictureAdapter:
    """Converts batches for one interface.

    Args:
        interface: Pictures that the file takes and gives.
    """

    def __init__(self, interface: Interface) -> None:
        self.interface = interface

    def encode(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        """Convert a batch to the file's input.

        Args:
            lr: (N, 3, H, W) float32 in [0, 1]; (N, H, W, 3) uint8 where the interface's io is
                "uint8".

        Returns:
            The batch in the file's element type, layout, channels and range, its sides mirrored up
            to the required multiple.
        """
        if self.interface.is_ordinary:
            return lr
        port = self.interface.input
        pictures = np.asarray(lr, np.float32)
        if port.channels == 1:
            pictures = _luma(pictures)
        elif port.channels == 4:
            opaque = np.ones_like(pictures[:, :1])
            pictures = np.concatenate([pictures, opaque], axis=1)
        return _in_form(_padded(pictures, self.interface.multiple), port)

    def decode(self, sr: NDArray[np.number], lr: NDArray[np.number]) -> NDArray[np.number]:
        """Convert the file's output to a runner's output.

        Args:
            sr: The file's output for `encode(lr)`.
            lr: The batch that was encoded: the output is cropped to its size times the scale, and
                a file of luma takes chroma from it.

        Returns:
            (N, 3, H*scale, W*scale) float32, not clamped; uint8 where the io is "uint8".
        """
        if self.interface.is_ordinary:
            return sr
        port, scale = self.interface.output, self.interface.scale
        values = sr.transpose(0, 3, 1, 2) if port.layout == "NHWC" else sr
        height, width = lr.shape[2] * scale, lr.shape[3] * scale
        pictures = np.asarray(values[:, :, :height, :width], np.float32)
        if port.white != 1:
            pictures = pictures / np.float32(port.white)
        if port.channels == 1:
            pictures = _with_chroma(pictures, np.asarray(lr, np.float32), scale)
        return np.ascontiguousarray(pictures[:, :3])


def _in_form(pictures: NDArray[np.float32], port: Port) -> NDArray[np.number]:
    if port.white != 1:
        pictures = pictures * np.float32(port.white)
    if port.layout == "NHWC":
        pictures = pictures.transpose(0, 2, 3, 1)
    if port.dtype == "uint8":
        pictures = np.rint(np.clip(pictures, 0, 255))
    return np.ascontiguousarray(pictures, port.dtype)


def _padded(pictures: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
    """Mirror the bottom and right edges up to a multiple."""
    height, width = pictures.shape[2:]
    below, beside = -height % multiple, -width % multiple
    if not below and not beside:
        return pictures
    # Reflection without the edge, as networks pad; a single row or column can only be repeated.
    for axis, length, extra in ((2, height, below), (3, width, beside)):
        if extra:
            beyond = [(0, 0)] * 4
            beyond[axis] = (0, extra)
            pictures = np.pad(pictures, beyond, mode="reflect" if length > 1 else "edge")
    return pictures


def _luma(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luma of (N, 3, H, W) in [0, 1]: (N, 1, H, W) in [0, 1]."""
    weights = _LUMA_WEIGHTS[None, :, None, None]
    return np.asarray((pictures * weights).sum(axis=1, keepdims=True), np.float32)


def _with_chroma(
    luma: NDArray[np.float32], lr: NDArray[np.float32], scale: int
) -> NDArray[np.float32]:
    """Join upscaled luma with the chroma of `lr`, enlarged by MATLAB's bicubic.

    The same amount added to R, G and B changes luma by that amount and leaves chroma alone, so the
    difference of luma is added to the enlarged picture.
    """
    channels_last = lr.transpose(0, 2, 3, 1).astype(np.float64)
    resized = np.stack([imresize(picture, Fraction(scale)) for picture in channels_last])
    enlarged = resized.transpose(0, 3, 1, 2).astype(np.float32)
    return enlarged + (luma - _luma(enlarged))
