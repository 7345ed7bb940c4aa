"""CUDA through pycuda: the driver API with the device's primary context, which TensorRT shares."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError, SwiseError
from swise_engines.cuda.boundary import (
    Device,
    DeviceBuffer,
    Graph,
    HostBuffer,
    Stream,
    Timer,
    out_of_memory,
)
from swise_engines.tensorrt.api import Api

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING of the CUDA driver API


@functools.cache
def open_device(index: int) -> "Pycuda":
    """Open a GPU, once: pycuda leaves a context on its thread when it releases the primary one.

    Raises:
        BackendMissingError: The package is not installed, or it finds no GPU.
    """
    driver = require("pycuda.driver", extra="pycuda", purpose="running an engine")
    return Pycuda(driver, index)


class Pycuda:
    """A GPU through pycuda; see the protocol Cuda. pycuda has no CUDA graphs."""

    has_graphs = False

    def __init__(self, driver: Api, index: int) -> None:
        self._drv = driver
        version = ".".join(map(str, require("pycuda", extra="pycuda", purpose="CUDA").VERSION))
        self.name = f"pycuda {version}"
        try:
            driver.init()
            device = driver.Device(index)
            # The primary context is the one that TensorRT and the CUDA runtime use.
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise BackendMissingError(f"{self.name} finds no GPU: {error}") from error
        cuda = driver.get_driver_version()
        self.device = Device(
            name=device.name(),
            sm="{}.{}".format(*device.compute_capability()),
            is_integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
            driver_cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
        )

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Make the primary context current on this thread."""
        self._context.push()
        try:
            with _translated(self._drv):
                yield
        finally:
            self._context.pop()

    def free_memory(self) -> tuple[int, int]:
        """Free and total bytes."""
        free, total = self._drv.mem_get_info()
        return int(free), int(total)

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Allocate GPU memory."""
        try:
            memory = self._drv.mem_alloc(size_bytes)
        except self._drv.MemoryError as error:
            raise out_of_memory(size_bytes, *self.free_memory(), "a device buffer") from error
        return DeviceBuffer(int(memory), size_bytes, memory.free)

    def allocate_host(
        self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool
    ) -> HostBuffer:
        """Allocate page-locked CPU memory."""
        flags = self._drv.host_alloc_flags.DEVICEMAP if mapped else 0
        try:
            array = self._drv.pagelocked_empty(shape, dtype, mem_flags=flags)
        except self._drv.MemoryError as error:
            size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            raise out_of_memory(size_bytes, *self.free_memory(), "a page-locked buffer") from error
        owner = array.base
        pointer = int(owner.get_device_pointer()) if mapped else 0
        return HostBuffer(array, pointer, owner.free)

    def create_stream(self) -> Stream:
        """Create a stream that does not wait for other streams."""
        # pycuda destroys a stream with its last reference, and outside `use` it cannot.
        held = [self._drv.Stream(_NON_BLOCKING)]
        return Stream(int(held[0].handle), held, held.clear)

    def synchronize(self, stream: Stream) -> None:
        """Wait until all work on the stream is done."""
        _pycuda(stream).synchronize()

    def upload(self, stream: Stream, target: DeviceBuffer, source: NDArray[np.generic]) -> None:
        """Copy from the CPU to the GPU."""
        self._drv.memcpy_htod_async(target.pointer, source, _pycuda(stream))

    def download(self, stream: Stream, target: NDArray[np.generic], source: DeviceBuffer) -> None:
        """Copy from the GPU to the CPU."""
        self._drv.memcpy_dtoh_async(target, source.pointer, _pycuda(stream))

    def create_timer(self) -> Timer:
        """Create a pair of events that measures GPU time."""
        events = [self._drv.Event(), self._drv.Event()]
        return Timer(
            start=lambda stream: events[0].record(_pycuda(stream)),
            stop=lambda stream: events[1].record(_pycuda(stream)),
            elapsed_ms=lambda: float(events[0].time_till(events[1])),
            release=events.clear,
        )

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """Refuse: pycuda has no CUDA graphs.

        Raises:
            BackendMissingError: Always.
        """
        del stream, enqueue
        raise BackendMissingError(
            f"{self.name} has no CUDA graphs. Install cuda-python: pip install cuda-bindings"
        )


def _pycuda(stream: Stream) -> Api:
    (held,) = cast("list[Api]", stream.handle)
    return held


@contextlib.contextmanager
def _translated(driver: Api) -> Iterator[None]:
    try:
        yield
    except driver.Error as error:
        raise SwiseError(f"CUDA failed: {error}") from error
