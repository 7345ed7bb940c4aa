"""The one place where TensorRT is imported, and where its versions differ.

`tensorrt` (JetPack, data centre) and `tensorrt_rtx` (TensorRT for RTX) have the same classes; how
precision is told to the builder changed twice. `plan_typing` states that as data, so that it can be
read and tested on machines that have none of these versions.
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

logger = logging.getLogger(__name__)

EXTRAS: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}

# 8.5 brought tensor names and execute_async_v3, which everything here uses.
OLDEST_TENSORRT = (8, 5)

Api = Any
"""A TensorRT module or an object of one: its bindings carry no types."""


@dataclass(frozen=True, slots=True)
class TypingPlan:
    """How one release of TensorRT is told the precision.

    Attributes:
        strongly_typed: The graph's own types are the precision; the builder may not change them.
        creation_flags: Names in NetworkDefinitionCreationFlag; one that a release lacks is
            its default.
        builder_flags: Names in BuilderFlag.
        pins_layers: Every layer gets the type that the ONNX file gives it, because the builder
            would otherwise choose among the allowed ones by speed.
    """

    strongly_typed: bool
    creation_flags: tuple[str, ...]
    builder_flags: tuple[str, ...] = ()
    pins_layers: bool = False


def plan_typing(
    backend: Backend, version: str, precisions: Collection[str], *, on_dla: bool = False
) -> TypingPlan:
    """Say how to build a graph that computes in the given precisions.

    TensorRT 11 and TensorRT for RTX know strongly typed networks only; 10 knows both, 8 only weakly
    typed ones. (NVIDIA, TensorRT 11 migration guide; TensorRT 8.6 developer guide, "Reduced
    precision".)

    Args:
        backend: Which TensorRT.
        version: Its version, such as "10.3.0.30".
        precisions: What the graph's layers compute in: "fp32", "fp16", "bf16", "int8".
        on_dla: Built for a deep-learning accelerator, which TensorRT 10 serves weakly typed only.

    Raises:
        BackendMissingError: The version is too old to be used here.
    """
    if backend == "tensorrt_rtx":
        return TypingPlan(strongly_typed=True, creation_flags=("STRONGLY_TYPED",))
    release = release_of(version)
    if release < OLDEST_TENSORRT:
        raise BackendMissingError(
            f"TensorRT {version} is too old: {OLDEST_TENSORRT[0]}.{OLDEST_TENSORRT[1]} or later is "
            "needed. Update JetPack (5.1 brings TensorRT 8.5, 6.0 brings 8.6)"
        )
    if release >= (11, 0) or (release >= (10, 0) and not on_dla):
        return TypingPlan(strongly_typed=True, creation_flags=("STRONGLY_TYPED",))
    flags = [name.upper() for name in ("fp16", "bf16", "int8") if name in precisions]
    if "BF16" in flags:
        raise BackendMissingError(
            f"TensorRT {version} has no bf16. Export with --fp16, or use TensorRT 10 or later"
        )
    return TypingPlan(
        strongly_typed=False,
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
    except (ImportError, OSError) as error:  # no extra brings it: it has to fit the device
        raise BackendMissingError(
            f"a TensorRT engine needs the package 'tensorrt', which does not import here: {error}. "
            "JetPack has it as a system package, which a virtual environment sees with "
            "--system-site-packages; elsewhere: pip install 'tensorrt<12'. swise-doctor says more"
        ) from error


def wheel_for(driver_cuda: str) -> str:
    """What pip installs as `tensorrt`: wheels for CUDA 13, or 12 where the driver serves no more.

    Args:
        driver_cuda: The newest CUDA that the driver serves, such as "12.6"; "" if not known.
    """
    return "tensorrt-cu12<12" if driver_cuda.startswith("12.") else "tensorrt<12"


def is_installed(backend: Backend) -> bool:
    """Whether a TensorRT can be imported here."""
    try:
        load_tensorrt(backend)
    except BackendMissingError:
        return False
    return True


def version_of(trt: ModuleType) -> str:
    """The version of an imported TensorRT."""
    return str(trt.__version__)


def create_builder(trt: ModuleType, messages: "Messages") -> Api:
    """TensorRT's builder.

    Raises:
        BackendMissingError: TensorRT does not start on this machine.
    """
    return _start(trt.Builder, trt, messages)


def create_runtime(trt: ModuleType, messages: "Messages") -> Api:
    """What loads engines; it has to outlive them.

    Raises:
        BackendMissingError: TensorRT does not start on this machine.
    """
    return _start(trt.Runtime, trt, messages)


def _start(kind: Api, trt: ModuleType, messages: "Messages") -> Api:
    try:
        return kind(messages.sink)
    except TypeError as error:  # what the bindings make of a null pointer
        raise BackendMissingError(
            f"TensorRT {version_of(trt)} does not start: {messages.explain()}. It needs an NVIDIA "
            "driver for the CUDA version that it was built with: swise-doctor shows both"
        ) from error


class Messages:
    """What TensorRT said during one build or load: errors are kept, the rest is logged.

    Attributes:
        errors: All of them.
        notes: The last few of what was no error.
        sink: What TensorRT speaks to.
    """

    def __init__(self, trt: ModuleType) -> None:
        self.errors: list[str] = []
        self.notes: deque[str] = deque(maxlen=3)
        self.sink: Api = _sink_class(trt)(self.errors, self.notes)
        _SINKS.append(self.sink)

    def explain(self) -> str:
        """The errors as one line, in order, each once; the last notes where there is none."""
        return "; ".join(dict.fromkeys(self.errors or self.notes)) or "TensorRT gave no reason"


# TensorRT holds on to the first logger that it was given, beside those of its objects, and does not
# say for how long.
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
