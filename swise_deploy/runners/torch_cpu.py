"""A torch network as a runner."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.runner import PictureIO, RunnerContext


class TorchRunner(RunnerContext):
    """Runs a network eagerly, in fp32, on one device."""

    io: PictureIO = "float"

    def __init__(self, network: LoadedNetwork, *, device: str = "cpu") -> None:
        self.scale = network.scale
        self.device = device
        self.name = f"torch {torch.__version__} eager {device}"
        self._network = network
        self._module: nn.Module | None = None

    def activate(self) -> None:
        """Move the network to its device."""
        self._module = self._network.module.eval().to(self.device)

    def infer(self, lr: NDArray[np.generic]) -> NDArray[np.generic]:
        """Upscale (N, 3, H, W) float32 to (N, 3, H*scale, W*scale) float32."""
        assert self._module is not None, "infer before activate"
        with torch.inference_mode():
            sr: torch.Tensor = self._module(torch.from_numpy(lr).to(self.device))
        result: NDArray[np.generic] = sr.cpu().numpy()
        return result

    def deactivate(self) -> None:
        """Free the network."""
        self._module = None
