"""The part of CUDA that running an engine needs, behind one interface.

Two packages provide it: cuda-python, which installs from wheels and has CUDA graphs, and pycuda,
which many Jetsons have and which compiles on the device. A runner's name contains the package.
"""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from swise_deploy.command.dependencies import install_command
from swise_deploy.errors import BackendMissingError, SwiseError

MIB = 1 << 20

Binding = Literal["cuda-python", "pycuda"]

# Package and module of each binding, in the order of preference.
BINDINGS: dict[Binding, tuple[str, str]] = {
    "cuda-python": ("cuda", "swise_engines.cuda.cuda_python"),
    "pycuda": ("pycuda", "swise_engines.cuda.pycuda"),
}


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU.

    Attributes:
        name: As its driver calls it.
        sm: Compute capability, such as "8.7".
        is_integrated: Whether it shares the CPU's memory.
        driver_cuda: The newest CUDA version that its driver supports, such as "12.6".
    """

    name: str
    sm: str
    is_integrated: bool
    driver_cuda: str


@dataclass(frozen=True, slots=True)
class DeviceBuffer:
    """GPU memory."""

    pointer: int
    size_bytes: int
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """Page-locked CPU memory; `pointer` is its address on the GPU, 0 if it is not mapped."""

    array: NDArray[np.generic]
    pointer: int
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stream:
    """A queue of GPU work; `handle` is the binding's own object for it."""

    pointer: int
    handle: object
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Graph:
    """A captured CUDA graph, which launches as one piece."""

    launch: Callable[[Stream], None]
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Timer:
    """Two CUDA events on a stream, and the GPU time between them in milliseconds."""

    start: Callable[[Stream], None]
    stop: Callable[[Stream], None]
    elapsed_ms: Callable[[], float]
    release: Callable[[], None]


class Cuda(Protocol):
    """One GPU through one binding. Call everything but `use` inside `with cuda.use():`."""

    @property
    def name(self) -> str:
        """Binding and version, such as "cuda-python 13.0"."""

    @property
    def device(self) -> Device:
        """The GPU."""

    @property
    def has_graphs(self) -> bool:
        """True if the binding supports `capture`."""

    def use(self) -> AbstractContextManager[None]:
        """Make the GPU's primary context current on this thread."""

    def free_memory(self) -> tuple[int, int]:
        """Free and total bytes."""

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Allocate GPU memory.

        Raises:
            SwiseError: Too little is free; the message states the sizes.
        """

    def allocate_host(
        self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool
    ) -> HostBuffer:
        """Allocate page-locked CPU memory, visible to the GPU if `mapped`."""

    def create_stream(self) -> Stream:
        """Create a stream that does not wait for other streams."""

    def synchronize(self, stream: Stream) -> None:
        """Wait until all work on the stream is done."""

    def upload(self, stream: Stream, target: DeviceBuffer, source: NDArray[np.generic]) -> None:
        """Copy page-locked memory to the GPU, after the work that is on the stream."""

    def download(self, stream: Stream, target: NDArray[np.generic], source: DeviceBuffer) -> None:
        """Copy from the GPU to page-locked memory, after the work that is on the stream."""

    def create_timer(self) -> Timer:
        """Create a pair of events that measures GPU time."""

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """Capture the work that `enqueue` puts on the stream, without running it."""


def open_cuda(binding: Binding | None = None, *, index: int = 0) -> Cuda:
    """Open a GPU with the given binding, or with the first binding that works.

    Raises:
        BackendMissingError: No binding is installed, or none finds a GPU; the message has the
            reason of each.
    """
    requested = [binding] if binding is not None else list(BINDINGS)
    installed = [name for name in requested if importlib.util.find_spec(BINDINGS[name][0])]
    if not installed:
        raise BackendMissingError(
            f"running an engine needs {' or '.join(requested)}, which is not installed. Install it "
            f"with: {install_command('rtx')} (on a Jetson: {install_command('tensorrt')})"
        )
    reasons = []
    for name in installed:
        opened, reason = _try_open(name, index)
        if opened is not None:
            return opened
        reasons.append(reason)
    raise BackendMissingError("; ".join(reasons))


def _try_open(binding: Binding, index: int) -> tuple[Cuda | None, str]:
    try:
        return importlib.import_module(BINDINGS[binding][1]).open_device(index), ""
    except BackendMissingError as error:
        return None, str(error)


@dataclass(frozen=True, slots=True)
class GpuAtHand:
    """The GPU of this machine, or the reason why none can be used."""

    cuda: Cuda | None
    reason: str = ""

    @property
    def device(self) -> Device | None:
        """Its description; None without a GPU."""
        return None if self.cuda is None else self.cuda.device


def find_gpu() -> GpuAtHand:
    """Look for a GPU; a machine without one is not an error."""
    try:
        return GpuAtHand(open_cuda())
    except BackendMissingError as error:
        return GpuAtHand(None, str(error))


def out_of_memory(needed_bytes: int, free_bytes: int, total_bytes: int, purpose: str) -> SwiseError:
    """The error of an allocation that did not fit."""
    return SwiseError(
        f"out of GPU memory: {purpose} needs {needed_bytes / MIB:.0f} MiB, but "
        f"{free_bytes / MIB:.0f} of {total_bytes / MIB:.0f} MiB are free. Close other programs "
        "that use the GPU, build the engine for smaller pictures (swise-build --size), or upscale "
        "in smaller tiles"
    )
