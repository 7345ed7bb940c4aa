"""The table of all runtimes in which a network can run.

To add a runtime, write its module beside this file (see `RuntimeModule`) and add a row here.
Commands, `auto`, benchmarks, profiles and installation hints read the table. Modules are named by
strings, because a runtime's package may be absent, and because the module of engines belongs to a
higher room.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from swise_deploy.command.console import choose
from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.precision import EXPORT_PRECISIONS

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray

    from swise_deploy.precision import ActivationType, ExportPrecision, RestPrecision
    from swise_deploy.runner import DeviceKind, Runner
    from swise_export.manifest import Form

Source = Literal["network", "onnx", "engine"]
"""A kind of source: a torch network, an ONNX file, or a TensorRT engine."""


class RuntimeModule(Protocol):
    """The functions of a runtime's module; `profile` may be absent."""

    def open_runner(self, source: Any, *, threads: int | None = None, **options: Any) -> "Runner":
        """Create a runner, not yet activated, for a path or a loaded network."""

    def describe(self) -> str:
        """Runtime, version and device: everything that determines its speed."""

    def unusable_reason(self) -> str:
        """The reason why it cannot run on this machine; "" where it can."""

    def profile(
        self, path: Path, *, batch: "NDArray[generic]", threads: int, num_runs: int = 5
    ) -> list[tuple[str, str, float]]:
        """Time every layer of an ONNX file.

        Args:
            path: The file.
            batch: Pictures in the file's own layout and type.
            threads: Threads of the runtime.
            num_runs: Number of runs.

        Returns:
            Name, operator and milliseconds of every layer in every run.
        """


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime on a device.

    Attributes:
        title: Name for display.
        takes: Kind of source that it runs.
        device: Device that computes.
        module: Its module; see RuntimeModule.
        packages: Python packages that it requires.
        extra: Extra of this distribution that installs them.
        options: Further arguments of `open_runner`.
        is_automatic: True where `auto` considers it; the first such row is the reference.
        is_lossy: True where it computes in a lower precision than the file states: `auto` considers
            it within a drift budget alone.
        forms: Forms of a registry network that are fast in it, the best first.
        purpose: What it is for, in a few words, where it is an optional package of its own.
        has_profile: True where its module has `profile`.
        is_program: True for a separate program, which `open_runner` cannot open.
        exports: Precisions that swise-export writes for it; empty where it is no target.
        rest: Precision of the layers beside INT8, unless the user asks for another.
        activations: Type of the INT8 activations that it computes right and fast.
        quantises_outputs: True where it has INT8 kernels only for layers with a quantised output.
    """

    title: str
    takes: Source
    device: "DeviceKind"
    module: str
    packages: tuple[str, ...]
    extra: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    is_automatic: bool = False
    is_lossy: bool = False
    forms: "tuple[Form, ...]" = ()
    purpose: str = ""
    has_profile: bool = False
    is_program: bool = False
    exports: "tuple[ExportPrecision, ...]" = ()
    rest: "RestPrecision" = "fp32"
    activations: "ActivationType" = "uint8"
    quantises_outputs: bool = False

    @property
    def is_emulated(self) -> bool:
        """True where swise-export measures with emulated rounding: engines are built later."""
        return self.takes == "engine"


_ONNX = "swise_export.runtimes"
_ENGINE = "swise_engines.running.runner"
# Of bf16 and FP8 CPUs have no kernels: ONNX Runtime takes no bf16 convolution at all.
_ON_CPUS: "tuple[ExportPrecision, ...]" = ("fp32", "fp16", "int8")


def _torch(title: str, device: "DeviceKind", **options: bool) -> Runtime:
    """A row for torch; `options` are those of the runner."""
    return Runtime(
        title=title,
        takes="network",
        device=device,
        module=f"swise_deploy.runners.torch_{device}",
        packages=("torch",),
        extra="export",
        options=options,
    )


RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": Runtime(
        title="ONNX Runtime",
        takes="onnx",
        device="cpu",
        module=f"{_ONNX}.onnxruntime",
        packages=("onnxruntime",),
        extra="cpu",
        is_automatic=True,
        # Its cubic Resize is slow: the plain form takes five times as long as the deploy form.
        forms=("deploy",),
        has_profile=True,
        exports=_ON_CPUS,
        quantises_outputs=True,
    ),
    "cuda": Runtime(
        title="ONNX Runtime, CUDA",
        takes="onnx",
        device="gpu",
        module=f"{_ONNX}.onnxruntime_cuda",
        packages=("onnxruntime",),
        extra="gpu",
        is_automatic=True,
        forms=("deploy",),
    ),
    "openvino": Runtime(
        title="OpenVINO",
        takes="onnx",
        device="cpu",
        module=f"{_ONNX}.openvino",
        packages=("openvino",),
        extra="openvino",
        purpose="ONNX files on CPUs, often fastest",
        is_automatic=True,
        forms=("deploy", "plain"),
        has_profile=True,
        exports=_ON_CPUS,
    ),
    "openvino-bf16": Runtime(
        title="OpenVINO in bf16",
        takes="onnx",
        device="cpu",
        module=f"{_ONNX}.openvino_bf16",
        packages=("openvino",),
        extra="openvino",
        is_lossy=True,
    ),
    "ncnn": Runtime(
        title="ncnn",
        takes="onnx",
        device="cpu",
        module=f"{_ONNX}.ncnn",
        packages=("ncnn",),
        extra="ncnn",
        purpose="ONNX files on ARM CPUs",
        forms=("deploy",),
        # Its runner computes in fp32 alone.
        exports=("fp32",),
    ),
    "tensorrt": Runtime(
        title="TensorRT",
        takes="engine",
        device="gpu",
        module=_ENGINE,
        packages=(),
        extra="rtx",
        is_automatic=True,
        exports=EXPORT_PRECISIONS,
        rest="fp16",
        activations="int8",
    ),
    "no-graphs": Runtime(
        title="TensorRT without CUDA graphs",
        takes="engine",
        device="gpu",
        module=_ENGINE,
        packages=(),
        extra="rtx",
        options={"use_graphs": False},
    ),
    "pycuda": Runtime(
        title="TensorRT through pycuda",
        takes="engine",
        device="gpu",
        module=_ENGINE,
        packages=("pycuda",),
        extra="pycuda",
        options={"binding": "pycuda"},
    ),
    "trtexec": Runtime(
        title="NVIDIA's trtexec",
        takes="engine",
        device="gpu",
        module="swise_bench.measuring.trtexec",
        packages=(),
        is_program=True,
    ),
    "torch": _torch("torch, eager", "cpu"),
    "compile": _torch("torch.compile", "cpu", compiled=True),
    "torch-cuda": _torch("torch on a GPU", "gpu"),
    "compile-cuda": _torch("torch.compile on a GPU", "gpu", compiled=True),
    "torch-cuda-fp16": _torch("torch on a GPU, fp16", "gpu", half=True),
    "compile-cuda-fp16": _torch("torch.compile on a GPU, fp16", "gpu", compiled=True, half=True),
}


def runtimes_for(source: Source) -> dict[str, Runtime]:
    """The runtimes that run a kind of source, in the table's order."""
    return {name: runtime for name, runtime in RUNTIMES.items() if runtime.takes == source}


