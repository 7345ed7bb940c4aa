"""State dicts fitted to networks, whatever wrappers have put before the names of their tensors."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from swise_deploy.checkpoints.reading import StoredState, is_average
from swise_deploy.errors import InputError

logger = logging.getLogger(__name__)

_MAX_PREFIXES = 64
_OPTIONAL = "num_batches_tracked"
"""A counter of batch normalisation that older files lack and inference does not need."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Tensors of a checkpoint under the names of a network.

    Attributes:
        tensors: By the network's own names.
        place: The state dict, and the prefix inside it, that they came from.
        unused: Names under that prefix that the network has no use for.
        missing: The network's names that the checkpoint lacks.
        misshapen: Names of tensors of other shapes, with both.
    """

    tensors: Mapping[str, Tensor]
    place: str
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def is_whole(self) -> bool:
        """Tell whether every tensor of the network is there, and nothing else."""
        return not (self.missing or self.misshapen or self.unused)


def fit_states(
    states: Sequence[StoredState], own: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Find the one state dict in a checkpoint that fits a network.

    Averaged weights come before others that fit as well; a warning names the choice. Counters
    beside the weights are left out with a warning.

    Args:
        states: From `read_states`.
        own: The network's state dict.
        path: For messages.

    Raises:
        InputError: None fits; the message has the nearest one's names and shapes.
    """
    fits = [fit for state in states for fit in _fits(state, own)]
    whole = sorted((f for f in fits if f.is_whole), key=lambda fit: not is_average(fit.place))
    if not whole:
        nearest = max(fits, key=lambda fit: len(fit.tensors))
        raise InputError(f"{path} does not fit the network: {_difference(nearest, own)}")
    same = [id(tensor) for tensor in whole[0].tensors.values()]
    others = [f for f in whole if [id(tensor) for tensor in f.tensors.values()] != same]
    report_choice(path, whole[0].place, [fit.place for fit in others])
    report_counters(path, states)
    return {name: tensor.to(own[name].dtype) for name, tensor in whole[0].tensors.items()}


def unwrapped(state: StoredState) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The tensors under each beginning that their names may share, with its place."""
    for prefix in _prefixes(state.tensors):
        named = [
            (name, tensor) for name, tensor in state.tensors.items() if name.startswith(prefix)
        ]
        place = ".".join(part for part in (state.place, prefix.rstrip(".")) if part)
        yield place, {name.removeprefix(prefix): tensor for name, tensor in named}


def _fits(state: StoredState, own: Mapping[str, Tensor]) -> Iterator[Fit]:
    for place, inside in unwrapped(state):
        for own_prefix in _common_prefixes(own):
            named = {own_prefix + name: tensor for name, tensor in inside.items()}
            yield _compare(named, own, place=place)


def _compare(named: Mapping[str, Tensor], own: Mapping[str, Tensor], *, place: str) -> Fit:
    same = {k: v for k, v in named.items() if k in own and v.shape == own[k].shape}
    return Fit(
        tensors=same,
        place=place,
        unused=tuple(k for k, v in named.items() if k not in own and v.numel() > 1),
        missing=tuple(k for k in own if k not in named and not k.endswith(_OPTIONAL)),
        misshapen={
            k: (tuple(v.shape), tuple(own[k].shape))
            for k, v in named.items()
            if k in own and v.shape != own[k].shape
        },
    )


def _difference(fit: Fit, own: Mapping[str, Tensor]) -> str:
    parts = [f"{len(fit.tensors)} of its {len(own)} tensors have a name and shape of the network's"]
    if fit.misshapen:
        name, (found, wanted) = next(iter(fit.misshapen.items()))
        parts.append(f"{name} is {found}, expected {wanted}")
    if fit.missing:
        parts.append(f"missing: {', '.join(fit.missing[:3])}")
    if fit.unused:
        parts.append(f"unexpected: {', '.join(fit.unused[:3])}")
    return f"{'; '.join(parts)}. Expected the whole state dict of this network"


def _prefixes(names: Iterable[str]) -> list[str]:
    """The beginnings of names that may be a wrapper's: "" first, then "model." and so on."""
    found = {"": 0}
    for name in names:
        parts = name.split(".")[:-1]
        for depth in range(1, min(4, len(parts)) + 1):
            prefix = ".".join(parts[:depth]) + "."
            found[prefix] = found.get(prefix, 0) + 1
    several = [prefix for prefix, number in found.items() if not prefix or number > 1]
    return sorted(several, key=lambda p: (p.count("."), -found[p]))[:_MAX_PREFIXES]


def _common_prefixes(own: Mapping[str, Tensor]) -> list[str]:
    """The beginnings that all names of a network share, which a file may lack; "" first."""
    first = next(iter(own), "").split(".")[:-1]
    candidates = [".".join(first[:depth]) + "." for depth in range(1, len(first) + 1)]
    return ["", *[p for p in candidates if all(name.startswith(p) for name in own)]]


def report_choice(path: Path, chosen: str, others: Sequence[str]) -> None:
    """Warn which of several state dicts that fit is used."""
    names = list(dict.fromkeys(place or "the outermost" for place in others if place != chosen))
    if names:
        logger.warning(
            "%s: the weights are those of %s; %s would fit too",
            path,
            chosen or "the outermost",
            ", ".join(names),
        )
    elif chosen:
        logger.info("%s: the weights are those of %s", path, chosen)


def report_counters(path: Path, states: Sequence[StoredState]) -> None:
    """Warn of counters beside the weights that are left out."""
    counters = list(dict.fromkeys(name for state in states for name in state.counters))
    if counters:
        logger.warning(
            "%s: %d counters beside the weights are left out: %s",
            path,
            len(counters),
            ", ".join(counters[:4]),
        )


def renamed_by_order(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Give tensors the names of a network whose tensors have the same shapes in the same order.

    The order is the file's, or that of the names with numbers counted as such: some formats sort.
    """
    if len(tensors) != len(own):
        return None
    for names in (list(tensors), sorted(tensors, key=_with_numbers)):
        pairs = list(zip(own, names, strict=True))
        if all(own[wanted].shape == tensors[found].shape for wanted, found in pairs):
            return {wanted: tensors[found] for wanted, found in pairs}
    return None


def _with_numbers(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
