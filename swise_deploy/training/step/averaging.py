"""Averaged weights: an exponential moving average of everything that is trained."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from swise_deploy.training.step.weight_norm import fold_weights


class WeightAverage:
    """The moving average of a network's tensors, on the network's device.

    Args:
        network: The network that is trained; read by `update`.
        decay: Share of the old average that a step keeps; 0 always equals the network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._network = network
        self._averages = {
            name: tensor.detach().clone() for name, tensor in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the network's tensors in after step number `step`, counted from 1.

        Early averages forget faster, (1 + step)/(10 + step): the random start would stay in them.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        current = self._network.state_dict()
        floating = [n for n, t in self._averages.items() if t.is_floating_point()]
        torch._foreach_lerp_(
            [self._averages[n] for n in floating], [current[n] for n in floating], 1 - decay
        )
        for name, average in self._averages.items():
            if not average.is_floating_point():
                average.copy_(current[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name."""
        return self._averages

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, average in self._averages.items():
            average.copy_(state[name])

    def network(self) -> nn.Module:
        """A copy of the network with the averages in it, plain and in eval mode."""
        averaged = copy.deepcopy(self._network)
        averaged.load_state_dict(self._averages)
        fold_weights(averaged)
        return averaged.eval().requires_grad_(requires_grad=False)
