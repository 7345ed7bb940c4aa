"""What share of the work is done in which precision, and whether that is what was asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from swise_deploy.errors import BuildError
from swise_engines.tensorrt.layer_types import MULTIPLIERS, SHAPES, UNTOLD, LayerTypes
from swise_export.graph.counting import Counts

Origin = Literal["parsed network", "built engine"]

# The part of the Mult-Adds that has to be in the precision asked for. A first or last layer kept
# wider is normal; a graph that is mostly something else was not what was asked.
LEAST_SHARE: Mapping[str, float] = {"fp32": 1.0, "fp16": 0.9, "int8": 0.5}
ROUNDING = 1e-9  # of sums of shares


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """One precision: how many layers compute in it, and their share of the Mult-Adds (0 to 1).

    `weights` says how many of those layers store their weights in which type.
    """

    precision: str
    num_layers: int
    mult_adds_share: float
    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PrecisionTable:
    """Layers by precision.

    Attributes:
        origin: Where it was read.
        rows: Precisions with the largest share first; arithmetic on sizes, and layers that do not
            tell theirs, are left out.
        unattributed_share: Share of the Mult-Adds whose layer could not be told.
    """

    origin: Origin
    rows: tuple[PrecisionRow, ...]
    unattributed_share: float

    def share(self, precision: str) -> float:
        """Share of the Mult-Adds in a precision, 0 to 1."""
        return sum(row.mult_adds_share for row in self.rows if row.precision == precision)

    @property
    def precisions(self) -> frozenset[str]:
        """The precisions that do Mult-Adds."""
        return frozenset(row.precision for row in self.rows if row.mult_adds_share > 0)


def table_from_layers(
    layers: Iterable[LayerTypes], counts: Counts, origin: Origin
) -> PrecisionTable:
    """Sum layers up by precision; a node's Mult-Adds go to the layer that does its multiplying.

    Several kernels of an engine may name one node: one that moves its data, and one that holds its
    weights, which is then the one that counts.
    """
    by_node = {layer.name: layer.mult_adds for layer in counts.layers if layer.mult_adds}
    total = sum(by_node.values())
    work: Counter[str] = Counter()
    number: Counter[str] = Counter()
    stored: dict[str, Counter[str]] = {}
    for layer in sorted(layers, key=lambda layer: not layer.weights):
        if layer.precision in (SHAPES, UNTOLD):
            continue
        number[layer.precision] += 1
        if layer.weights:
            stored.setdefault(layer.precision, Counter())[layer.weights] += 1
        if origin == "built engine" or layer.kind in MULTIPLIERS:
            for node in layer.nodes:
                work[layer.precision] += by_node.pop(node, 0)
    rows = [
        PrecisionRow(
            precision,
            number[precision],
            work[precision] / total if total else 0.0,
            dict(stored.get(precision, {})),
        )
        for precision in number
    ]
    rows.sort(key=lambda row: (-row.mult_adds_share, -row.num_layers))
    return PrecisionTable(origin, tuple(rows), sum(by_node.values()) / total if total else 0.0)


def check_precision(asked: str, table: PrecisionTable) -> None:
    """Refuse a network or engine that does not compute in what was asked for.

    Args:
        asked: "fp32", "fp16", "int8", "mixed"; "" asks for nothing.
        table: What was found.

    Raises:
        BuildError: Names what was asked and what was found.
    """
    if not asked:
        return
    found = ", ".join(f"{r.mult_adds_share:.1%} {r.precision}" for r in table.rows) or "nothing"
    # A parsed network tells every type. An engine may not: it is refused for what it tells.
    benefit = table.unattributed_share if table.origin == "built engine" else 0.0
    if asked == "mixed":
        fits = bool(table.precisions - {"fp32"}) or benefit > 0
        expected = "some of the Mult-Adds below fp32"
    else:
        least = LEAST_SHARE[asked]
        fits = table.share(asked) + benefit >= least - ROUNDING
        expected = f"at least {least:.0%} of the Mult-Adds in {asked}"
    if not fits:
        raise BuildError(
            f"{asked} was asked for, but the {table.origin} computes in {found} (shares of the "
            f"Mult-Adds; expected {expected}). An engine computes in what the ONNX file says: "
            "export it again with swise-export, or ask for what it is with --precision"
        )
