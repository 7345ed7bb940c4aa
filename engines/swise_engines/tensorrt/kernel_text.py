"""Number formats that compiled kernels store, counted in the text that an engine carries.

Engines of TensorRT for RTX carry the C++ source of their pointwise kernels, which quantise, cast
and move data between convolutions. They are compiled further on the GPU, so that they can be read
without one. An engine whose convolutions compute in INT8 has kernels that store int8; an engine
whose quantised convolutions were compiled to floating point has none (1.7.1.116, SM 7.5).
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import get_args

from swise_deploy.errors import BuildError
from swise_deploy.precision import PRECISIONS, Precision, QuantisedPrecision
from swise_engines.tensorrt.compiled_program import TYPES
from swise_engines.tensorrt.precision_table import PrecisionTable

# A store in the source: ((__myln_int8*)__v12)[...] = __v18;
_STORE = re.compile(rb"\(\(__myln_(\w+)\*\)__v\d+\)\[[^;\n]*\] = ")
# Formats that a kernel has to produce before a convolution can take them; a wider one may come from
# a convolution or from the input, whose kernels have no text.
_QUANTISED: tuple[QuantisedPrecision, ...] = get_args(QuantisedPrecision)


def count_stores(plan: bytes) -> dict[Precision, int]:
    """Number of stores of each precision in the kernels' text; empty for an engine without text."""
    found = Counter(TYPES.get(match[1]) for match in _STORE.finditer(plan))
    return {precision: found[precision] for precision in PRECISIONS if found[precision]}


def check_stores(asked: str, parsed: PrecisionTable, stores: Mapping[Precision, int]) -> None:
    """Refuse an engine whose quantised layers were not compiled as such.

    Args:
        asked: Precision that was requested; "" accepts any.
        parsed: Precisions of the parsed network.
        stores: Stores of the compiled kernels; nothing is checked where there are none.

    Raises:
        BuildError: Layers were parsed as INT8 or FP8, and no kernel stores it.
    """
    if not asked or not stores:
        return
    for precision in _QUANTISED:
        share = parsed.share(precision)
        if share > 0 and not stores.get(precision):
            raise BuildError(
                f"{asked} was requested and {share:.1%} of the Mult-Adds were parsed as "
                f"{precision}, but the compiled kernels store {describe_stores(stores)}: "
                "TensorRT compiled these layers to a wider format. Export with --fp16 for this "
                "device"
            )


def describe_stores(stores: Mapping[Precision, int]) -> str:
    """The counts as text, such as "164 int8, 68 fp32"."""
    ranked = sorted(stores.items(), key=lambda item: -item[1])
    return ", ".join(f"{number} {precision}" for precision, number in ranked)
