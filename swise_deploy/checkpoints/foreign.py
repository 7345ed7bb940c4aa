"""Networks from elsewhere: any torch module that upscales, and any checkpoint that spandrel knows.

Nothing has to be declared. Channels, scale and the sizes that the network takes are found by
running it; where it takes only some sizes, it is wrapped so that it takes all.
"""

import hashlib
import importlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from swise_deploy.checkpoints.load import LoadedNetwork, open_network, read_state
from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError, first_line
from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.parts.padding import mirror_to_multiple
from swise_deploy.storage.files import sha256_of

logger = logging.getLogger(__name__)

SPANDREL = "spandrel"

# A network may want multiples of these.
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_PROBE = 64
_LARGEST_SCALE = 16


@dataclass(frozen=True, slots=True)
class SizeRules:
    """What a network turned out to take.

    Attributes:
        channels: 3 for RGB, 1 for luma.
        scale: Output size over input size.
        multiple: Height and width have to be multiples of it.
        minimum: Smallest height and width.
    """

    channels: int
    scale: int
    multiple: int
    minimum: int


def open_any(model: str | None, *, scale: int | None, weights: Path | None) -> LoadedNetwork:
    """Open a network of the registry, a foreign one, or a checkpoint that spandrel knows.

    Args:
        model: A key of NETWORKS, "package.module:factory", "spandrel", or None.
        scale: What the caller expects; None takes what the network does.
        weights: A checkpoint; needed for "spandrel".

    Raises:
        InputError: It cannot be found, loaded or run, or has another scale.
        BackendMissingError: spandrel is asked for and is not installed.
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
            module (a class does). It maps (N, 3 or 1, H, W) in [0, 1] to (N, same, H*s, W*s).
            Modules in the working folder are found too.
        weights: A state dict for it; None keeps the weights that the factory gives.

    Raises:
        InputError: It does not import, gives no module, the weights do not fit, or it does not
            upscale.
    """
    module = _call_factory(spec)
    if weights is None:
        source, digest = spec, _hash_of_tensors(module)
    else:
        state = read_state(weights)
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            details = " ".join(str(error).split())[:300]
            raise InputError(f"{weights} does not fit {spec}: {details}") from error
        source, digest = str(weights), sha256_of(weights)
    module.eval()
    rules = find_size_rules(module, name=spec)
    name = spec.partition(":")[2].lower()
    return LoadedNetwork(wrap(module, rules), name, rules.scale, source, digest)


def open_with_spandrel(weights: Path) -> LoadedNetwork:
    """Open a checkpoint of any architecture that spandrel recognises.

    Raises:
        BackendMissingError: spandrel (or torchvision, which it needs) is not installed.
        InputError: spandrel does not know the file, or the network does not upscale.
    """
    spandrel = require(SPANDREL, extra=SPANDREL, purpose="opening a checkpoint with spandrel")
    if not weights.is_file():
        raise InputError(f"no weights at {weights}. Check the path")
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_file(weights)
    except spandrel.UnsupportedModelError as error:
        raise InputError(
            f"spandrel knows no architecture with the tensors of {weights}. "
            "Give the network's code with --model package.module:factory"
        ) from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"spandrel cannot open {weights}: {error}") from error
    module: nn.Module = found.model.eval()
    name = found.architecture.id
    rules = find_size_rules(module, name=name)
    return LoadedNetwork(
        wrap(module, rules), name.lower(), rules.scale, str(weights), sha256_of(weights)
    )


