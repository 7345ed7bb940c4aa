"""Search for the operations that need fp32 because of rounding, by the loss that each causes."""

import logging
from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import onnx

from swise_deploy.evaluation.pairs import Pair
from swise_deploy.precision import HalfPrecision
from swise_export.graph.half_emulation import MOVES
from swise_export.precision.countdown import Countdown
from swise_export.precision.crops import textured_crops
from swise_export.precision.search.switchable_graph import SwitchableNetwork, switchable_half
from swise_export.verification.budget import DriftBudget

logger = logging.getLogger(__name__)

_CROP = 48
_MAX_CROPS = 4
# Operators that round nothing: they copy values or compute sizes.
_UNROUNDED = MOVES | {"Cast", "ConstantOfShape", "Shape"}


class HalfSearch:
    """Finds the nodes of a graph that have to stay in fp32; its measurements serve every budget.

    Args:
        model: An fp32 model with float io and a name for every node.
        pairs: Pictures; crops of the first few are measured.
        precision: The format of the other nodes.
        scale: Output size over input size.
        kept: Nodes that are in fp32 already.
        threads: Threads of ONNX Runtime.
        report: Receives lines of progress.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        pairs: Sequence[Pair],
        *,
        precision: HalfPrecision,
        scale: int,
        kept: Collection[str],
        threads: int,
        report: Callable[[str], None] = logger.info,
    ) -> None:
        self._names = [
            node.name
            for node in model.graph.node
            if node.op_type not in _UNROUNDED and node.name not in kept
        ]
        self._precision, self._report = precision, report
        crops = textured_crops(pairs[:_MAX_CROPS], size=_CROP, per_picture=1, scale=scale)
        switchable = switchable_half(model, self._names, precision)
        self._network = SwitchableNetwork(
            switchable, self._names, crops, scale=scale, threads=threads
        )

    def nodes_for_fp32(self, budget: DriftBudget) -> tuple[str, ...] | None:
        """The fewest nodes, worst first, that have to be fp32; None where all would have to be."""
        if self._fits(self._names, budget):
            return ()
        names = self._worst_first
        too_few, enough = 0, len(names)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self._fits(names[middle:], budget):
                enough = middle
            else:
                too_few = middle
        if enough == len(names):
            return None
        self._report(f"{enough} operations go back to fp32; the worst is {names[0]}")
        return tuple(names[:enough])

    def _fits(self, lowered: Collection[str], budget: DriftBudget) -> bool:
        found = self._network.effect(lowered)
        return budget.allows(found.drift_db, found.worst_db)

    @cached_property
    def _worst_first(self) -> list[str]:
        """Nodes by the loss of each alone."""
        losses: dict[str, float] = {}
        countdown = Countdown(
            f"loss in {self._precision}", len(self._names), "operations", report=self._report
        )
        for name in self._names:
            losses[name] = self._network.effect([name]).noise_db
            countdown.advance()
        return sorted(self._names, key=lambda name: (losses[name], name))
