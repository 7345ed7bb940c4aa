"""Checkpoints: weights from a file, recognised by their content, never executed."""

import hashlib
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

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

# Where training scripts put the weights inside what they save (BasicSR, Lightning, timm, others).
_NESTED_KEYS = (
    "params_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "generator",
)
_PREFIXES = ("module.", "model.", "net_g.", "_orig_mod.", "network.")


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
    state = read_state(path)
    try:
        recognised = recognise_state(state)
    except KeyError as error:
        raise InputError(
            f"{path} lacks the tensor {error}. Expected the whole state dict of one network"
        ) from error
    except RuntimeError as error:
        raise _misfit(path, "a known network's", error) from error
    if recognised is None:
        some = ", ".join(list(state)[:4])
        raise InputError(
            f"{path} holds no network that is known here ({len(state)} tensors: {some}, ...). "
            f"Known: {', '.join(NETWORKS)}. swise-export takes other networks with "
            "--model package.module:factory or --model spandrel"
        )
    return recognised


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
    try:
        module = recognised.load(scale).eval()
    except RuntimeError as error:
        raise _misfit(path, recognised.network, error) from error
    return LoadedNetwork(module, recognised.network, scale, str(path), sha256_of(path))


def _misfit(path: Path, name: str, error: RuntimeError) -> InputError:
    """The error of a `load_state_dict`: missing, unexpected or misshapen tensors."""
    details = " ".join(str(error).split())[:300]
    return InputError(
        f"{path} looks like {name} weights, but they do not fit: {details}. "
        "Expected the whole state dict of one network"
    )


def recognise_state(state: Mapping[str, Tensor]) -> Recognised | None:
    """Say which network's weights these are, by names and shapes; None for unknown ones.

    Raises:
        KeyError: A part of a network, in which a tensor is missing that tells its sizes.
        RuntimeError: The same, or tensors of shapes that do not go together.
    """
    for module in dict.fromkeys(network.module for network in NETWORKS.values()):
        first = next(key for key, network in NETWORKS.items() if network.module == module)
        recognised = network_module(first).recognise(state)
        if recognised is not None:
            return recognised
    return None


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name; code in pickles is not executed.

    Raises:
        InputError: The file is missing, truncated, or no checkpoint.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give the file with the weights")
    if not path.is_file():
        raise InputError(f"no weights at {path}. Check the path")
    try:
        if path.suffix.lower() == ".safetensors":
            return _plain_state(load_file(path), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about what is refused just after
            document = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read weights {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, error)) from error
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(_damaged(path)) from error
    return _plain_state(document, path)


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code is None:
        return _damaged(path)
    return (
        f"{path} holds a {code.group(1)}, which is code and not weights, and is refused. Save the "
        "tensors alone where that code is at home: torch.save(model.state_dict(), 'weights.pth')"
    )


def _damaged(path: Path) -> str:
    hint = "; swise-build, swise-bench and swise-upscale take ONNX files"
    return (
        f"{path} is no checkpoint, or is damaged. Expected a whole .safetensors, .pt or .pth file"
        f"{hint if path.suffix.lower() == '.onnx' else ''}"
    )


def _plain_state(document: object, path: Path) -> dict[str, Tensor]:
    for key in _NESTED_KEYS:
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            document = document[key]
    if not isinstance(document, Mapping):
        raise InputError(f"{path} holds a {type(document).__name__}; expected a state dict")
    state = {str(k): v for k, v in document.items() if isinstance(v, Tensor)}
    if not state:
        raise InputError(f"{path} holds no tensors; expected a state dict")
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
