"""ONNX files in ONNX Runtime, on a CPU or through another of its providers."""

import contextlib
import json
import logging
import sys
from collections.abc import Collection
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from swise_deploy.command.console import choose
from swise_deploy.errors import BackendMissingError, InputError, first_line
from swise_deploy.precision import Precision
from swise_deploy.storage.files import scratch
from swise_export.graph.half_emulation import with_half_rounding
from swise_export.graph.loading import load_onnx, session_source
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.runtimes.onnx_file import OnnxFileRunner

logger = logging.getLogger(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
# By default fp32 convolutions are rounded to TF32's 10 bits of mantissa.
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_NEED_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


class OnnxRunner(OnnxFileRunner):
    """Runs an ONNX file in ONNX Runtime.

    Args:
        path: The file.
        provider: A key of PROVIDERS. There is no fallback to another provider.
        threads: Threads within one operation; None for ONNX Runtime's default.
        as_device: Compute as an edge device does, for measurements of quality: fp16 layers round to
            half precision, which ONNX Runtime's CPU computes in fp32, and INT8 products accumulate
            exactly, which its x86 kernels add in pairs in 16 bits. Slower.

    Raises:
        InputError: The file is missing, not an ONNX model, or not a picture network.
        BackendMissingError: This ONNX Runtime lacks the provider, or cannot start it.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        as_device: bool = False,
    ) -> None:
        super().__init__(path)
        self.provider = PROVIDERS[choose(provider, PROVIDERS, what="provider")]
        self.threads = threads
        self.as_device = as_device
        if self.provider not in ort.get_available_providers():
            raise BackendMissingError(
                f"this ONNX Runtime has no {self.provider}; it has "
                f"{', '.join(ort.get_available_providers())}. Install the onnxruntime build for it"
            )
        self._session: ort.InferenceSession | None = self._open()
        self.runtime = "onnxruntime" if provider == "cpu" else provider
        self.device = "cpu" if provider in ("cpu", "openvino") else "gpu"
        self.name = f"onnxruntime {ort.__version__} {self.provider}"
        if as_device:
            self.name += ", rounding as a device"

    def activate(self) -> None:
        """Load the file and let ONNX Runtime optimise it."""
        if self._session is None:
            self._session = self._open()

    def run_file(self, batch: NDArray[np.number]) -> NDArray[np.number]:
        """Run the file on a batch in its own layout and type.

        Raises:
            InputError: The file does not take a batch of this shape or type.
        """
        assert self._session is not None, "infer before activate"
        interface = self.file.interface
        try:
            (sr,) = self._session.run([interface.output.name], {interface.input.name: batch})
        except Exception as error:  # ONNX Runtime has no base class of its own
            expected = next(i for i in self._session.get_inputs() if i.name == interface.input.name)
            raise InputError(
                f"{self.path.name} does not take a batch of shape {batch.shape}, {batch.dtype}; "
                f"expected {expected.shape}, {expected.type}: {first_line(error)}. Use a size that "
                "the file takes, or export it with dynamic sizes"
            ) from error
        return cast("NDArray[np.number]", sr)

    def deactivate(self) -> None:
        """Free the session."""
        self._session = None

    def _open(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        try:
            source = session_source(self.path)
            if self.as_device:
                options.add_session_config_entry("session.disable_quant_qdq", "1")
                # Threads that wait actively cost processor time; nobody times this runner.
                options.add_session_config_entry("session.intra_op.allow_spinning", "0")
                source = with_half_rounding(load_onnx(self.path)).SerializeToString()
            else:
                keep_fp8(options, self.file.formats)
            if self.provider in _NEED_CUDA:
                _load_cuda_libraries()
            provider = (self.provider, _PROVIDER_OPTIONS.get(self.provider, {}))
            session = ort.InferenceSession(source, options, providers=[provider])
        except Exception as error:  # ONNX Runtime has no base class of its own
            raise self._refusal(error) from error
        if self.provider not in session.get_providers():
            raise BackendMissingError(
                f"ONNX Runtime could not start its {self.provider} and would run on "
                f"{', '.join(session.get_providers())}. Install the libraries that it requires, "
                "such as CUDA and cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        session.disable_fallback()
        return session

    def _refusal(self, error: Exception) -> InputError:
        """What to raise for a file that does not load."""
        if "bf16" in self.file.formats:
            return InputError(
                f"{self.path} computes in bf16, for which ONNX Runtime's {self.provider} lacks "
                "kernels. Run the fp32 file of the network (swise-export --fp32), or this one "
                "with --runner openvino, or build an engine with swise-build"
            )
        return InputError(
            f"ONNX Runtime cannot load {self.path}: {first_line(error)}. Expected a whole ONNX "
            "model"
        )


def keep_fp8(options: ort.SessionOptions, formats: Collection[Precision]) -> None:
    """Let a session compute FP8, if it is among the formats of a model, as the model states it.

    ONNX Runtime's pass WeightBiasQuantization quantises biases as if the weights were INT8, by
    which SwiseNet x2 loses 1.2 dB (1.32.0). FP8 kernels, which the entry would disable, it lacks.
    """
    if "fp8" in formats:
        options.add_session_config_entry("session.disable_quant_qdq", "1")


def _load_cuda_libraries() -> None:
    """Load the CUDA libraries that pip installed; their output goes to stderr."""
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        with contextlib.redirect_stdout(sys.stderr):
            preload()


def open_runner(path: Path, *, threads: int | None = None) -> OnnxRunner:
    """Open a file on the CPU."""
    return OnnxRunner(path, threads=threads)


def available_providers() -> list[str]:
    """Execution providers of the installed ONNX Runtime."""
    return cast("list[str]", ort.get_available_providers())


def describe() -> str:
    """Runtime, version and device."""
    return f"onnxruntime {ort.__version__} {PROVIDERS['cpu']}"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    return ""


def profile(
    path: Path, *, batch: NDArray[np.number], threads: int, num_runs: int = 5
) -> list[tuple[str, str, float]]:
    """Time every node by ONNX Runtime's profiler (see `RuntimeModule.profile`).

    The nodes are those of the optimised graph, in which several nodes of the file may be one.
    """
    file = read_onnx_file(path)
    with scratch() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        keep_fp8(options, file.formats)
        options.log_severity_level = 4
        session = ort.InferenceSession(session_source(path), options, providers=[PROVIDERS["cpu"]])
        for _ in range(num_runs):
            session.run(None, {file.interface.input.name: batch})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found = []
    for event in events:
        name, details = str(event.get("name", "")), event.get("args")
        is_kernel = event.get("cat") == "Node" and name.endswith("_kernel_time")
        if is_kernel and isinstance(details, dict):
            operator = str(details.get("op_name", ""))
            found.append((name.removesuffix("_kernel_time"), operator, event["dur"] / 1000))
    return found
