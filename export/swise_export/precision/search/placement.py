"""Placement of the lower precision: as many layers as a drift budget allows.

The error of each unit is small and adds to the errors of others almost like independent noise. So
units are sorted by noise per Mult-Add, and a binary search finds the largest number of them, in
that order, that fits the budget on held-out pictures. The search is deterministic: the same
network, pictures and budget give the same placement.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from swise_deploy.storage.documents import Count, Share, read_cached_lines
from swise_deploy.storage.files import append_json_line
from swise_export.precision.countdown import Countdown
from swise_export.precision.quantised.qdq import Layer
from swise_export.precision.search.switchable_graph import Effect
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

_PARETO_SHARES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Units are never lowered, whatever the budget, if their share of the error is this many times
# their share of the Mult-Adds, and all of them together have at most 1% of the Mult-Adds.
_MAX_ERROR_TO_SHARE = 10
_MAX_SHARE_LEFT_OUT = 0.01
# Units that are tried one by one after the first one that does not fit.
_TRIED_BEHIND = 6


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that change precision together because they read the same tensor.

    Attributes:
        name: Name of its first layer.
        layers: Names of its layers.
        mult_adds: Mult-Adds of its layers together.
    """

    name: str
    layers: tuple[str, ...]
    mult_adds: int


@dataclass(frozen=True, slots=True)
class Step:
    """A measured placement.

    Attributes:
        mult_adds_share: Share of the Mult-Adds in the lower precision.
        drift_db: PSNR-Y lost (negative) or gained on the held-out pictures.
        num_layers: Number of layers in the lower precision.
        worst_db: `Effect.worst_db`; None in older plans.
    """

    mult_adds_share: Share
    drift_db: float
    num_layers: Count
    worst_db: float | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """The result of a search.

    Attributes:
        units: Units in the lower precision.
        drift_db: Drift of this placement on the held-out pictures.
        steps: All measured placements, by share.
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


def in_order_of_noise(units: Sequence[Unit], noise_db: Mapping[str, float]) -> list[Unit]:
    """Units by the noise of each alone per Mult-Add, the least first."""
    return sorted(units, key=lambda u: (-noise_db[u.name] / max(1, u.mult_adds), u.name))


class Switchable(Protocol):
    """A network of which any set of units can run in the lower precision."""

    def effect(self, lowered: Collection[str]) -> Effect:
        """Measure the effect of lowering the precision of some units."""


class _Line(NamedTuple):
    """A line of a journal: a placement, and its effect."""

    key: str
    drift_db: float
    noise_db: float
    worst_db: float


class Journal:
    """Measured effects, stored in a file so that an interrupted search continues.

    Args:
        network: Measures the effects.
        path: The file, one line for each placement; None stores none. Its name has to be a key of
            everything that the effects depend on.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, network: Switchable, path: Path | None = None) -> None:
        self._network = network
        self._path = path
        self._known: dict[str, Effect] = {}
        for key, *effect in read_cached_lines(path, _Line) if path is not None else []:
            self._known[str(key)] = Effect(*map(float, effect))

    def knows(self, lowered: Collection[str]) -> bool:
        """True where the effect of a placement is stored."""
        return _key(lowered) in self._known

    def effect(self, lowered: Collection[str]) -> Effect:
        """Effect of a placement, measured unless it is stored."""
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
    report: Callable[[str], None] = logger.info,
) -> dict[str, Effect]:
    """Measure the effect of each unit alone, by its name."""
    effects: dict[str, Effect] = {}
    countdown = Countdown("sensitivity", len(units), "groups of layers", report=report)
    for unit in units:
        was_known = journal.knows(unit.layers)
        effects[unit.name] = journal.effect(unit.layers)
        countdown.advance(took_time=not was_known)
    return effects


def place(
    journal: Journal,
    units: Sequence[Unit],
    effects: Mapping[str, Effect],
    *,
    budget: DriftBudget,
    all_mult_adds: int,
    report: Callable[[str], None] = logger.info,
) -> Placement:
    """Lower as many units as the budget allows, in the order of noise per Mult-Add.

    The last few units, 1% of the Mult-Adds together, are never lowered if they cause over ten times
    their share of the error; in SwiseNet that is the bicubic picture itself.

    Args:
        journal: Measures placements on held-out pictures.
        units: Units that may be lowered.
        effects: Effect of each unit alone.
        budget: The largest loss that is allowed: of the mean, by `drift_db` and by `noise_db`; of
            the worst picture by `worst_db`.
        all_mult_adds: Mult-Adds of the whole network.
        report: Receives lines of progress.
    """
    order = in_order_of_noise(units, {name: effect.noise_db for name, effect in effects.items()})
    steps: dict[tuple[str, ...], Step] = {}
    # The fixed shares, all units, and at most a binary search with the units tried behind it.
    most = len(_PARETO_SHARES) + 2 + len(units).bit_length() + _TRIED_BEHIND
    countdown = Countdown("placement, at most", most, "runs", report=report)

    def measured(chosen: Sequence[Unit]) -> Effect:
        names = tuple(sorted(unit.name for unit in chosen))
        layers = [layer for unit in chosen for layer in unit.layers]
        was_known = journal.knows(layers)
        found = journal.effect(layers)
        share = sum(unit.mult_adds for unit in chosen) / all_mult_adds
        if names not in steps:
            worst = "" if budget.worst_db is None else f", {found.worst_db:+.4f} dB on the worst"
            report(f"placement: {share:.0%} of the Mult-Adds, {found.drift_db:+.4f} dB{worst}")
            countdown.advance(took_time=not was_known)
        num_layers = sum(len(unit.layers) for unit in chosen)
        steps[names] = Step(share, found.drift_db, num_layers, found.worst_db)
        return found

    def fits_budget(chosen: Sequence[Unit]) -> bool:
        # Rounding may raise the PSNR of a hard picture by chance; other pictures do not gain.
        found = measured(chosen)
        return budget.allows(min(found.drift_db, found.noise_db), found.worst_db)

    for share in _PARETO_SHARES:
        measured(order[: _prefix_of_share(order, share * all_mult_adds)])
    measured(order)
    chosen = list(order[: _num_worthwhile(order, effects, all_mult_adds)])
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


def _num_worthwhile(
    order: Sequence[Unit], effects: Mapping[str, Effect], all_mult_adds: int
) -> int:
    """Number of units, in order, that are lowered if the budget allows all of them."""
    noise = sum(effects[unit.name].noise_db for unit in order)
    left_out = 0.0
    for i in reversed(range(len(order))):
        unit = order[i]
        share = unit.mult_adds / all_mult_adds
        left_out += share
        is_poor = effects[unit.name].noise_db <= noise * share * _MAX_ERROR_TO_SHARE
        if left_out > _MAX_SHARE_LEFT_OUT or not is_poor:
            return i + 1
    return len(order)


def _prefix_of_share(order: Sequence[Unit], mult_adds: float) -> int:
    """Number of units, in order, whose sum is at least so many Mult-Adds."""
    total = 0
    for i, unit in enumerate(order):
        if total >= mult_adds:
            return i
        total += unit.mult_adds
    return len(order)
