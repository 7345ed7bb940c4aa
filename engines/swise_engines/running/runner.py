"""Running a TensorRT engine on a GPU."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.errors import InputError, SwiseError
from swise_deploy.precision import FilePrecision
from swise_deploy.runner import DeviceKind, PictureIO, RunnerContext
from swise_engines.cuda.boundary import Binding, Cuda, Stream, Timer, find_gpu, open_cuda
from swise_engines.cuda.buffers import BufferPool
from swise_engines.cuda.graphs import GraphOfShape
from swise_engines.running.engine_cache import EngineCache
from swise_engines.running.loaded_engine import LoadedEngine
from swise_engines.targets.catalogue import Backend
from swise_engines.tensorrt.api import Api
from swise_engines.tensorrt.manifest import read_manifest
from swise_engines.tensorrt.profiles import Extent, choose_profile, extent_of_shape
from swise_export.interface.adapter import PictureAdapter
from swise_export.interface.ports import Interface
from swise_export.manifest import manifest_path


class EngineRunner(RunnerContext):
    """Runs an engine; a runner belongs to one thread.

    `share()` makes another runner on the same loaded engine, for another thread: it has its own
    execution context, stream and memory. A shape that repeats is replayed as a CUDA graph, if the
    CUDA binding has them.
    """

    runtime = "tensorrt"
    device: DeviceKind = "gpu"

    def __init__(
        self,
        path: Path,
        *,
        trust: bool = False,
        backend: Backend | None = None,
        use_graphs: bool = True,
        cache: EngineCache | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        """Prepare to run an engine; nothing is loaded before `activate`.

        Args:
            path: The engine, with its manifest beside it.
            trust: Run it even without a manifest.
            backend: Which TensorRT made it, for an engine without a manifest.
            use_graphs: Replay repeated shapes as CUDA graphs.
            cache: Where TensorRT for RTX keeps the kernels that it compiles; None is the user's.
            cuda: The GPU; None opens the first.
        """
        self.path = path
        self._trust = trust
        self._backend = backend
        self._use_graphs = use_graphs
        self._cache = cache
        self._cuda = cuda
        self._loaded: LoadedEngine | None = None
        self._owns_engine = True
        self._run: _Run | None = None

    @property
    def name(self) -> str:
        """TensorRT, binding and GPU once it is active; before that the name of the file."""
        return self.path.name if self._loaded is None else self._loaded.name

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.interface.scale

    @property
    def io(self) -> PictureIO:
        """Layout and type of the pictures that it takes and gives."""
        return self.interface.io

    @property
    def interface(self) -> Interface:
        """Input and output of the engine itself.

        Raises:
            InputError: The engine has no manifest and is not active.
        """
        if self._loaded is not None:
            return self._loaded.facts.interface
        manifest = read_manifest(self.path)
        if manifest is None:
            raise _no_manifest(self.path, "pictures")
        return manifest.interface

    @property
    def precision(self) -> FilePrecision | None:
        """Precision that the engine was built for; None where no manifest states it."""
        manifest = read_manifest(self.path)
        return None if manifest is None else manifest.precision_asked or None

    @property
    def form(self) -> str:
        """Form of the graph that it was built from; "" where no manifest states it."""
        manifest = read_manifest(self.path)
        return "" if manifest is None else manifest.source.get("form", "")

    @property
    def gpu_ms(self) -> float:
        """GPU time of the last `infer` in milliseconds, without copies."""
        assert self._run is not None, "gpu_ms before activate"
        return self._run.gpu_ms

    def activate(self) -> None:
        """Check the file and load it; raises what `LoadedEngine` raises."""
        if self._run is not None:
            return
        if self._loaded is None:
            self._loaded = LoadedEngine(
                self.path,
                trust=self._trust,
                backend=self._backend,
                cache=self._cache,
                cuda=self._cuda,
                use_graphs=self._use_graphs,
            )
        try:
            self._run = _Run(self._loaded, use_graphs=self._use_graphs)
        except BaseException:
            self.deactivate()
            raise

    def share(self) -> "EngineRunner":
        """Make a runner for another thread on the same loaded engine; close it before this one."""
        assert self._loaded is not None, "share before activate"
        other = EngineRunner(self.path, use_graphs=self._use_graphs)
        other._loaded, other._owns_engine = self._loaded, False
        return other

    def infer(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        """Upscale a batch: (N, 3, H, W) float32 in [0, 1], or (N, H, W, 3) uint8, by `io`.

        Raises:
            InputError: Another type or layout, or a size that no profile takes.
            SwiseError: Out of memory, or TensorRT failed.
        """
        assert self._run is not None, "infer before activate"
        return self._run.infer(lr)

    def deactivate(self) -> None:
        """Free the memory, and the engine if this runner loaded it."""
        if self._run is not None:
            self._run.close()
            self._run = None
        if self._loaded is not None and self._owns_engine:
            self._loaded.close()
            self._loaded = None


class _Run:
    """Context, stream, memory and graph of one thread."""

    def __init__(self, loaded: LoadedEngine, *, use_graphs: bool) -> None:
        self._loaded = loaded
        self._cuda = loaded.cuda
        self._context: Api = loaded.create_context()
        with self._cuda.use():
            self._stream: Stream = self._cuda.create_stream()
            self._timer: Timer = self._cuda.create_timer()
        self._buffers = BufferPool(self._cuda, self._forget_graph)
        self._adapter = PictureAdapter(loaded.facts.interface)
        # TensorRT for RTX captures graphs by itself, by its runtime configuration.
        is_ours = use_graphs and self._cuda.has_graphs and loaded.backend == "tensorrt"
        self._graphs = GraphOfShape(self._cuda) if is_ours else None
        self._profile = 0
        self._addressed: tuple[int, tuple[int, ...], int, int] | None = None
        self.gpu_ms = 0.0

    def infer(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        interface = self._loaded.facts.interface
        expected = np.dtype(np.uint8 if interface.io == "uint8" else np.float32)
        if lr.dtype != expected:
            raise InputError(f"input of type {lr.dtype}; this engine takes {expected}")
        return self._adapter.decode(self._run_batch(self._adapter.encode(lr)), lr)

    def _run_batch(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        """Run a batch in the engine's own form."""
        facts = self._loaded.facts
        taken, given, scale = facts.interface.input, facts.interface.output, facts.interface.scale
        extent = extent_of_shape(lr.shape, taken)
        profile = choose_profile(facts.profiles, extent)
        enlarged = Extent(extent.batch, extent.width * scale, extent.height * scale)
        with self._cuda.use():
            sr_shape = enlarged.shape(given)
            lr_memory, sr_memory = self._buffers.fit(
                (lr.shape, taken.dtype), (sr_shape, given.dtype)
            )
            self._address(profile, lr.shape, lr_memory.pointer, sr_memory.pointer)
            source = lr_memory.view(lr.shape, taken.dtype)
            result = sr_memory.view(sr_shape, given.dtype)
            np.copyto(source, lr)
            self._buffers.upload(self._stream, lr_memory, source)
            self._timer.start(self._stream)
            if self._graphs is None:
                self._enqueue()
            else:
                self._graphs.run(self._stream, lr.shape, self._enqueue)
            self._timer.stop(self._stream)
            self._buffers.download(self._stream, result, sr_memory)
            self._cuda.synchronize(self._stream)
            self.gpu_ms = self._timer.elapsed_ms()
            return result.copy()

    def _address(self, profile: int, shape: tuple[int, ...], lr: int, sr: int) -> None:
        if self._addressed == (profile, shape, lr, sr):
            return
        interface = self._loaded.facts.interface
        taken, given = interface.input.name, interface.output.name
        context = self._context
        self._addressed = None  # unless all of it succeeds
        self._forget_graph()
        if profile != self._profile:
            if not context.set_optimization_profile_async(profile, self._stream.pointer):
                raise SwiseError(f"TensorRT refuses profile {profile}: {self._loaded.explain()}")
            self._cuda.synchronize(self._stream)
            self._profile = profile
        if not context.set_input_shape(taken, shape):
            raise SwiseError(f"TensorRT refuses shape {shape}: {self._loaded.explain()}")
        for name, address in ((taken, lr), (given, sr)):
            if not context.set_tensor_address(name, address):
                raise SwiseError(f"TensorRT refuses memory for {name}: {self._loaded.explain()}")
        self._addressed = (profile, shape, lr, sr)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.pointer):
            raise SwiseError(f"TensorRT failed to run: {self._loaded.explain()}")

    def _forget_graph(self) -> None:
        if self._graphs is not None:
            self._graphs.forget()

    def close(self) -> None:
        with self._cuda.use():
            self._cuda.synchronize(self._stream)
            self._forget_graph()
            self._buffers.release()
            self._timer.release()
            self._context = None
            self._stream.release()


def _no_manifest(engine: Path, fact: str) -> InputError:
    return InputError(
        f"{engine} has no manifest ({manifest_path(engine).name} beside it), which states its "
        f"{fact}. Copy that file too, or build it again with swise-build. To trust it anyway, "
        "activate EngineRunner(path, trust=True) first"
    )


def open_runner(
    path: Path,
    *,
    threads: int | None = None,
    binding: Binding | None = None,
    use_graphs: bool = True,
) -> EngineRunner:
    """Open an engine on the first GPU; CPU threads do not matter to it."""
    del threads
    cuda = None if binding is None else open_cuda(binding)
    return EngineRunner(path, cuda=cuda, use_graphs=use_graphs)


def describe() -> str:
    """The GPU and the driver that engines run on."""
    device = find_gpu().device
    return "no GPU" if device is None else f"{device.name}, driver for CUDA {device.driver_cuda}"


def unusable_reason() -> str:
    """The reason why no engine can run here; "" where one can."""
    return "" if find_gpu().device is not None else "no GPU that this process can use"
