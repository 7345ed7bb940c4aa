"""An ONNX file as a runner, through ONNX Runtime."""

import contextlib
import logging
import sys
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from swise_deploy.command.console import choose
from swise_deploy.errors import BackendMissingError, InputError, first_line
from swise_deploy.runner import PictureIO, RunnerContext
from swise_export.graph.fp16_emulation import with_half_rounding
from swise_export.manifest import facts_of_metadata, scale_from_facts

logger = logging.getLogger(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
# Without it fp32 convolutions would be rounded to TF32's 10 bits of mantissa.
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_NEED_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


class OnnxRunner(RunnerContext):
    """Runs an ONNX file.

    Args:
        path: The file; one that this project did not make works if it takes and gives (N, 3, H, W)
            float32.
        provider: A key of PROVIDERS. Nothing else is fallen back to silently.
        threads: Threads within one operation; None leaves it to ONNX Runtime.
        as_device: Compute as an edge device does, for measuring quality: round to half precision
            wherever the file says fp16, where ONNX Runtime's CPU would compute in fp32, and add
            INT8 products up exactly, where its x86 kernels add pairs of them in 16 bits. Slower.

    Raises:
        InputError: The file is missing, no ONNX model, or not a picture network.
        BackendMissingError: This ONNX Runtime has not got the provider.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        as_device: bool = False,
    ) -> None:
        self.path = path
        self.provider = PROVIDERS[choose(provider, PROVIDERS, what="provider")]
        self.threads = threads
        self.as_device = as_device
        if self.provider not in ort.get_available_providers():
            raise BackendMissingError(
                f"this ONNX Runtime has no {self.provider}; it has "
                f"{', '.join(ort.get_available_providers())}. Install the onnxruntime build for it"
            )
        if not path.is_file():
            raise InputError(f"no ONNX file at {path}. Check the path")
        self._session: ort.InferenceSession | None = self._open()
        facts = facts_of_metadata(self._session.get_modelmeta().custom_metadata_map)
        self.io: PictureIO = self._picture_io()
        self.name = f"onnxruntime {ort.__version__} {self.provider}"
        if as_device:
            self.name += ", computing as a device"
        self.scale = scale_from_facts(facts, path) or self._measured_scale()

    def activate(self) -> None:
        """Load the file and let ONNX Runtime optimise it."""
        if self._session is None:
            self._session = self._open()

    def infer(self, lr: NDArray[np.generic]) -> NDArray[np.generic]:
        """Upscale a batch, in the layout that `io` names."""
        assert self._session is not None, "infer before activate"
        try:
            (sr,) = self._session.run(None, {self._session.get_inputs()[0].name: lr})
        except Exception as error:  # ONNX Runtime has no base class of its own
            expected = self._session.get_inputs()[0]
            raise InputError(
                f"{self.path.name} cannot take a batch of shape {lr.shape}, {lr.dtype}; it expects "
                f"{expected.shape}, {expected.type}: {first_line(error)}"
            ) from error
        return cast("NDArray[np.generic]", sr)

    def deactivate(self) -> None:
        """Free the session."""
        self._session = None

    def _open(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        try:
            source: str | bytes = str(self.path)
            if self.as_device:
                options.add_session_config_entry("session.disable_quant_qdq", "1")
                source = with_half_rounding(onnx.load(self.path)).SerializeToString()
            if self.provider in _NEED_CUDA:
                _load_cuda_libraries()
            provider = (self.provider, _PROVIDER_OPTIONS.get(self.provider, {}))
            session = ort.InferenceSession(source, options, providers=[provider])
        except Exception as error:  # ONNX Runtime has no base class of its own
            raise InputError(
                f"ONNX Runtime cannot load {self.path}: {first_line(error)}. "
                "Expected a whole ONNX model"
            ) from error
        if self.provider not in session.get_providers():
            raise BackendMissingError(
                f"ONNX Runtime could not start its {self.provider} and would run on "
                f"{', '.join(session.get_providers())}. Install the libraries that it was built "
                "for, such as CUDA and cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        session.disable_fallback()
        return session

    def _picture_io(self) -> PictureIO:
        assert self._session is not None
        outputs = self._session.get_outputs()
        if len(outputs) != 1:
            raise InputError(
                f"{self.path} gives ({', '.join(o.name for o in outputs)}); expected one picture"
            )
        inputs = self._session.get_inputs()
        if len(inputs) == 1 and len(inputs[0].shape) == 4:
            if inputs[0].type == "tensor(uint8)" and inputs[0].shape[3] == 3:
                return "uint8"
            if inputs[0].type == "tensor(float)" and inputs[0].shape[1] in (3, "channels"):
                return "float"
        found = ", ".join(f"{i.name}: {i.type}{i.shape}" for i in inputs)
        raise InputError(
            f"{self.path} takes ({found}); expected one picture input, (N, 3, H, W) float32 or "
            "(N, H, W, 3) uint8"
        )

    def _measured_scale(self) -> int:
        """Find the scale of a foreign file by running it."""
        assert self._session is not None
        shape = self._session.get_inputs()[0].shape
        axes = (1, 2) if self.io == "uint8" else (2, 3)
        sides = [shape[axis] if isinstance(shape[axis], int) else 64 for axis in axes]
        dims = (1, *sides, 3) if self.io == "uint8" else (1, 3, *sides)
        sr = self.infer(np.zeros(dims, np.uint8 if self.io == "uint8" else np.float32))
        scale = sr.shape[axes[0]] // sides[0] if sr.ndim == 4 else 0
        expected = [scale * sides[axes.index(i)] if i in axes else n for i, n in enumerate(dims)]
        if scale < 1 or list(sr.shape) != expected:
            layout = (
                "(1, H*scale, W*scale, 3)" if self.io == "uint8" else "(1, 3, H*scale, W*scale)"
            )
            raise InputError(
                f"{self.path} turns pictures of {sides[1]}x{sides[0]} into {sr.shape}; expected "
                f"{layout} with a whole-number scale, as super-resolution networks give"
            )
        return int(scale)


def _load_cuda_libraries() -> None:
    """Let ONNX Runtime find the CUDA that pip installed; what it prints is no result."""
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        with contextlib.redirect_stdout(sys.stderr):
            preload()
