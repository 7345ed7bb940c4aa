"""Placements: found, kept, replayed."""

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import pytest

from swise_deploy.errors import InputError
from swise_export.precision.pareto import draw_pareto, pareto_front
from swise_export.precision.plan import PlannedLayer, PrecisionPlan, read_plan, write_plan
from swise_export.precision.search.placement import Journal, Step, Unit, measure_sensitivity, place
from swise_export.precision.search.switchable_graph import Effect
from swise_export.verification.budget import DriftBudget

UNITS = tuple(Unit(name, (name,), cost) for name, cost in
              {"big": 60, "middle": 25, "small": 10, "tiny": 5}.items())  # fmt: skip
LOSSES = {"big": 0.010, "middle": 0.020, "small": 0.001, "tiny": 0.200}


class AdditiveNetwork:
    """Each layer loses what it loses alone: the placement can be worked out by hand."""

    def __init__(self) -> None:
        self.runs = 0

    def effect(self, lowered: Collection[str]) -> Effect:
        self.runs += 1
        loss = -sum(LOSSES[name] for name in lowered)
        return Effect(loss, loss, loss)


def placement(budget: float, journal: Journal | None = None):
    journal = journal or Journal(AdditiveNetwork())
    effects = measure_sensitivity(journal, UNITS)
    return place(journal, UNITS, effects, budget=DriftBudget(budget), all_mult_adds=100)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1.0, {"big", "middle", "small", "tiny"}),
        (0.05, {"big", "middle", "small"}),
        (0.012, {"big", "small"}),
        (0.0015, {"small"}),
        (0.0001, set()),
    ],
)
def test_as_much_is_lowered_as_the_budget_allows(budget: float, expected: set[str]) -> None:
    found = placement(budget)
    assert -found.drift_db <= budget
    # No other placement within the budget has more Mult-Adds; by enumeration of all 16.
    best = max(
        sum(u.mult_adds for i, u in enumerate(UNITS) if mask >> i & 1)
        for mask in range(16)
        if sum(LOSSES[u.name] for i, u in enumerate(UNITS) if mask >> i & 1) <= budget
    )
    assert sum(unit.mult_adds for unit in found.units) == best
    assert {unit.name for unit in found.units} == expected


def test_units_with_much_error_and_few_mult_adds_are_never_lowered() -> None:
    units = (*UNITS[:2], Unit("picture", ("small",), 1), Unit("cheap", ("tiny",), 1))
    # Of a loss of 0.231, "picture" causes 0.4% with 1.1% of the Mult-Adds; "cheap" 87%.
    journal = Journal(AdditiveNetwork())
    effects = measure_sensitivity(journal, units)
    found = place(journal, units, effects, budget=DriftBudget(1.0), all_mult_adds=100)
    assert {unit.name for unit in found.units} == {"big", "middle", "picture"}
    assert max(step.mult_adds_share for step in found.steps) == pytest.approx(0.87)


class LuckyNetwork(AdditiveNetwork):
    """What rounding costs, it wins by chance on these pictures."""

    def effect(self, lowered: Collection[str]) -> Effect:
        loss = super().effect(lowered).noise_db
        return Effect(0.01, loss, loss)


def test_a_gain_by_chance_does_not_pay_for_other_losses() -> None:
    found = placement(0.012, Journal(LuckyNetwork()))
    assert {unit.name for unit in found.units} == {"big", "small"}
    assert found.drift_db == 0.01


class UnevenNetwork(AdditiveNetwork):
    """One picture of many loses a hundred times what they lose on average."""

    def effect(self, lowered: Collection[str]) -> Effect:
        loss = super().effect(lowered).noise_db
        return Effect(loss, loss, 100 * loss)


@pytest.mark.parametrize(
    ("worst_db", "expected"),
    [
        (None, {"big", "middle", "small"}),
        (3.1, {"big", "middle", "small"}),
        (1.1, {"big", "small"}),
    ],
)
def test_no_picture_loses_more_than_its_own_budget(
    worst_db: float | None, expected: set[str]
) -> None:
    journal = Journal(UnevenNetwork())
    effects = measure_sensitivity(journal, UNITS)
    reported: list[str] = []
    budget = DriftBudget(0.05, worst_db)
    found = place(journal, UNITS, effects, budget=budget, all_mult_adds=100, report=reported.append)
    assert {unit.name for unit in found.units} == expected
    # Why a placement that keeps the average was not taken.
    assert any("dB on the worst" in line for line in reported) == (worst_db is not None)