def _hash_of_tensors(module: nn.Module) -> str:
    """SHA-256 of the weights that a factory gave: what a file's hash is for others."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _call_factory(spec: str) -> nn.Module:
    module_name, _, factory_name = spec.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        factory: Callable[[], object] = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"cannot import {spec}: {error}. Expected package.module:factory, with the package "
            "installed or in the working folder"
        ) from error
    finally:
        sys.path.remove(folder)
    try:
        module = factory()
    except TypeError as error:
        raise InputError(
            f"{spec} cannot be called without arguments: {error}. Give a function that takes none"
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{spec} gave a {type(module).__name__}; expected a torch.nn.Module")
    return module


def find_size_rules(module: nn.Module, *, name: str) -> SizeRules:
    """Find by running what a network takes and gives.

    Args:
        module: In eval mode.
        name: For messages.

    Raises:
        InputError: It runs on no picture, or its output is no enlargement by a whole number.
    """
    reasons = []
    for channels in (3, 1):
        try:
            sr = _run(module, channels, _PROBE, _PROBE)
        except Exception as error:  # noqa: BLE001  # whatever foreign code raises is the answer
            reasons.append(f"{channels} channels: {first_line(error)}")
            continue
        scale = _scale_of(sr, channels, name)
        multiple = next(
            (m for m in _MULTIPLES if _upscales(module, channels, scale, _PROBE + m)), None
        )
        if multiple is None:
            raise InputError(
                f"{name} takes pictures of {_PROBE}x{_PROBE} but not of {_PROBE + 1} to "
                f"{2 * _PROBE} pixels a side. Expected a network whose size is not fixed"
            )
        smallest = next(
            side
            for side in range(multiple, _PROBE + 1, multiple)
            if _upscales(module, channels, scale, side)
        )
        return SizeRules(channels, scale, multiple, smallest)
    raise InputError(
        f"{name} does not run on a picture of {_PROBE}x{_PROBE} ({'; '.join(reasons)}). Expected a "
        "network that maps (N, 3, H, W) or (N, 1, H, W) to a larger picture"
    )


def _scale_of(sr: object, channels: int, name: str) -> int:
    shape = tuple(sr.shape) if isinstance(sr, Tensor) else type(sr).__name__
    for scale in range(2, _LARGEST_SCALE + 1):
        if shape == (1, channels, _PROBE * scale, _PROBE * scale):
            return scale
    raise InputError(
        f"{name} maps (1, {channels}, {_PROBE}, {_PROBE}) to {shape}. Expected a picture with "
        f"as many channels, enlarged by a whole number from 2 to {_LARGEST_SCALE}"
    )


def _upscales(module: nn.Module, channels: int, scale: int, side: int) -> bool:
    """Whether a picture that is `side` high (and one that is so wide) comes out enlarged."""
    try:
        tall = _run(module, channels, side, _PROBE)
        wide = _run(module, channels, _PROBE, side)
    except Exception as error:  # noqa: BLE001  # whatever foreign code raises is the answer
        logger.debug("no side of %d: %s", side, error)
        return False
    expected = (1, channels, side * scale, _PROBE * scale)
    shapes = [getattr(sr, "shape", None) for sr in (tall, wide)]
    return shapes == [expected, (1, channels, _PROBE * scale, side * scale)]


def _run(module: nn.Module, channels: int, height: int, width: int) -> object:
    with torch.inference_mode():
        return module(torch.full((1, channels, height, width), 0.5))


def wrap(module: nn.Module, rules: SizeRules) -> nn.Module:
    """A network that takes and gives RGB pictures of any size."""
    if rules.multiple > 1 or rules.minimum > 1:
        module = AnySize(module, rules)
    if rules.channels == 1:
        module = LumaNetwork(module, rules.scale, interpolated=False)
    return module.eval()


class AnySize(nn.Module):
    """A network whose pictures are mirrored to a size that it takes; what was added is cropped."""

    def __init__(self, network: nn.Module, rules: SizeRules) -> None:
        super().__init__()
        self.network = network
        self.rules = rules

    def forward(self, lr: Tensor) -> Tensor:
        """Map (N, C, H, W), any H, W >= 1, to (N, C, H*scale, W*scale)."""
        height, width = lr.shape[2:]
        rules = self.rules
        sr: Tensor = self.network(mirror_to_multiple(lr, rules.multiple, minimum=rules.minimum))
        return sr[:, :, : height * rules.scale, : width * rules.scale]
