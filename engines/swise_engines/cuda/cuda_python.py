"""CUDA through cuda-python (the package cuda-bindings): the runtime API and its primary context."""

import contextlib
import ctypes
import math
from collections.abc import Callable, Iterator

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


def open_device(index: int) -> "CudaPython":
    """Open a GPU.

    Raises:
        BackendMissingError: The package is not installed, or it finds no GPU.
    """
    runtime = require("cuda.bindings.runtime", extra="rtx", purpose="running an engine")
    return CudaPython(runtime, index)


class CudaPython:
    """A GPU through cuda-python; see the protocol Cuda."""

    has_graphs = True

    def __init__(self, runtime: Api, index: int) -> None:
        self._rt = runtime
        self._index = index
        version = require("cuda.bindings", extra="rtx", purpose="running an engine").__version__
        self.name = f"cuda-python {version}"
        try:
            self.device = self._read_device()
        except (SwiseError, RuntimeError) as error:  # 12.8 and older: no libcuda is a RuntimeError
            raise BackendMissingError(f"{self.name} finds no GPU: {error}") from error

    def _read_device(self) -> Device:
        attributes = self._rt.cudaDeviceAttr
        driver = int(self._call("cudaDriverGetVersion"))
        runtime = int(self._call("cudaRuntimeGetVersion"))
        if driver == 0:
            raise SwiseError("no NVIDIA driver is installed, or it is not visible here")
        major = driver // 1000
        if major < runtime // 1000:
            raise SwiseError(
                f"the driver supports CUDA {_dotted(driver)}, this package needs "
                f"{_dotted(runtime)}. Update the driver, or: pip install "
                f"'cuda-bindings<{major + 1}'"
            )
        count = self._call("cudaGetDeviceCount")
        if self._index >= count:
            raise SwiseError(f"GPU {self._index} was requested, but the machine has {count}")

        def attribute(which: Api) -> int:
            return int(self._call("cudaDeviceGetAttribute", which, self._index))

        properties = self._call("cudaGetDeviceProperties", self._index)
        major_sm = attribute(attributes.cudaDevAttrComputeCapabilityMajor)
        minor_sm = attribute(attributes.cudaDevAttrComputeCapabilityMinor)
        return Device(
            name=properties.name.decode().rstrip("\0"),
            sm=f"{major_sm}.{minor_sm}",
            is_integrated=bool(attribute(attributes.cudaDevAttrIntegrated)),
            driver_cuda=_dotted(driver),
        )

    def _call(self, name: str, *arguments: object) -> Api:
        error, *results = getattr(self._rt, name)(*arguments)
        if error != self._rt.cudaError_t.cudaSuccess:
            raise self._failure(name, error)
        return results[0] if len(results) == 1 else tuple(results)

    def _failure(self, what: str, error: Api) -> SwiseError:
        self._rt.cudaGetLastError()  # clears it; TensorRT would report it as its own
        _, text = self._rt.cudaGetErrorString(error)
        return SwiseError(f"{what}: {text.decode()} (CUDA error {int(error)})")

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Make the GPU current on this thread."""
        self._call("cudaSetDevice", self._index)
        yield

    def free_memory(self) -> tuple[int, int]:
        """Free and total bytes."""
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Allocate GPU memory."""
        pointer = int(self._allocate("cudaMalloc", size_bytes, "a device buffer", size_bytes))
        return DeviceBuffer(pointer, size_bytes, lambda: self._call("cudaFree", pointer))

    def allocate_host(
        self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool
    ) -> HostBuffer:
        """Allocate page-locked CPU memory."""
        size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        flags = self._rt.cudaHostAllocMapped if mapped else self._rt.cudaHostAllocDefault
        address = int(
            self._allocate("cudaHostAlloc", size_bytes, "a page-locked buffer", size_bytes, flags)
        )
        memory = (ctypes.c_uint8 * size_bytes).from_address(address)
        array = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        pointer = int(self._call("cudaHostGetDevicePointer", address, 0)) if mapped else 0
        return HostBuffer(array, pointer, lambda: self._call("cudaFreeHost", address))

    def _allocate(self, name: str, size_bytes: int, purpose: str, *arguments: object) -> Api:
        error, pointer = getattr(self._rt, name)(*arguments)
        if error == self._rt.cudaError_t.cudaErrorMemoryAllocation:
            self._rt.cudaGetLastError()
            raise out_of_memory(size_bytes, *self.free_memory(), purpose)
        if error != self._rt.cudaError_t.cudaSuccess:
            raise self._failure(f"{name} of {size_bytes} bytes", error)
        return pointer

    def create_stream(self) -> Stream:
        """Create a stream that does not wait for other streams."""
        handle = self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking)
        return Stream(int(handle), handle, lambda: self._call("cudaStreamDestroy", handle))

    def synchronize(self, stream: Stream) -> None:
        """Wait until all work on the stream is done."""
        self._call("cudaStreamSynchronize", stream.handle)

    def upload(self, stream: Stream, target: DeviceBuffer, source: NDArray[np.generic]) -> None:
        """Copy from the CPU to the GPU."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        address = source.ctypes.data
        self._call("cudaMemcpyAsync", target.pointer, address, source.nbytes, kind, stream.handle)

    def download(self, stream: Stream, target: NDArray[np.generic], source: DeviceBuffer) -> None:
        """Copy from the GPU to the CPU."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        address = target.ctypes.data
        self._call("cudaMemcpyAsync", address, source.pointer, target.nbytes, kind, stream.handle)

    def create_timer(self) -> Timer:
        """Create a pair of events that measures GPU time."""
        first, last = (self._call("cudaEventCreate") for _ in range(2))

        def release() -> None:
            for event in (first, last):
                self._call("cudaEventDestroy", event)

        return Timer(
            start=lambda stream: self._call("cudaEventRecord", first, stream.handle),
            stop=lambda stream: self._call("cudaEventRecord", last, stream.handle),
            elapsed_ms=lambda: float(self._call("cudaEventElapsedTime", first, last)),
            release=release,
        )

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """Capture the work that `enqueue` puts on the stream."""
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            enqueue()
        except BaseException:
            self._abandon_capture(stream)
            raise
        captured = self._call("cudaStreamEndCapture", stream.handle)
        try:
            executable = self._call("cudaGraphInstantiate", captured, 0)
        finally:
            self._call("cudaGraphDestroy", captured)
        return Graph(
            launch=lambda on: self._call("cudaGraphLaunch", executable, on.handle),
            release=lambda: self._call("cudaGraphExecDestroy", executable),
        )

    def _abandon_capture(self, stream: Stream) -> None:
        """End a capture that failed, so that the stream is usable again."""
        error, captured = self._rt.cudaStreamEndCapture(stream.handle)
        if error == self._rt.cudaError_t.cudaSuccess:
            self._rt.cudaGraphDestroy(captured)
        self._rt.cudaGetLastError()


def _dotted(version: int) -> str:
    """CUDA's 12060 as 12.6."""
    return f"{version // 1000}.{version % 1000 // 10}"
