"""Torch networks as runners, through torch itself."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.precision import FilePrecision
from swise_deploy.runner import DeviceKind, PictureIO, RunnerContext


class TorchRunner(RunnerContext):
    """Runs a network eagerly, in fp32, on one device."""

    precision: FilePrecision | None = "fp32"
    form = ""
    io: PictureIO = "float"

    def __init__(
        self, network: LoadedNetwork, *, device: str = "cpu", compiled: bool = False
    ) -> None:
        self.runtime = "compile" if compiled else "torch"
        self.scale = network.scale
        self.device: DeviceKind = "cpu" if device == "cpu" else "gpu"
        self.name = f"torch {torch.__version__} {'compile' if compiled else 'eager'} {device}"
        self._torch_device = device
        self._network = network
        self._compiled = compiled
        self._module: nn.Module | None = None

    def activate(self) -> None:
        """Move the network to its device; what is compiled is compiled by the first `infer`."""
        module = self._network.module.eval().to(self._torch_device)
        if self._compiled:
            module.compile(dynamic=False)
        self._module = module

    def infer(self, lr: NDArray[np.number]) -> NDArray[np.number]:
        """Upscale (N, 3, H, W) float32 to (N, 3, H*scale, W*scale) float32."""
        assert self._module is not None, "infer before activate"
        with torch.inference_mode():
            # A copy: networks may start with an in-place operation, such as `x *= 255`.
            sr: torch.Tensor = self._module(torch.tensor(lr, device=self._torch_device))
        result: NDArray[np.number] = sr.cpu().numpy()
        return result

    def deactivate(self) -> None:
        """Free the network."""
        self._module = None


def open_runner(
    network: LoadedNetwork, *, threads: int | None = None, compiled: bool = False
) -> TorchRunner:
    """Open a network on the CPU; the number of threads is torch's, for the whole process."""
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchRunner(network, compiled=compiled)


def describe() -> str:
    """Runtime, version and device."""
    return f"torch {torch.__version__} cpu"


def unusable_reason() -> str:
    """The reason why it cannot run here; "" where it can."""
    return ""
