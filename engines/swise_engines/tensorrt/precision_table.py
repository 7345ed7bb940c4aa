"""Shares of the Mult-Adds by precision, compared with the requested precision."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from swise_deploy.errors import BuildError
from swise_deploy.precision import FilePrecision, Precision
from swise_engines.tensorrt.layer_types import MULTIPLIERS, SHAPES, UNKNOWN, LayerTypes
from swise_export.counting import Counts

Origin = Literal["parsed network", "compiled engine", "built engine"]

# The share of the Mult-Adds that has to be in the requested precision. A wider first or last layer
# is normal; a graph that is mostly something else is an error.
LEAST_SHARE: Mapping[Precision, float] = {
    "fp32": 1.0,
    "fp16": 0.9,
    "bf16": 0.9,
    "int8": 0.5,
    "fp8": 0.5,
}
ROUNDING = 1e-9  # of sums of shares


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """One precision: how many layers compute in it, and their share of the Mult-Adds (0 to 1).

    `weights` counts those layers by the type of their weights.
    """

    precision: str
    num_layers: int
    mult_adds_share: float
    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PrecisionTable:
    """Layers by precision.

    Attributes:
        origin: Its source.
        rows: Precisions, the largest share first, without arithmetic on sizes and layers of
            unknown precision.
        unattributed_share: Share of the Mult-Adds whose layer is unknown.
    """

    origin: Origin
    rows: tuple[PrecisionRow, ...]
    unattributed_share: float

    def share(self, precision: str) -> float:
        """Share of the Mult-Adds in a precision, 0 to 1."""
        return sum(row.mult_adds_share for row in self.rows if row.precision == precision)

    @property
    def precisions(self) -> frozenset[str]:
        """The precisions with Mult-Adds."""
        return frozenset(row.precision for row in self.rows if row.mult_adds_share > 0)


def table_from_layers(
    layers: Iterable[LayerTypes], counts: Counts, origin: Origin
) -> PrecisionTable:
    """Sum layers up by precision; a node's Mult-Adds go to the layer that does its multiplying.

    Several kernels of an engine may name one node. If one of them holds its weights, that one
    counts; others move its data.
    """
    by_node = {layer.name: layer.mult_adds for layer in counts.layers if layer.mult_adds}
    total = sum(by_node.values())
    work: Counter[str] = Counter()
    number: Counter[str] = Counter()
    stored: dict[str, Counter[str]] = {}
    for layer in sorted(layers, key=lambda layer: not layer.weights):
        if layer.precision in (SHAPES, UNKNOWN):
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


def check_precision(asked: FilePrecision | Literal[""], table: PrecisionTable) -> None:
    """Refuse a network or engine without the requested precision.

    Args:
        asked: A precision, or "mixed"; "" accepts any.
        table: The precisions found.

    Raises:
        BuildError: The message names the requested and the found precisions.
    """
    if not asked:
        return
    found = ", ".join(f"{r.mult_adds_share:.1%} {r.precision}" for r in table.rows) or "nothing"
    # A parsed network names every type. An engine may not; it gets the benefit of the doubt.
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
            f"{asked} was requested, but the {table.origin} computes in {found} (shares of the "
            f"Mult-Adds; expected {expected}). The ONNX file determines an engine's precision: "
            "export it again with swise-export, or give its precision with --precision"
        )
