"""The precision of a built engine, read from the engine itself on the GPU that it is for."""

from types import ModuleType

from swise_deploy.command.interrupts import HeldInterrupts
from swise_deploy.errors import BackendMissingError, BuildError
from swise_engines.cuda.boundary import Cuda
from swise_engines.tensorrt.api import Api, Messages, create_runtime
from swise_engines.tensorrt.layer_types import layers_from_inspector
from swise_engines.tensorrt.onnx_source import EngineSource
from swise_engines.tensorrt.precision_table import PrecisionTable, table_from_layers
from swise_engines.tensorrt.profiles import Profile

# A name in EngineInvalidityDiagnostics; the log has the reason in a note, not in an error.
_UNSUPPORTED_GPU = "unsupported_cc"


def deserialize(
    trt: ModuleType, plan: bytes, messages: Messages, *, dla_core: int | None = None
) -> tuple[Api, Api]:
    """Load an engine; returns the runtime, which has to outlive it, and the engine.

    Args:
        trt: The TensorRT that built it.
        plan: The engine.
        messages: TensorRT's log.
        dla_core: The deep-learning accelerator that it was built for, if any.

    Raises:
        BackendMissingError: TensorRT does not start on this machine, or the GPU is not one that
            the engine is for.
        BuildError: TensorRT refuses it, with its reasons.
    """
    runtime = create_runtime(trt, messages)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # version-compatible engines carry their runtime
    check_validity(trt, runtime, plan, messages)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(
            f"TensorRT {trt.__version__} cannot load the engine: {messages.explain()}. "
            "Build it again on this device with swise-build --target current"
        )
    return runtime, engine


def check_validity(trt: ModuleType, runtime: Api, plan: bytes, messages: Messages) -> None:
    """Let TensorRT check an engine's header before the engine is loaded, where its release can.

    Raises:
        BackendMissingError: The engine is for other GPUs.
        BuildError: It is not an engine, or it is for another version or driver.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(plan)
    if validity == trt.EngineValidity.INVALID:
        known = trt.EngineInvalidityDiagnostics.__members__.items()
        reasons = [name.lower() for name, flag in known if int(flag) & int(diagnostics)]
        log = f" ({messages.explain()})" * bool(messages.errors or messages.notes)
        kind = BackendMissingError if _UNSUPPORTED_GPU in reasons else BuildError
        raise kind(
            f"TensorRT {trt.__version__} refuses the engine: "
            f"{', '.join(reasons) or 'no reason'}{log}. {_advise(reasons)}"
        )


def _advise(reasons: list[str]) -> str:
    if _UNSUPPORTED_GPU in reasons:
        return (
            "Build it again on this device with swise-build --target current; where that one is "
            "refused too, TensorRT for RTX does not serve this GPU, but TensorRT may: "
            "pip install 'tensorrt<12', then swise-build --backend tensorrt"
        )
    return "Build it again on this device with swise-build --target current"


def read_back(
    trt: ModuleType,
    plan: bytes,
    source: EngineSource,
    profile: Profile,
    cuda: Cuda,
    *,
    dla_core: int | None,
) -> PrecisionTable:
    """Load an engine and sum up its layers by precision, at the typical size of the profile.

    Raises:
        BuildError: It cannot be loaded, or names no types.
    """
    messages = Messages(trt)
    with HeldInterrupts(), cuda.use():  # a Ctrl-C would be lost in the callbacks of TensorRT
        runtime, engine = deserialize(trt, plan, messages, dla_core=dla_core)
        context = engine.create_execution_context()
        if context is None:
            raise BuildError(f"no execution context for the engine: {messages.explain()}")
        # With open sizes the inspector reports formats only for the sizes that a context has set.
        port = source.interface.input
        context.set_input_shape(port.name, profile.opt.shape(port))
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        table = table_from_layers(layers_from_inspector(text), source.counts, "built engine")
        # In this order, while the GPU is current: an engine has to outlive what was made from it.
        del inspector
        del context
        del engine
        del runtime
    return table
