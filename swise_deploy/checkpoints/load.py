"""Networks of the registry, opened from weights that are recognised by their content."""

import functools
import hashlib
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from swise_deploy.checkpoints.matching import (
    renamed_by_order,
    report_choice,
    report_counters,
    unwrapped,
)
from swise_deploy.checkpoints.reading import StoredState, is_average, read_states
from swise_deploy.checkpoints.shipped import shipped_names, shipped_weights
from swise_deploy.command.console import choose
from swise_deploy.errors import InputError
from swise_deploy.networks.registry import (
    NETWORKS,
    Recognised,
    build_network,
    network_module,
)
from swise_deploy.storage.files import sha256_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network in eval mode with trained weights in it.

    Attributes:
        module: (N, 3, H, W) RGB in [0, 1] to (N, 3, H*scale, W*scale).
        name: A key of NETWORKS.
        scale: Output size over input size.
        source: Where the weights came from.
        weights_sha256: Hash of the weights file, or of the tensors where there is none.
    """

    module: nn.Module
    name: str
    scale: int
    source: str
    weights_sha256: str


def open_network(
    name: str | None = None, *, scale: int | None = None, weights: Path | None = None
) -> LoadedNetwork:
    """Load a network with trained weights.

    Args:
        name: A key of NETWORKS; None takes what the weights are, or "swisenet" without weights.
        scale: None takes what the weights are for, or 2.
        weights: A .safetensors, .pt or .pth file; None takes the shipped ones.

    Raises:
        InputError: Unknown name, no shipped weights, or a file that cannot be used.
    """
    if name is not None:
        choose(name, NETWORKS, what="model")
    if weights is None:
        name = name or "swisenet"
        scale = scale or 2
        if not NETWORKS[name].trained:
            return _untrained_network(name, scale)
        weights = shipped_weights(name, scale)
        if weights is None:
            raise InputError(
                f"no weights for {name} x{scale} ship with this version. "
                f"Shipped: {', '.join(shipped_names())}. Give your own with --weights FILE"
            )
    return _network_from_file(weights, name, scale)


def _untrained_network(name: str, scale: int) -> LoadedNetwork:
    digest = hashlib.sha256().hexdigest()
    return LoadedNetwork(build_network(name, scale).eval(), name, scale, "no weights", digest)


def open_at_least(scale: int, weights: Path) -> LoadedNetwork:
    """Load a network at the least of its weights' scales that is not below one.

    Raises:
        InputError: A file that cannot be used, or weights for smaller scales only.
    """
    recognised = _recognise_file(weights)
    own = min((s for s in recognised.scales if s >= scale), default=None)
    if own is None:
        raise InputError(
            f"{weights} holds {recognised.network} weights for {_made_for(recognised)}; expected "
            f"some for x{scale} or more"
        )
    return _load(recognised, weights, own)


def _recognise_file(path: Path) -> Recognised:
    states = read_states(path)
    found, failure = _recognise_named(path, states)
    found = found or _recognise_by_order(states)
    if found is not None:
        report_counters(path, states)
        return found
    if failure is not None:
        raise failure
    names = [name for state in states for name in state.tensors]
    raise InputError(
        f"{path} holds no network that is known here ({len(names)} tensors: "
        f"{', '.join(names[:4])}, ...). Known: {', '.join(NETWORKS)}. swise-export takes other "
        "networks with --model package.module:factory or --model spandrel"
    )


def _recognise_named(
    path: Path, states: Sequence[StoredState]
) -> tuple[Recognised | None, InputError | None]:
    """The first network that is recognised; else the error of one that nearly was."""
    found: list[tuple[str, Recognised]] = []
    failure: InputError | None = None
    for state in states:
        for place, tensors in unwrapped(state):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # about tensors without values
                    recognised = recognise_state(tensors)
                    if recognised is not None:
                        recognised.load(recognised.scales[0])
            except MISFITS as error:
                failure = failure or _misfit(path, tensors, error)
                continue
            if recognised is not None:
                found.append((place, recognised))
    if not found:
        return None, failure
    found.sort(key=lambda one: not is_average(one[0]))
    report_choice(path, found[0][0], [place for place, _ in found[1:]])
    return found[0][1], None


MISFITS = (KeyError, IndexError, ValueError, TypeError, RuntimeError, AttributeError)
"""Errors that reading sizes from the shapes of a foreign state dict may end in."""


def _recognise_by_order(states: Sequence[StoredState]) -> Recognised | None:
    """Recognise a network of the registry whose modules have other names.

    The shapes of its tensors, in their order, have to be those of a network as its paper has it.
    """
    sizes = {len(state.tensors) for state in states}
    for name, network in NETWORKS.items():
        for scale in network.scales if network.trained else ():
            own = _own_tensors(name, scale)
            if len(own) not in sizes:
                continue
            for state in states:
                renamed = renamed_by_order(state.tensors, own)
                recognised = None if renamed is None else recognise_state(renamed)
                if recognised is not None:
                    logger.warning(
                        "recognised as %s by the shapes of the tensors; their names are others",
                        recognised.network,
                    )
                    return recognised
    return None


@functools.cache
def _own_tensors(name: str, scale: int) -> Mapping[str, Tensor]:
    """The tensors of a network of the registry, without memory, by the names in its checkpoints."""
    with torch.device("meta"):
        state = build_network(name, scale).state_dict()
    return {key.removeprefix("network."): value for key, value in state.items()}


def _network_from_file(path: Path, name: str | None, scale: int | None) -> LoadedNetwork:
    recognised = _recognise_file(path)
    if name is not None and name != recognised.network:
        raise InputError(
            f"{path} holds weights of {recognised.network}, not of {name}. "
            f"Leave --model out, or give weights of {name}"
        )
    if scale is None:
        scale = recognised.scales[0]
    if scale not in recognised.scales:
        raise InputError(
            f"{path} holds {recognised.network} weights for {_made_for(recognised)}, not x{scale}. "
            f"Use --scale {recognised.scales[0]}, or weights for x{scale}"
        )
    return _load(recognised, path, scale)


def _made_for(recognised: Recognised) -> str:
    return " and ".join(f"x{scale}" for scale in recognised.scales)


def _load(recognised: Recognised, path: Path, scale: int) -> LoadedNetwork:
    module = recognised.load(scale).eval()
    return LoadedNetwork(module, recognised.network, scale, str(path), sha256_of(path))


def _misfit(path: Path, tensors: Mapping[str, Tensor], error: Exception) -> InputError:
    """The error of a state dict with names of a known network and other shapes or parts."""
    details = " ".join(str(error).split())[:300]
    details = re.sub(r"^Error\(s\) in loading state_dict for \w+: ", "", details).rstrip(". ")
    if isinstance(error, KeyError):
        return InputError(
            f"{path} lacks the tensor {error}. Expected the whole state dict of one network"
        )
    name, wanted = _known_names(tensors)
    different = [k for k, v in tensors.items() if k in wanted and v.ndim != wanted[k].ndim]
    if different:
        key = different[0]
        details = f"{key} is {tuple(tensors[key].shape)}, expected {tuple(wanted[key].shape)}"
    return InputError(
        f"{path} looks like {name} weights, but they do not fit: {details}. "
        "Expected the whole state dict of one network and nothing else: "
        "torch.save(model.state_dict(), 'weights.pth')"
    )


def _known_names(tensors: Mapping[str, Tensor]) -> tuple[str, Mapping[str, Tensor]]:
    """The network of the registry that shares most names with a state dict, and its tensors."""
    best: tuple[str, Mapping[str, Tensor]] = "a known network's", {}
    most = 0
    for name, network in NETWORKS.items():
        if network.trained:
            own = _own_tensors(name, network.scales[0])
            shared = len(own.keys() & tensors.keys())
            if shared > most:
                best, most = (name, own), shared
    return best


def recognise_state(state: Mapping[str, Tensor]) -> Recognised | None:
    """Recognise the network of a state dict by names and shapes; None for unknown ones.

    Raises:
        KeyError: A part of a network, without a tensor that its sizes are read from.
        RuntimeError: The same, or tensors of shapes that do not go together.
    """
    for module in dict.fromkeys(network.module for network in NETWORKS.values()):
        first = next(key for key, network in NETWORKS.items() if network.module == module)
        recognised = network_module(first).recognise(state)
        if recognised is not None:
            return recognised
    return None