def test_a_budget_refuses_nan_and_halves_both_limits() -> None:
    budget = DriftBudget(0.05, 0.3)
    assert budget.allows(-0.05, -0.3)
    assert not budget.allows(-0.051, 0.0)
    assert not budget.allows(0.0, -0.31)
    assert not budget.allows(float("nan"), 0.0)
    assert not budget.allows(0.0, float("nan"))
    assert budget.share(0.5) == DriftBudget(0.025, 0.15)
    assert DriftBudget(0.05).share(0.5) == DriftBudget(0.025)
    assert str(budget) == "0.05 dB, 0.3 dB on any one picture"


def test_every_step_states_its_share_and_drift() -> None:
    steps = placement(0.012).steps
    assert steps == tuple(sorted(steps, key=lambda s: (s.mult_adds_share, s.drift_db)))
    for share, drift_db, num_layers in ((1.0, -0.231, 4), (0.7, -0.011, 2)):
        found = [s for s in steps if (s.mult_adds_share, s.num_layers) == (share, num_layers)]
        assert len(found) == 1
        assert (found[0].drift_db, found[0].worst_db) == pytest.approx((drift_db, drift_db))


def test_same_input_same_placement() -> None:
    assert placement(0.02) == placement(0.02)


def test_an_interrupted_search_continues(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "search.jsonl"
    first = AdditiveNetwork()
    measure_sensitivity(Journal(first, path), UNITS[:2])
    assert first.runs == 2
    # A kill leaves half a line.
    path.write_text(path.read_text() + '["abc", -0.0')
    second = AdditiveNetwork()
    found = placement(0.05, Journal(second, path))
    assert found == placement(0.05)
    third = AdditiveNetwork()
    assert placement(0.05, Journal(third, path)) == found
    assert third.runs == 0


def test_the_front_excludes_placements_that_another_one_beats() -> None:
    steps = (Step(0.2, -0.01, 1), Step(0.5, -0.05, 2), Step(0.6, -0.02, 3), Step(1.0, -0.3, 4))
    assert [s.mult_adds_share for s in pareto_front(steps)] == [0.2, 0.6, 1.0]


def a_plan() -> PrecisionPlan:
    layers = (
        PlannedLayer("first", "int8", 1.5, 70, -0.01, -0.02),
        PlannedLayer("second", "fp16", 0.5, 20, -0.3, -0.3),
    )
    return PrecisionPlan(
        model="swisenet", scale=2, form="deploy", weights_sha256="ab" * 32, rest="fp16",
        layers=layers,
        mult_adds=100, method="mse", rounding="moments", num_pictures=3, pictures_sha256="cd" * 32,
        max_drift_db=0.05, held_out_drift_db=-0.01, drift_by_step=(Step(0.7, -0.01, 1),),
    )  # fmt: skip


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = a_plan()
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    assert plan.mult_adds_share == 0.7
    assert [layer.name for layer in plan.quantised_layers] == ["first"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema_version is 99; this version reads 1"),
        ({"surprise": 1}, "surprise"),
        ({"rest": "fp8"}, r"'fp8'.*rest"),
        ({"layers": None}, "layers"),
        ({"layers": [{"name": "first"}]}, "layers"),
        ({"mult_adds": 0}, "mult_adds"),
        ({"max_drift_db": "little"}, "max_drift_db"),
        ({"drift_by_step": [[0.7, -0.01, 1]]}, "drift_by_step"),
    ],
)
def test_an_invalid_plan_is_refused_with_the_wrong_key(
    tmp_path: Path, change: dict, message: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**dataclasses.asdict(a_plan()), **change}))
    with pytest.raises(InputError, match=message):
        read_plan(path)


def test_a_file_that_is_not_a_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    for name, message in (("list.json", "JSON object"), ("none.json", "cannot read")):
        with pytest.raises(InputError, match=message):
            read_plan(tmp_path / name)


def test_front_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_pareto(tmp_path / "front.png", a_plan(), title="x")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_front_shows_the_budget_of_any_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    drawn: list[str] = []
    saved = figures.Figure.savefig

    def savefig(figure, *args, **kwargs) -> None:
        drawn.extend(text.get_text() for text in figure.axes[0].get_legend().get_texts())
        saved(figure, *args, **kwargs)

    monkeypatch.setattr(figures.Figure, "savefig", savefig)
    draw_pareto(tmp_path / "none.png", a_plan(), title="x")
    assert "its budget" not in drawn
    older = dataclasses.replace(a_plan(), max_worst_db=0.02)
    step = Step(0.7, -0.01, 1, -0.015)
    for plan in (older, dataclasses.replace(older, drift_by_step=(step,))):
        drawn.clear()
        draw_pareto(tmp_path / "worst.png", plan, title="x")
        assert {"worst picture", "its budget"} <= set(drawn)
