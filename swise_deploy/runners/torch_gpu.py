"""A torch network on an NVIDIA GPU, as fast as torch runs it and timed by the GPU's own clock."""

import copy
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import BackendMissingError
from swise_deploy.precision import FilePrecision
from swise_deploy.runner import DeviceKind, PictureIO, RunnerContext


class TorchGpuRunner(RunnerContext):
    """Runs a network on a GPU, the way an engine runs: page-locked pictures, events around it.

    fp32 means fp32: TF32 is off. fp16 is the whole network in half precision, weights and all, its
    convolutions in the channels-last layout that tensor cores want; autocast would convert the
    weights again in every call. Compiled networks are replayed as CUDA graphs ("reduce-overhead").

    Raises:
        BackendMissingError: torch sees no GPU.
    """

    device: DeviceKind = "gpu"
    form = ""
    io: PictureIO = "float"

    def __init__(
        self, network: LoadedNetwork, *, half: bool = False, compiled: bool = False
    ) -> None:
        if not torch.cuda.is_available():
            raise BackendMissingError(
                f"torch {torch.__version__} sees no NVIDIA GPU: {_reason()}. Run it where there is "
                "one, or measure @torch or @compile on the CPU"
            )
        self.scale = network.scale
        kind = "compile" if compiled else "eager"
        self.runtime = "compile-cuda" if compiled else "torch-cuda"
        self.precision: FilePrecision | None = "fp16" if half else "fp32"
        self.name = f"torch {torch.__version__} {kind} cuda {'fp16' if half else 'fp32'}"
        self._half = half
        self._compiled = compiled
        self._network = network
        self._module: nn.Module | None = None
        self._lr = self._sr = torch.empty(0)
        self.gpu_ms = 0.0
        """Milliseconds that the GPU took for the last `infer`, copies left out."""

    def activate(self) -> None:
        """Copy the network to the GPU; what is compiled is compiled by the first `infer`."""
        module = copy.deepcopy(self._network.module).eval()
        if self._half:
            # torch's stubs know this argument in some versions alone.
            module = cast("Any", module.half()).to(memory_format=torch.channels_last)
        module = module.to("cuda")
        if self._compiled:
            module.compile(dynamic=False, mode="reduce-overhead")
        self._module = module
        self._started, self._ended = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own
            for _ in range(2)
        )

    def infer(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        """Upscale (N, 3, H, W) float32 to (N, 3, H*scale, W*scale) float32."""
        assert self._module is not None, "infer before activate"
        # Page-locked, and kept for the shape, as EngineRunner's buffers are.
        if self._lr.shape != lr.shape:
            self._lr = torch.empty(lr.shape, dtype=torch.float32, pin_memory=True)
        self._lr.copy_(torch.from_numpy(lr))
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        with torch.inference_mode(), cudnn:
            pictures = self._lr.to("cuda", non_blocking=True)
            self._started.record()
            sr = self._run(self._module, pictures)
            self._ended.record()
            if self._sr.shape != sr.shape:
                self._sr = torch.empty(sr.shape, dtype=torch.float32, pin_memory=True)
            self._sr.copy_(sr, non_blocking=True)
            torch.cuda.synchronize()
        self.gpu_ms = self._started.elapsed_time(self._ended)
        result: NDArray[np.number] = self._sr.numpy().copy()
        return result

    def _run(self, module: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        """fp32 in and out, as an engine has it: both conversions are part of what is timed."""
        if self._half:
            pictures = pictures.to(torch.float16, memory_format=torch.channels_last)
        sr: torch.Tensor = module(pictures)
        return sr.float().contiguous()

    def deactivate(self) -> None:
        """Give the memory back."""
        self._module = None
        self._lr = self._sr = torch.empty(0)
        torch.cuda.empty_cache()


def _reason() -> str:
    if torch.version.cuda is None:
        return "it was built without CUDA"
    return f"it was built for CUDA {torch.version.cuda}, and no driver for it or no GPU is here"


def open_runner(
    network: LoadedNetwork,
    *,
    threads: int | None = None,
    half: bool = False,
    compiled: bool = False,
) -> TorchGpuRunner:
    """Open a network on the GPU; threads are the CPU's and play no part."""
    del threads
    return TorchGpuRunner(network, half=half, compiled=compiled)


def describe() -> str:
    """Runtime, version and device."""
    return f"torch {torch.__version__} cuda"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    return "" if torch.cuda.is_available() else f"torch sees no NVIDIA GPU: {_reason()}"
