"""Search for the operations that need fp32 because of rounding, by the loss that each causes."""

import logging
from collections.abc import Callable, Collection, Sequence

import onnx

from swise_deploy.evaluation.pairs import Pair
from swise_deploy.precision import HalfPrecision
from swise_export.graph.half_emulation import MOVES
from swise_export.precision.calibration import textured_crops
from swise_export.precision.countdown import Countdown
from swise_export.precision.switchable_graph import SwitchableNetwork, switchable_half
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

_CROP = 48
_MAX_CROPS = 4
# Operators that round nothing: they copy values or compute sizes.
_UNROUNDED = MOVES | {"Cast", "ConstantOfShape", "Shape"}


def nodes_for_fp32(
    model: onnx.ModelProto,
    pairs: Sequence[Pair],
    *,
    precision: HalfPrecision = "fp16",
    scale: int,
    budget: DriftBudget,
    kept: Collection[str],
    threads: int,
    report: Callable[[str], None] = logger.info,
) -> tuple[str, ...]:
    """Find the fewest nodes, worst first, that have to be fp32 for a graph to fit the budget.

    Args:
        model: An fp32 model with float io and a name for every node.
        pairs: Pictures; crops of the first few are measured.
        precision: The format of the other nodes.
        scale: Output size over input size.
        budget: The largest loss that is allowed.
        kept: Nodes that are in fp32 already.
        threads: Threads of ONNX Runtime.
        report: Receives lines of progress.
    """
    names = [
        node.name
        for node in model.graph.node
        if node.op_type not in _UNROUNDED and node.name not in kept
    ]
    crops = textured_crops(pairs[:_MAX_CROPS], size=_CROP, per_picture=1, scale=scale)
    switchable = switchable_half(model, names, precision)
    network = SwitchableNetwork(switchable, names, crops, scale=scale, threads=threads)

    def fits_budget(lowered: Collection[str]) -> bool:
        found = network.effect(lowered)
        return budget.allows(found.drift_db, found.worst_db)

    if fits_budget(names):
        return ()
    losses: dict[str, float] = {}
    countdown = Countdown(f"loss in {precision}", len(names), "operations", report=report)
    for name in names:
        losses[name] = network.effect([name]).noise_db
        countdown.advance()
    worst_first = sorted(names, key=lambda name: (losses[name], name))
    too_few, enough = 0, len(names)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if fits_budget(worst_first[middle:]):
            enough = middle
        else:
            too_few = middle
    report(f"{enough} operations go back to fp32; the worst is {worst_first[0]}")
    return tuple(worst_first[:enough])
