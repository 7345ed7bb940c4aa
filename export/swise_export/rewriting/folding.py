"""Weights that are computed from others in every pass, computed once.

Weight normalisation and other parametrizations are training's. In a graph they would be arithmetic
in front of every layer, which counters, quantisers and TensorRT take for part of the network.
"""

import copy
import warnings

from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm


def folded_parametrizations(module: nn.Module) -> nn.Module:
    """The same network with plain weights, in eval mode; itself where it has them already."""
    if not any(_is_parametrized(part) or _is_empty_norm(part) for part in module.modules()):
        return module.eval()
    folded = copy.deepcopy(module).eval()
    for part in list(folded.modules()):
        for name, child in list(part.named_children()):
            if _is_empty_norm(child):
                setattr(part, name, nn.Identity())
        if parametrize.is_parametrized(part):
            _fold(part)
        for hook in _old_style_hooks(part):
            is_norm = type(hook).__name__ == "WeightNorm"
            remove = remove_weight_norm if is_norm else remove_spectral_norm
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch deprecates the hooks that it removes here
                remove(part, hook.name)  # type: ignore[attr-defined]  # both kinds have one
    return folded


def _fold(part: nn.Module) -> None:
    """Replace a part's parametrizations by their values.

    torch's own remover takes properties away from a class that the copy shares with its original.
    """
    values = {name: getattr(part, name).detach() for name in part.parametrizations}  # type: ignore[union-attr]  # a ModuleDict
    part.__class__ = type(part).__bases__[0]  # the class below torch's dynamic one
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value))


def _is_empty_norm(part: nn.Module) -> bool:
    """A normalisation over no values, as narrow configurations have it; runtimes refuse it."""
    return isinstance(part, nn.LayerNorm) and 0 in part.normalized_shape


def _is_parametrized(part: nn.Module) -> bool:
    return parametrize.is_parametrized(part) or bool(_old_style_hooks(part))


def _old_style_hooks(part: nn.Module) -> list[object]:
    """Hooks of torch.nn.utils.weight_norm and spectral_norm."""
    hooks = part._forward_pre_hooks.values()  # noqa: SLF001  # as torch's own removers find them
    return [hook for hook in hooks if type(hook).__name__ in ("WeightNorm", "SpectralNorm")]
