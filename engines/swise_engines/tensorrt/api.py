"""The import of TensorRT, and the differences of its versions.

`tensorrt` (JetPack, data centre) and `tensorrt_rtx` (TensorRT for RTX) have the same classes. The
way to set the builder's precision changed twice: `plan_typing` states it as data, which can be
tested on machines that have none of these versions.
"""

import functools
import importlib
import logging
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError
from swise_engines.targets.catalogue import Backend
from swise_engines.tensorrt.startup import Part, check_start

logger = logging.getLogger(__name__)

EXTRAS: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}

# 8.5 brought tensor names and execute_async_v3, which everything here uses.
OLDEST_TENSORRT = (8, 5)

Api = Any
"""A TensorRT module or an object of one: its bindings carry no types."""


@dataclass(frozen=True, slots=True)
class TypingPlan:
    """The way to set the precision in one release of TensorRT.

    Attributes:
        creation_flags: Names in NetworkDefinitionCreationFlag: STRONGLY_TYPED where the types of
            the graph are the precision, which the builder may not change. A name that a release
            lacks is its default.
        builder_flags: Names in BuilderFlag.
        pins_layers: Whether every layer gets the type that the ONNX file gives it; otherwise the
            builder would choose among the allowed types by speed.
    """

    creation_flags: tuple[str, ...]
    builder_flags: tuple[str, ...] = ()
    pins_layers: bool = False


def plan_typing(
    backend: Backend, version: str, precisions: Collection[str], *, on_dla: bool = False
) -> TypingPlan:
    """Choose the flags that build a graph with the given precisions.

    TensorRT 11 and TensorRT for RTX know strongly typed networks only; 10 knows both, 8 only weakly
    typed ones. (NVIDIA, TensorRT 11 migration guide; TensorRT 8.6 developer guide, "Reduced
    precision".)

    Args:
        backend: Which TensorRT.
        version: Its version, such as "10.3.0.30".
        precisions: Precisions of the layers of the graph: "fp32", "fp16", "bf16", "int8", "fp8".
        on_dla: Whether it is for a DLA core, for which TensorRT 10 needs weak typing.

    Raises:
        BackendMissingError: The version is too old.
    """
    if backend == "tensorrt_rtx":
        return TypingPlan(creation_flags=("STRONGLY_TYPED",))
    release = release_of(version)
    if release < OLDEST_TENSORRT:
        raise BackendMissingError(
            f"TensorRT {version} is too old: {OLDEST_TENSORRT[0]}.{OLDEST_TENSORRT[1]} or later is "
            "needed. Update JetPack (5.1 brings TensorRT 8.5, 6.0 brings 8.6)"
        )
    if release >= (11, 0) or (release >= (10, 0) and not on_dla):
        return TypingPlan(creation_flags=("STRONGLY_TYPED",))
    lacking = [name for name in ("bf16", "fp8") if name in precisions]
    if lacking:
        where = "a DLA core has" if release >= (10, 0) else f"TensorRT {version} has"
        raise BackendMissingError(
            f"{where} no {' and no '.join(lacking)}; expected "
            f"{'a file' if on_dla else 'TensorRT 10 or later, or a file'} in fp32, fp16 or INT8. "
            "Export with --fp16"
        )
    flags = [name.upper() for name in ("fp16", "int8") if name in precisions]
    return TypingPlan(
        creation_flags=("EXPLICIT_BATCH",),
        builder_flags=(*flags, "OBEY_PRECISION_CONSTRAINTS"),
        pins_layers=True,
    )


def release_of(version: str) -> tuple[int, int]:
    """Major and minor of a version such as "10.3.0.30"."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def load_tensorrt(backend: Backend) -> ModuleType:
    """Import a TensorRT.

    Raises:
        BackendMissingError: It is not installed, or its libraries do not load.
    """
    if backend == "tensorrt_rtx":
        return require(backend, extra=EXTRAS[backend], purpose="an engine of TensorRT for RTX")
    try:
        return importlib.import_module(backend)
    except (ImportError, OSError) as error:  # no extra installs it: it has to fit the device
        raise BackendMissingError(
            f"a TensorRT engine needs the package 'tensorrt', which does not import here: {error}. "
            "JetPack has it as a system package, which a virtual environment sees with "
            "--system-site-packages; elsewhere: pip install 'tensorrt<12'. swise-doctor has details"
        ) from error


def wheel_for(driver_cuda: str) -> str:
    """The requirement that installs `tensorrt`: for CUDA 13, or for 12 where the driver is older.

    Args:
        driver_cuda: The newest CUDA that the driver supports, such as "12.6"; "" if unknown.
    """
    return "tensorrt-cu12<12" if driver_cuda.startswith("12.") else "tensorrt<12"


def is_installed(backend: Backend) -> bool:
    """True if a TensorRT can be imported here."""
    try:
        load_tensorrt(backend)
    except BackendMissingError:
        return False
    return True


def version_of(trt: ModuleType) -> str:
    """The version of an imported TensorRT."""
    return str(trt.__version__)


def create_builder(trt: ModuleType, messages: "Messages") -> Api:
    """Create TensorRT's builder.

    Raises:
        BackendMissingError: TensorRT does not start on this machine.
    """
    return _start("Builder", trt, messages)


def create_runtime(trt: ModuleType, messages: "Messages") -> Api:
    """Create the object that loads engines; it has to outlive them.

    Raises:
        BackendMissingError: TensorRT does not start on this machine.
    """
    return _start("Runtime", trt, messages)


def _start(part: Part, trt: ModuleType, messages: "Messages") -> Api:
    if trt.__name__ == "tensorrt":  # the other one starts without a driver
        check_start(part)
    try:
        return getattr(trt, part)(messages.sink)
    except TypeError as error:  # what the bindings make of a null pointer
        raise BackendMissingError(
            f"TensorRT {version_of(trt)} does not start: {messages.explain()}. It needs an NVIDIA "
            "driver for the CUDA version that it was built with: swise-doctor shows both"
        ) from error


class Messages:
    """TensorRT's log of one build or load: errors are kept, the rest goes to Python's logging.

    Attributes:
        errors: All errors.
        notes: The last few messages that are not errors.
        sink: The logger that TensorRT calls.
    """

    def __init__(self, trt: ModuleType) -> None:
        self.errors: list[str] = []
        self.notes: deque[str] = deque(maxlen=3)
        self.sink: Api = _sink_class(trt)(self.errors, self.notes)
        _SINKS.append(self.sink)

    def explain(self) -> str:
        """The errors as one line, in order, each once; without errors the last notes."""
        return "; ".join(dict.fromkeys(self.errors or self.notes)) or "TensorRT gave no reason"


# TensorRT keeps the first logger that it gets, beside those of its objects, for an unknown time.
_SINKS: list[Api] = []


@functools.cache
def _sink_class(trt: ModuleType) -> Api:
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.INFO,
        trt.ILogger.INFO: logging.DEBUG,
    }
    base: Any = trt.ILogger

    class Sink(base):  # type: ignore[misc]  # a class that exists only once TensorRT is imported
        def __init__(self, errors: list[str], notes: deque[str]) -> None:
            base.__init__(self)
            self._errors = errors
            self._notes = notes

        def log(self, severity: Api, message: str) -> None:
            level = levels.get(severity)
            if level == logging.ERROR:
                self._errors.append(" ".join(message.split()))
            elif level is not None:
                self._notes.append(" ".join(message.split()))
                logger.log(level, "%s", message)

    return Sink
