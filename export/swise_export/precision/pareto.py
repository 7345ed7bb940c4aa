"""A chart of drift against the share of quantised layers."""

from collections.abc import Iterable
from pathlib import Path

from swise_deploy.command.dependencies import require
from swise_deploy.storage.files import writing
from swise_export.precision.plan import PrecisionPlan
from swise_export.precision.search.placement import Step


def pareto_front(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The placements that no other one beats in both share and drift, by rising share."""
    front: list[Step] = []
    for step in sorted(steps, key=lambda s: (-s.mult_adds_share, -s.drift_db)):
        if not front or step.drift_db > front[-1].drift_db:
            front.append(step)
    return tuple(reversed(front))


def draw_pareto(path: Path, plan: PrecisionPlan, *, title: str) -> None:
    """Draw the measured placements, the Pareto front, the budgets and the chosen placement.

    Raises:
        BackendMissingError: matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    figures = require("matplotlib.figure", extra="export", purpose="drawing drift against share")
    figure = figures.Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [step for step in plan.drift_by_step if step.num_layers]
    axes.scatter(_percent(steps), [s.drift_db for s in steps], color="0.6", s=18, label="measured")
    front = pareto_front(tuple(steps))
    axes.plot(
        _percent(front),
        [s.drift_db for s in front],
        color="tab:blue",
        marker="o",
        markersize=4,
        label="best drift for its share",
    )
    axes.axhline(-plan.max_drift_db, color="tab:red", linestyle="--", label="budget")
    axes.scatter(
        [100 * plan.mult_adds_share],
        [plan.held_out_drift_db],
        color="tab:orange",
        marker="*",
        s=160,
        zorder=3,
        label="chosen",
    )
    if plan.max_worst_db is not None:
        worst = [step for step in steps if step.worst_db is not None]
        axes.scatter(
            _percent(worst),
            [s.worst_db for s in worst],
            color="0.6",
            marker="v",
            s=18,
            label="worst picture",
        )
        axes.axhline(-plan.max_worst_db, color="tab:red", linestyle=":", label="its budget")
    axes.set_xlabel(f"share of the Mult-Adds in {plan.precision.upper()} (%)")
    axes.set_ylabel("PSNR-Y drift on held-out pictures (dB)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _percent(steps: Iterable[Step]) -> list[float]:
    return [100 * step.mult_adds_share for step in steps]
