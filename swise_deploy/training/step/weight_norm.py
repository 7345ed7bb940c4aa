"""Weight normalisation while training, folded away in what is saved.

Salimans and Kingma, "Weight Normalization", 2016: w = g * v / |v| for each output channel.
"""

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from swise_deploy.errors import InputError


def normalise_weights(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Reparametrise the convolutions whose module names match; outputs stay as they are.

    Args:
        network: Changed in place.
        patterns: For fnmatch, e.g. "upsampler*".

    Returns:
        The names of the convolutions.

    Raises:
        InputError: A pattern matches no convolution.
    """
    convolutions = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    names = [n for n in convolutions if any(fnmatch(n, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(fnmatch(n, pattern) for n in convolutions):
            raise InputError(
                f"weight_norm pattern {pattern!r} matches no convolution of this network. "
                f"It has: {', '.join(list(convolutions)[:8])}, ..."
            )
    for name in names:
        parametrizations.weight_norm(convolutions[name], "weight", dim=0)
    return names


def fold_weights(network: nn.Module) -> None:
    """Turn reparametrised weights back into plain ones, in place; outputs stay as they are.

    Unlike torch's `remove_parametrizations` it leaves the class of a module alone, which a copied
    network shares with the one it was copied from.
    """
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            weight = nn.Parameter(cast("Tensor", module.weight).detach().clone())
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.register_parameter("weight", weight)