DEFAULT_RUNTIME = next(iter(runtimes_for("onnx")))
"""The runtime of an ONNX file where none is named."""


DEFAULT_TARGET = "tensorrt"
"""The runtime that swise-export writes a file for where none is named."""


def runner_choices() -> tuple[str, ...]:
    """Values of a command's --runner option for ONNX files: "auto", then the automatic ones."""
    found = [n for n, r in runtimes_for("onnx").items() if r.is_automatic or r.is_lossy]
    return ("auto", *found)


def export_targets(precision: "ExportPrecision | None" = None) -> tuple[str, ...]:
    """Runtimes that swise-export writes files for, in any precision or in one."""
    return tuple(
        name
        for name, runtime in RUNTIMES.items()
        if runtime.exports and (precision is None or precision in runtime.exports)
    )


def optional_runtimes() -> dict[str, Runtime]:
    """Runtimes of ONNX files beside ONNX Runtime, by their main package."""
    found = {r.packages[0]: r for r in runtimes_for("onnx").values() if r.purpose}
    return {package: runtime for package, runtime in found.items() if package != "onnxruntime"}


def find_runtime(name: str) -> Runtime:
    """A row of the table.

    Raises:
        InputError: There is no such runtime; the message suggests the nearest name.
    """
    return RUNTIMES[choose(name, RUNTIMES, what="runtime")]


def is_installed(runtime: Runtime) -> bool:
    """True where the packages of a runtime are installed; they are not imported."""
    return all(find_spec(package) is not None for package in runtime.packages)


def load_runtime(name: str) -> RuntimeModule:
    """Import a runtime's module.

    Raises:
        InputError: There is no such runtime.
        BackendMissingError: A package of it is missing; the message names the command that
            installs it.
    """
    runtime = find_runtime(name)
    for package in runtime.packages:
        require(package, extra=runtime.extra, purpose=f"running in {runtime.title}")
    try:
        return cast("RuntimeModule", importlib.import_module(runtime.module))
    except ImportError as error:
        raise BackendMissingError(f"cannot import {runtime.title}: {error}") from error


def open_runner(name: str, source: object, *, threads: int | None = None) -> "Runner":
    """Create a runner, not yet activated, by the name of its runtime.

    Args:
        name: Key of the table.
        source: Path of an ONNX file or an engine, or a loaded torch network.
        threads: CPU threads; None for the runtime's default.

    Raises:
        BackendMissingError: The runtime is not installed or cannot run here.
        InputError: There is no such runtime, it is a separate program, or it cannot run the source.
    """
    runtime = find_runtime(name)
    if runtime.is_program:
        openable = ", ".join(key for key, row in RUNTIMES.items() if not row.is_program)
        raise InputError(
            f"{runtime.title} is a separate program, in which {name!r} opens no runner; expected "
            f"one of {openable}. Measure it with swise-bench FILE.engine@{name}"
        )
    return load_runtime(name).open_runner(source, threads=threads, **runtime.options)
