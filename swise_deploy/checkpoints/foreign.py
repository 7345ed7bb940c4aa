"""Networks from elsewhere: any torch module that upscales, any checkpoint that spandrel knows."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

from swise_deploy.checkpoints.adapting import (
    CalledNetwork,
    StatedSizes,
    find_size_rules,
    wrap,
)
from swise_deploy.checkpoints.factories import call_factory
from swise_deploy.checkpoints.load import LoadedNetwork, open_network
from swise_deploy.checkpoints.matching import fit_states
from swise_deploy.checkpoints.reading import read_states
from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError, InputError, first_line
from swise_deploy.storage.files import sha256_of

SPANDREL = "spandrel"

# A side that every architecture runs at, apart from those that state more.
_SIDE = 32


def open_any(model: str | None, *, scale: int | None, weights: Path | None) -> LoadedNetwork:
    """Open a network of the registry, a foreign one, or a checkpoint that spandrel knows.

    Args:
        model: A key of NETWORKS, "package.module:factory", "spandrel", or None.
        scale: The scale that the caller expects; None takes the network's own.
        weights: A checkpoint; needed for "spandrel".

    Raises:
        InputError: It cannot be found, loaded or run, or has another scale.
        BackendMissingError: spandrel is wanted and is not installed, or does not import.
    """
    if model == SPANDREL:
        if weights is None:
            raise InputError("--model spandrel needs a checkpoint. Give it with --weights FILE")
        network = open_with_spandrel(weights)
    elif model is not None and ":" in model:
        network = open_foreign(model, weights)
    else:
        return open_network(model, scale=scale, weights=weights)
    if scale not in (None, network.scale):
        raise InputError(
            f"{network.name} upscales x{network.scale}, not x{scale}. Leave --scale out"
        )
    return network


def open_foreign(spec: str, weights: Path | None = None) -> LoadedNetwork:
    """Open a network that somebody else wrote.

    Args:
        spec: "package.module:factory"; the factory is called without arguments and gives a torch
            module (a class does). It maps (N, C, H, W) in [0, 1] to (N, C, H*s, W*s), with 3, 1 or
            4 channels. Modules in the working folder are found too.
        weights: A checkpoint for it; None keeps the weights that the factory gives.

    Raises:
        InputError: It does not import, gives no module, the weights do not fit, or it does not
            upscale.
    """
    module = load_foreign(spec, weights)
    if weights is None:
        source, digest = spec, _hash_of_tensors(module)
    else:
        source, digest = str(weights), sha256_of(weights)
    module.eval()
    rules = find_size_rules(module, name=spec)
    return LoadedNetwork(wrap(module, rules), name_of(module, spec), rules.scale, source, digest)


def load_foreign(spec: str, weights: Path | None = None) -> nn.Module:
    """Load the module itself, as its own code has it.

    Raises:
        InputError: As for `open_foreign`.
    """
    module = call_factory(spec)
    if weights is not None:
        own = module.state_dict()
        module.load_state_dict({**own, **fit_states(read_states(weights), own, weights)})
    return module


def name_of(module: nn.Module, spec: str) -> str:
    """A name for files: the module's class, or the code's file where that is torch's own."""
    kind = type(module)
    if kind.__module__.startswith("torch."):
        return re.sub(r"\W+", "_", spec).lower()
    return kind.__name__.lower()


def open_with_spandrel(weights: Path) -> LoadedNetwork:
    """Open a checkpoint of any architecture that spandrel recognises.

    Raises:
        BackendMissingError: spandrel, or torchvision, which it needs, does not import.
        InputError: spandrel does not know the file, or the network does not upscale.
    """
    found = load_spandrel(weights)
    rules = find_size_rules(found.module, name=found.name, stated=found.sizes)
    module = wrap(found.module, rules)
    return LoadedNetwork(module, found.name, rules.scale, str(weights), sha256_of(weights))


@dataclass(frozen=True, slots=True)
class SpandrelNetwork:
    """A checkpoint as spandrel recognises it.

    Attributes:
        module: The network; behind spandrel's way to call it where that is not the plain one.
        name: The architecture's, in lower case.
        sizes: The sizes that spandrel states for it.
    """

    module: nn.Module
    name: str
    sizes: StatedSizes


def load_spandrel(weights: Path) -> SpandrelNetwork:
    """Load a checkpoint that spandrel recognises.

    Raises:
        BackendMissingError: As for `open_with_spandrel`.
        InputError: spandrel does not know the file.
    """
    spandrel = _require_spandrel()
    read_states(weights)  # refuses what is damaged or hostile before spandrel reads it
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_file(weights)
    except spandrel.UnsupportedModelError as error:
        raise InputError(
            f"spandrel knows no architecture with the tensors of {weights}. "
            "Give the network's code with --model package.module:factory"
        ) from error
    except Exception as error:  # its detection indexes foreign shapes unchecked
        raise InputError(f"spandrel cannot open {weights}: {first_line(error)}") from error
    if isinstance(found, spandrel.MaskedImageModelDescriptor):
        raise InputError(
            f"{weights} is for {found.architecture.name}, which fills a masked part of a picture "
            "(inpainting). Expected a network that takes a picture alone"
        )
    stated = found.size_requirements
    sizes = StatedSizes(stated.multiple_of, max(1, stated.minimum), stated.square)
    return SpandrelNetwork(_as_called(found, sizes), str(found.architecture.id).lower(), sizes)


class _Descriptor(Protocol):
    """The part of spandrel's descriptor of a network that is used here."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def input_channels(self) -> int: ...


def _as_called(found: _Descriptor, sizes: StatedSizes) -> nn.Module:
    """The module itself, or behind spandrel's own call where that gives another picture.

    Denoisers get a map of the noise beside the picture, others a range of their own.
    """
    module = found.model.float().eval()
    call: Callable[[nn.Module, Tensor], Tensor] | None = getattr(found, "_call_fn", None)
    if call is None:
        return module
    side = sizes.multiple * -(-max(_SIDE, sizes.minimum) // sizes.multiple)
    lr = torch.rand(1, found.input_channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        called = call(module, lr.clone())
        try:
            plain = module(lr.clone())
        except Exception:  # noqa: BLE001  # whatever it raises, it wants the call
            plain = None
    if isinstance(plain, Tensor) and torch.equal(plain, called):
        return module
    return CalledNetwork(module, call).eval()


def _require_spandrel() -> ModuleType:
    """Import spandrel; else name the torchvision that goes with the installed torch.

    Raises:
        BackendMissingError: It does not import.
    """
    try:
        return require(SPANDREL, extra=SPANDREL, purpose="opening a checkpoint with spandrel")
    except BackendMissingError as error:
        wanted = torchvision_for(torch.__version__)
        raise BackendMissingError(
            f"{error}, or beside torch {torch.__version__}: pip install spandrel "
            f"'torchvision=={wanted}', from where this torch came from"
        ) from error


def torchvision_for(torch_version: str) -> str:
    """The release of torchvision for a release of torch: 0.15 for 2.0, and on in step with it."""
    match = re.match(r"2\.(\d+)", torch_version)
    return f"0.{15 + int(match[1])}.*" if match else "of the same date"


def _hash_of_tensors(module: nn.Module) -> str:
    """SHA-256 of the weights that a factory gave, in the place of a file's hash."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
