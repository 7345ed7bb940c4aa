"""Page-locked and GPU memory for one input and one output, kept from run to run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from swise_engines.cuda.boundary import Cuda, DeviceBuffer, HostBuffer, Stream


@dataclass(frozen=True, slots=True)
class Channel:
    """Memory of one tensor: page-locked on the CPU, and on the GPU.

    A GPU that shares the CPU's memory uses the same memory, and nothing is copied.
    """

    host: HostBuffer
    device: DeviceBuffer | None

    @property
    def pointer(self) -> int:
        """Address on the GPU."""
        return self.host.pointer if self.device is None else self.device.pointer

    @property
    def size_bytes(self) -> int:
        """Its capacity."""
        return self.host.array.nbytes

    def view(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.number]:
        """The start of its CPU memory, as a tensor."""
        flat: NDArray[np.number] = self.host.array[: _size_of(shape, dtype)].view(dtype)
        return flat.reshape(shape)

    def release(self) -> None:
        """Free the memory."""
        self.host.release()
        if self.device is not None:
            self.device.release()


def _size_of(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


class BufferPool:
    """The memory of one runner. It grows to the largest shape so far, and never shrinks.

    Args:
        cuda: The GPU.
        on_move: Called before memory is freed, because a captured graph may contain its address.
    """

    def __init__(self, cuda: Cuda, on_move: Callable[[], None]) -> None:
        self._cuda = cuda
        self._on_move = on_move
        self._channels: list[Channel] = []

    def fit(
        self, lr: tuple[tuple[int, ...], DTypeLike], sr: tuple[tuple[int, ...], DTypeLike]
    ) -> tuple[Channel, Channel]:
        """Memory for an input and an output of these shapes and types.

        Raises:
            SwiseError: Too little is free.
        """
        sizes = [_size_of(shape, dtype) for shape, dtype in (lr, sr)]
        held = [channel.size_bytes for channel in self._channels] or [0, 0]
        if any(size > have for size, have in zip(sizes, held, strict=True)):
            self.release()
            try:
                for size, have in zip(sizes, held, strict=True):
                    self._channels.append(self._allocate(max(size, have)))
            except BaseException:
                self.release()
                raise
        lr_memory, sr_memory = self._channels
        return lr_memory, sr_memory

    def _allocate(self, size_bytes: int) -> Channel:
        is_shared = self._cuda.device.is_integrated
        host = self._cuda.allocate_host((size_bytes,), np.uint8, mapped=is_shared)
        if is_shared:
            return Channel(host, None)
        try:
            return Channel(host, self._cuda.allocate(size_bytes))
        except BaseException:
            host.release()
            raise

    def upload(self, stream: Stream, lr: Channel, array: NDArray[np.generic]) -> None:
        """Copy an input from `lr` to the GPU, unless the GPU shares the CPU's memory."""
        if lr.device is not None:
            self._cuda.upload(stream, lr.device, array)

    def download(self, stream: Stream, array: NDArray[np.generic], sr: Channel) -> None:
        """Copy an output from the GPU to `sr`, unless the GPU shares the CPU's memory."""
        if sr.device is not None:
            self._cuda.download(stream, array, sr.device)

    def release(self) -> None:
        """Free all memory; does nothing when there is none."""
        if self._channels:
            self._on_move()
        while self._channels:
            self._channels.pop().release()
