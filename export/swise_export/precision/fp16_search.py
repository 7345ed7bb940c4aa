"""Which operations need fp32 although nothing overflows in them: found by what each one loses."""

import logging
import time
from collections.abc import Callable, Collection, Sequence

import onnx

from swise_deploy.evaluation.pairs import Pair
from swise_export.graph.fp16_emulation import MOVES
from swise_export.precision.calibration import textured_crops
from swise_export.precision.switchable_graph import GatedNetwork, gated_fp16
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

_CROP = 48
_MOST_CROPS = 4
# Nothing is rounded in these: they pass values on, or compute sizes.
_UNROUNDED = MOVES | {"Cast", "ConstantOfShape", "Shape"}


def nodes_for_fp32(
    model: onnx.ModelProto,
    pairs: Sequence[Pair],
    *,
    scale: int,
    budget: DriftBudget,
    kept: Collection[str],
    threads: int,
    say: Callable[[str], None] = logger.info,
) -> tuple[str, ...]:
    """The fewest nodes, worst first, that bring an fp16 graph back within its drift.

    Args:
        model: fp32, float io, every node named.
        pairs: Pictures; a crop of some of them is measured on.
        scale: Output size over input size.
        budget: What may be lost.
        kept: Nodes that are fp32 already.
        threads: Threads of ONNX Runtime.
        say: Takes lines of progress.
    """
    names = [
        node.name
        for node in model.graph.node
        if node.op_type not in _UNROUNDED and node.name not in kept
    ]
    crops = textured_crops(pairs[:_MOST_CROPS], size=_CROP, per_picture=1, scale=scale)
    gated = gated_fp16(model, names)
    network = GatedNetwork(gated, names, crops, scale=scale, threads=threads)

    def fits_budget(lowered: Collection[str]) -> bool:
        found = network.effect(lowered)
        return budget.allows(found.drift_db, found.worst_db)

    if fits_budget(names):
        return ()
    losses: dict[str, float] = {}
    start = said = time.monotonic()
    for i, name in enumerate(names):
        losses[name] = network.effect([name]).noise_db
        now = time.monotonic()
        if now - said > 5:
            said = now
            left = (now - start) / (i + 1) * (len(names) - i - 1)
            say(f"what fp16 costs: {i + 1} of {len(names)} operations, {left:.0f} s left")
    worst_first = sorted(names, key=lambda name: (losses[name], name))
    too_few, enough = 0, len(names)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if fits_budget(worst_first[middle:]):
            enough = middle
        else:
            too_few = middle
    say(f"{enough} operations go back to fp32; the worst is {worst_first[0]}")
    return tuple(worst_first[:enough])
