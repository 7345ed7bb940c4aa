"""Page-locked and device memory for one input and one output, kept from run to run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from swise_engines.cuda import Cuda, DeviceBuffer, HostBuffer, Stream


@dataclass(frozen=True, slots=True)
class Channel:
    """One tensor's memory: on the CPU, page-locked, and on the GPU.

    On a GPU that shares the CPU's memory both are the same, and nothing is copied.
    """

    host: HostBuffer
    device: DeviceBuffer | None

    @property
    def pointer(self) -> int:
        """Address on the GPU."""
        return self.host.pointer if self.device is None else self.device.pointer

    def release(self) -> None:
        """Give the memory back."""
        self.host.release()
        if self.device is not None:
            self.device.release()


class BufferPool:
    """The memory of one runner. It is taken anew only where a shape changes.

    Attributes:
        lr: Of the input.
        sr: Of the output.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.lr: Channel | None = None
        self.sr: Channel | None = None

    def fit(
        self,
        lr_shape: tuple[int, ...],
        sr_shape: tuple[int, ...],
        dtype: DTypeLike,
        *,
        on_change: Callable[[], None],
    ) -> tuple[Channel, Channel]:
        """Memory for these shapes.

        Args:
            lr_shape: Of the input.
            sr_shape: Of the output.
            dtype: Of both.
            on_change: Called before memory that may still be recorded somewhere is given back.

        Raises:
            SwiseError: There is not enough.
        """
        if self.lr is not None and self.sr is not None and self._shapes == (lr_shape, sr_shape):
            return self.lr, self.sr
        on_change()
        self.release()
        self.lr = self._take(lr_shape, dtype)
        self.sr = self._take(sr_shape, dtype)
        self._shapes = (lr_shape, sr_shape)
        return self.lr, self.sr

    def _take(self, shape: tuple[int, ...], dtype: DTypeLike) -> Channel:
        is_shared = self._cuda.device.is_integrated
        host = self._cuda.allocate_host(shape, dtype, mapped=is_shared)
        if is_shared:
            return Channel(host, None)
        try:
            size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            return Channel(host, self._cuda.allocate(size_bytes))
        except BaseException:
            host.release()
            raise

    def upload(self, stream: Stream) -> None:
        """Send the input, unless the GPU sees it anyway."""
        if self.lr is not None and self.lr.device is not None:
            self._cuda.upload(stream, self.lr.device, self.lr.host)

    def download(self, stream: Stream) -> None:
        """Fetch the output, unless it is here anyway."""
        if self.sr is not None and self.sr.device is not None:
            self._cuda.download(stream, self.sr.host, self.sr.device)

    def release(self) -> None:
        """Give everything back; harmless when there is nothing."""
        for channel in (self.lr, self.sr):
            if channel is not None:
                channel.release()
        self.lr = self.sr = self._shapes = None
