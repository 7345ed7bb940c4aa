"""The network of a run: of the registry, of the user's own code, or of a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from swise_deploy.checkpoints.adapting import StatedSizes, find_size_rules, unwrap, wrap
from swise_deploy.checkpoints.foreign import SPANDREL, load_foreign, load_spandrel, name_of
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import NETWORKS, network_module
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.start.warm_start import warm_start_from_file
from swise_deploy.training.step.weight_norm import normalise_weights

LAST_WEIGHTS = "last.safetensors"
"""The file in a run's folder with the weights of its last save."""


@dataclass(frozen=True, slots=True)
class StartingNetwork:
    """A network before its first step.

    Attributes:
        module: (N, 3, H, W) RGB in [0, 1] to (N, 3, H*scale, W*scale).
        name: For file names.
        saved: Gives of such a module the one whose weights are saved: itself, or the user's own
            module inside it.
        note: The tensors that came from other weights, as a line for the user; or empty.
    """

    module: nn.Module
    name: str
    saved: Callable[[nn.Module], nn.Module]
    note: str = ""


def build_network(config: TrainConfig, *, with_init: bool = True) -> StartingNetwork:
    """Build the network of a run before its first step.

    Args:
        config: The run.
        with_init: False leaves `init` unread, where a saved state replaces all weights.

    Raises:
        InputError: The network has no such scale or option, or the initial weights do not fit.
        BackendMissingError: spandrel is not installed.
    """
    torch.manual_seed(config.seed)
    if config.model in NETWORKS:
        start = StartingNetwork(_registered(config), config.model, saved=lambda module: module)
    else:
        start = _foreign(config, with_init=with_init)
    if not list(start.module.parameters()):
        raise InputError(f"{config.model} has no weights to train. Choose another --model")
    note = ""
    own = start.saved(start.module)
    if config.init is not None and config.model != SPANDREL and with_init:
        weights = warm_start_from_file(config.init, own, config.scale, exclude=config.init_exclude)
        own.load_state_dict(weights.state)
        note = weights.summary(str(config.init), config.scale)
    normalise_weights(own, config.weight_norm)
    return StartingNetwork(start.module, start.name, start.saved, note)


def _registered(config: TrainConfig) -> nn.Module:
    known = NETWORKS[config.model]
    if config.scale not in known.scales:
        raise InputError(f"{config.model} has no x{config.scale}; expected one of {known.scales}")
    return network_module(config.model).build(
        config.scale, option=config.option or known.option, upsampler=config.upsampler
    )


def _foreign(config: TrainConfig, *, with_init: bool) -> StartingNetwork:
    """A network of the user's code, or of a checkpoint that spandrel knows.

    Resumed, the architecture is read from the weights that the run itself has saved.
    """
    if config.model == SPANDREL:
        assert config.init is not None, "checked with the config"
        found = load_spandrel(config.init if with_init else config.out / LAST_WEIGHTS)
        module, name, sizes = found.module, found.name, found.sizes
    else:
        module = load_foreign(config.model)
        name, sizes = name_of(module, config.model), StatedSizes()
    rules = find_size_rules(module.eval(), name=name, stated=sizes)
    if rules.scale != config.scale:
        raise InputError(
            f"{config.model} upscales x{rules.scale}, not x{config.scale}. "
            f"Use --scale {rules.scale}"
        )
    for parameter in module.parameters():
        parameter.requires_grad = True  # spandrel's are frozen
    return StartingNetwork(wrap(module, rules), name, unwrap)
