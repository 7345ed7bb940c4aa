"""An engine in memory: checked, loaded once, shared by the runners of several threads."""

import logging
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from swise_deploy.command.interrupts import HeldInterrupts
from swise_deploy.errors import BuildError, InputError, OutputError, SwiseError
from swise_deploy.storage.files import writing
from swise_deploy.storage.ownership import reason_not_own
from swise_engines.cuda.boundary import MIB, Cuda, open_cuda
from swise_engines.running.checks import check_device, check_version, read_engine
from swise_engines.running.engine_cache import EngineCache, default_cache
from swise_engines.running.read_back import deserialize
from swise_engines.targets.catalogue import Backend
from swise_engines.tensorrt.api import Api, Messages, is_installed, load_tensorrt, version_of
from swise_engines.tensorrt.profiles import Profile, extent_of_shape
from swise_export.interface.ports import ElementType, Interface, Port

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The facts of an engine that running it needs."""

    interface: Interface
    profiles: tuple[Profile, ...]


class LoadedEngine:
    """An engine and the GPU that it is loaded on; its contexts may run at the same time.

    Attributes:
        trt: The TensorRT that loaded it.
        backend: Its name.
        cuda: The GPU.
        facts: From its manifest, or from the engine itself where it has none and is trusted.
    """

    def __init__(
        self,
        path: Path,
        *,
        trust: bool = False,
        backend: Backend | None = None,
        cache: EngineCache | None = None,
        cuda: Cuda | None = None,
        use_graphs: bool = True,
    ) -> None:
        """Check a file and load it.

        Args:
            path: The engine.
            trust: Load it even without a manifest.
            backend: Which TensorRT, for an engine without a manifest.
            cache: Where TensorRT for RTX keeps the kernels that it compiles; None is the user's.
            cuda: The GPU; None opens the first.
            use_graphs: Whether TensorRT for RTX captures CUDA graphs by itself.

        Raises:
            InputError: It is not the file that its manifest describes, or it is for another device
                or version.
            BackendMissingError: TensorRT or the GPU is missing.
            BuildError: TensorRT refuses it.
        """
        plan, manifest = read_engine(path, trust=trust)
        self.backend = manifest.backend if manifest is not None else _backend_here(backend)
        self.trt: ModuleType = load_tensorrt(self.backend)
        if manifest is not None:
            check_version(path, manifest, version_of(self.trt))
        self.cuda = cuda if cuda is not None else open_cuda()
        if manifest is not None:
            check_device(path, manifest, self.cuda.device)
        self._messages = Messages(self.trt)
        self._cache = cache if cache is not None else default_cache()
        dla_core = None if manifest is None else manifest.dla_core
        # An exception is lost in the callbacks of TensorRT, and so a Ctrl-C would be.
        with HeldInterrupts(), self.cuda.use():
            self._runtime, self._engine = deserialize(
                self.trt, plan, self._messages, dla_core=dla_core
            )
            if manifest is None:
                self.facts = _facts_of(path, self.trt, self._engine)
            else:
                self.facts = EngineFacts(manifest.interface, manifest.profiles)
            # Kept kernels are compared with the GPU that is current.
            self._config = (
                self._runtime_config(use_graphs=use_graphs)
                if self.backend == "tensorrt_rtx"
                else None
            )

    @property
    def name(self) -> str:
        """TensorRT, binding and GPU, such as "tensorrt 10.3, cuda-python 13.0, NVIDIA L4"."""
        version = version_of(self.trt)
        return f"{self.backend} {version}, {self.cuda.name}, {self.cuda.device.name}"

    def _runtime_config(self, *, use_graphs: bool) -> Api:
        """TensorRT for RTX compiles kernels for the GPU on first use, and captures CUDA graphs."""
        config = self._engine.create_runtime_config()
        strategy = self.trt.CudaGraphStrategy
        config.cuda_graph_strategy = (
            strategy.WHOLE_GRAPH_CAPTURE if use_graphs else strategy.DISABLED
        )
        self._kernels: Api = config.create_runtime_cache()
        path = self._kernel_path
        if path.exists():
            reason = reason_not_own(path)
            if reason or not self._kernels.deserialize(path.read_bytes()):
                reason = reason or f"{path} is damaged or of another version"
                logger.warning("kept kernels are not used, but compiled again: %s", reason)
        config.set_runtime_cache(self._kernels)
        return config

    @property
    def _kernel_path(self) -> Path:
        return self._cache.runtime_path(version_of(self.trt), self.cuda.device.name)

    def create_context(self) -> Api:
        """Create the state of one stream of runs; one thread at a time may use it.

        Raises:
            SwiseError: There is too little memory for it; the message states the sizes.
        """
        with HeldInterrupts(), self.cuda.use():
            free, total = self.cuda.free_memory()
            context = (
                self._engine.create_execution_context()
                if self._config is None
                else self._engine.create_execution_context(self._config)
            )
        if context is None:
            wanted = getattr(self._engine, "device_memory_size_v2", None)
            if wanted is None:
                wanted = self._engine.device_memory_size
            raise SwiseError(
                f"no execution context: the engine's largest profile needs {wanted / MIB:.0f} MiB "
                f"of GPU memory, {free / MIB:.0f} of {total / MIB:.0f} MiB are free: "
                f"{self._messages.explain()}. Build it for smaller pictures with swise-build --size"
            )
        return context

    def explain(self) -> str:
        """The errors of TensorRT, as one line."""
        return self._messages.explain()

    def close(self) -> None:
        """Keep compiled kernels and unload the engine; no context of it may exist."""
        with self.cuda.use():
            if self._config is not None:
                self._keep_kernels()
                self._kernels = None
            self._config = self._engine = self._runtime = None

    def _keep_kernels(self) -> None:
        kernels = self._kernels.serialize()
        if kernels is None:
            logger.warning("compiled kernels are not kept: %s", self._messages.explain())
            return
        try:
            with writing(self._kernel_path) as temporary:
                temporary.write_bytes(bytes(kernels))
            self._kernel_path.chmod(0o600)
        except OutputError as error:
            logger.warning("compiled kernels are not kept: %s", error)


def _backend_here(backend: Backend | None) -> Backend:
    if backend is not None:
        return backend
    return "tensorrt" if is_installed("tensorrt") else "tensorrt_rtx"


def _facts_of(path: Path, trt: ModuleType, engine: Api) -> EngineFacts:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    outputs = [n for n in names if n not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"{path} takes {', '.join(inputs)} and gives {', '.join(outputs)}; expected one batch "
            "of pictures in and one out"
        )
    taken = _port_of(path, trt, engine, inputs[0])
    profiles = tuple(
        Profile(*(extent_of_shape(tuple(shape), taken) for shape in shapes))
        for shapes in (
            engine.get_tensor_profile_shape(inputs[0], index)
            for index in range(engine.num_optimization_profiles)
        )
    )
    context = engine.create_execution_context()
    if context is None:
        raise BuildError(f"{path} gives no execution context")
    typical = profiles[0].opt
    context.set_input_shape(inputs[0], typical.shape(taken))
    given = _port_of(path, trt, engine, outputs[0])
    enlarged = extent_of_shape(tuple(context.get_tensor_shape(outputs[0])), given)
    return EngineFacts(Interface(taken, given, enlarged.width // typical.width), profiles)


def _port_of(path: Path, trt: ModuleType, engine: Api, name: str) -> Port:
    """A tensor of an engine without a manifest: usual ranges, RGB."""
    types: dict[object, ElementType] = {
        trt.DataType.FLOAT: "float32",
        trt.DataType.HALF: "float16",
        trt.DataType.UINT8: "uint8",
    }
    found = engine.get_tensor_dtype(name)
    if found not in types:
        raise InputError(f"{path} has {name} of type {found}; expected float32, float16 or uint8")
    if types[found] == "uint8":
        return Port(name, "uint8", "NHWC", white=255.0)
    return Port(name, types[found])
