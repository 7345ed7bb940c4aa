"""Which layers take the lower precision: measured one by one, then as many as the drift allows.

Alone, each unit's error is small and adds to the others' almost as independent noise does. So the
units are taken in the order of noise per Mult-Add, and the longest run of them that keeps the
drift on pictures that were not calibrated on is found by halving. The numbers decide, no chance:
the same network, pictures and budget give the same placement.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from swise_deploy.storage.documents import Count, Share
from swise_deploy.storage.files import append_json_line, read_json_lines
from swise_export.precision.qdq import Layer
from swise_export.precision.switchable_graph import Effect, GatedNetwork
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

_PARETO_SHARES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# What is left out of INT8 whatever the budget: units that cause so many times more of the error
# than they have of the Mult-Adds, as long as all of them together have next to none.
_POOR_BARGAIN = 10
_LEFT_OUT_SHARE = 0.01
# How many of the next best units are tried one by one where the next one does not fit.
_TRIED_BEHIND = 6


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that change precision together, because they read the same tensor.

    Attributes:
        name: Of its first layer.
        layers: Names of its layers.
        mult_adds: Of all of them.
    """

    name: str
    layers: tuple[str, ...]
    mult_adds: int


@dataclass(frozen=True, slots=True)
class Step:
    """A placement that was measured.

    Attributes:
        mult_adds_share: Of the lower precision, of all Mult-Adds.
        drift_db: PSNR-Y lost (negative) or won on the held-out pictures.
        num_layers: In the lower precision.
        worst_db: Of the picture that loses most, as the power of the error; None in older plans.
    """

    mult_adds_share: Share
    drift_db: float
    num_layers: Count
    worst_db: float | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """What a search found.

    Attributes:
        units: In the lower precision.
        drift_db: Of this placement, on the held-out pictures.
        steps: All placements that were measured, by share.
    """

    units: tuple[Unit, ...]
    drift_db: float
    steps: tuple[Step, ...]


def units_from_layers(layers: Sequence[Layer]) -> tuple[Unit, ...]:
    """Group layers by the tensor that they read."""
    by_input: dict[str, list[Layer]] = {}
    for layer in layers:
        by_input.setdefault(layer.input, []).append(layer)
    return tuple(
        Unit(g[0].name, tuple(layer.name for layer in g), sum(layer.mult_adds for layer in g))
        for g in by_input.values()
    )


class Journal:
    """Effects that were measured, kept in a file, so that a search that was stopped goes on.

    Args:
        network: What measures.
        path: The file, one line for each placement; None keeps them in memory. Its name has to
            tell everything that the effects depend on.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, network: GatedNetwork, path: Path | None = None) -> None:
        self._network = network
        self._path = path
        self._known: dict[str, Effect] = {}
        for key, *effect in read_json_lines(path) if path is not None else []:
            self._known[key] = Effect(*effect)

    def knows(self, lowered: Collection[str]) -> bool:
        """Whether a placement was measured before."""
        return _key(lowered) in self._known

    def effect(self, lowered: Collection[str]) -> Effect:
        """What a placement does; measured if it is not known."""
        key = _key(lowered)
        if key not in self._known:
            effect = self._network.effect(lowered)
            self._known[key] = effect
            if self._path is not None:
                append_json_line(self._path, [key, *astuple(effect)])
        return self._known[key]


def _key(lowered: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lowered)).encode()).hexdigest()


def measure_sensitivity(
    journal: Journal,
    units: Sequence[Unit],
    *,
    say: Callable[[str], None] = logger.info,
) -> dict[str, Effect]:
    """What each unit does alone, by its name; says what is left to do every few seconds."""
    effects: dict[str, Effect] = {}
    start = said = time.monotonic()
    new = 0
    for i, unit in enumerate(units):
        new += not journal.knows(unit.layers)
        effects[unit.name] = journal.effect(unit.layers)
        now = time.monotonic()
        if new and now - said > 5:
            said = now
            left = (now - start) / new * (len(units) - i - 1)
            say(f"sensitivity: {i + 1} of {len(units)} groups of layers, {left:.0f} s left")
    return effects


def place(
    journal: Journal,
    units: Sequence[Unit],
    effects: Mapping[str, Effect],
    *,
    budget: DriftBudget,
    all_mult_adds: int,
    say: Callable[[str], None] = logger.info,
) -> Placement:
    """Lower as many units as the drift allows, those first that win most for what they cost.

    Left out even where the drift allows them are the last few, of 1% of the Mult-Adds together,
    that cause over ten times their share of the error: in SwiseNet the bicubic picture itself.

    Args:
        journal: Measures on pictures that were not calibrated on.
        units: What may be lowered.
        effects: Of each unit alone.
        budget: What may be lost, on average as measured and if the error had nothing to do with
            the network's own; on one picture in the latter way.
        all_mult_adds: Of the whole network, for shares.
        say: Takes lines of progress.
    """
    order = sorted(units, key=lambda u: (-effects[u.name].noise_db / max(1, u.mult_adds), u.name))
    steps: dict[tuple[str, ...], Step] = {}

    def measured(chosen: Sequence[Unit]) -> Effect:
        names = tuple(sorted(unit.name for unit in chosen))
        found = journal.effect([layer for unit in chosen for layer in unit.layers])
        share = sum(unit.mult_adds for unit in chosen) / all_mult_adds
        if names not in steps:
            worst = "" if budget.worst_db is None else f", {found.worst_db:+.4f} dB at worst"
            say(f"placement: {share:.0%} of the Mult-Adds, {found.drift_db:+.4f} dB{worst}")
        num_layers = sum(len(unit.layers) for unit in chosen)
        steps[names] = Step(share, found.drift_db, num_layers, found.worst_db)
        return found

    def fits_budget(chosen: Sequence[Unit]) -> bool:
        # On hard pictures rounding may win something by chance, which pays for nothing elsewhere.
        found = measured(chosen)
        return budget.allows(min(found.drift_db, found.noise_db), found.worst_db)

    for share in _PARETO_SHARES:
        measured(order[: _prefix_of_share(order, share * all_mult_adds)])
    measured(order)
    chosen = list(order[: _worth_it(order, effects, all_mult_adds)])
    if not fits_budget(chosen):
        fits, too_many = 0, len(chosen)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if fits_budget(order[:middle]):
                fits = middle
            else:
                too_many = middle
        chosen = list(order[:fits])
        for unit in order[too_many : too_many + _TRIED_BEHIND]:
            if fits_budget([*chosen, unit]):
                chosen.append(unit)
    drift_db = measured(chosen).drift_db if chosen else 0.0
    by_share = sorted(steps.values(), key=lambda s: (s.mult_adds_share, s.drift_db))
    return Placement(tuple(chosen), drift_db, tuple(by_share))


def _worth_it(order: Sequence[Unit], effects: Mapping[str, Effect], all_mult_adds: int) -> int:
    """How many units, in order, are worth their error if there is no budget at all."""
    noise = sum(effects[unit.name].noise_db for unit in order)
    left_out = 0.0
    for i in reversed(range(len(order))):
        unit = order[i]
        share = unit.mult_adds / all_mult_adds
        left_out += share
        is_poor = effects[unit.name].noise_db <= noise * share * _POOR_BARGAIN
        if left_out > _LEFT_OUT_SHARE or not is_poor:
            return i + 1
    return len(order)


def _prefix_of_share(order: Sequence[Unit], mult_adds: float) -> int:
    """How many units, in order, it takes to reach so many Mult-Adds."""
    reached = 0
    for i, unit in enumerate(order):
        if reached >= mult_adds:
            return i
        reached += unit.mult_adds
    return len(order)
