"""Types of the multiplying kernels of a compiled engine, from the program that it carries.

An engine of TensorRT for RTX contains its program as text, which can be read without a GPU: every
tensor with its type, and every convolution and matrix product with its ONNX nodes and its operands
(1.7.1.116; `tests/engines/tensorrt/test_compiled_program.py`). They are what is multiplied: a
convolution that was parsed as INT8 reads floats where TensorRT has no kernel for it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import get_args

from swise_deploy.errors import BuildError
from swise_deploy.precision import Precision, QuantisedPrecision
from swise_engines.tensorrt.layer_types import LayerTypes, nodes_of
from swise_engines.tensorrt.precision_table import PrecisionTable

_KINDS: Mapping[bytes, str] = {
    b"corrltn": "CONVOLUTION",
    b"deconvolution": "DECONVOLUTION",
    b"fully_connected": "MATRIX_MULTIPLY",
}
TYPES: Mapping[bytes, Precision] = {
    b"float": "fp32",
    b"half": "fp16",
    b"bf16": "bf16",
    b"fp8_e4m3": "fp8",
    b"int8": "int8",
}
"""Precisions by the names of the program."""

# tensor={ alignment=32 dims={ 1 16 64 64 } mem_prop=0 name="x.1" [...] type=float }
_TENSOR = re.compile(rb'\n  tensor=\{[^\n]*? name="([^"\n]+)"[^\n]*? type=(\w+) \}')
_STATEMENT = re.compile(rb"\n  (?=\w+=\{ )")
# corrltn={ name="/head/Conv" output={"a" } input={"b" "c" } [...] layers="[ONNX Layer: x]\n[...]" }
_PRODUCT = re.compile(
    rb'(?P<kind>corrltn|deconvolution|fully_connected)=\{ name="(?P<name>[^"]*)"[^\n]*?'
    rb" output=\{(?P<outputs>[^}]*)\} input=\{(?P<inputs>[^}]*)\}"
)
_LAYERS = re.compile(rb' layers="([^"]*)"')
_QUOTED = re.compile(rb'"([^"]+)"')


def products_from_plan(plan: bytes) -> tuple[LayerTypes, ...]:
    """Convolutions and matrix products of a compiled engine; none for one without a program.

    A product that is there for several sizes is there once in the result.
    """
    types = {m[1]: TYPES.get(m[2]) for m in _TENSOR.finditer(plan)}
    found: dict[str, LayerTypes] = {}
    for layer in _products(plan, types):
        found.setdefault(layer.name, layer)
    return tuple(found.values())


def _products(plan: bytes, types: Mapping[bytes, Precision | None]) -> Iterator[LayerTypes]:
    start = plan.find(b"main {\n")
    for statement in _STATEMENT.split(plan[start:]) if start >= 0 else []:
        product = _PRODUCT.match(statement)
        if product is None:
            continue
        operands = [types.get(name) for name in _QUOTED.findall(product["inputs"])[:2]]
        outputs = [types.get(name) for name in _QUOTED.findall(product["outputs"])]
        precisions = {operand for operand in operands if operand is not None}
        layers = _LAYERS.search(statement)
        name = product["name"].decode(errors="replace")
        if len(operands) == 2 and len(precisions) == 1:
            yield LayerTypes(
                name=name,
                kind=_KINDS[product["kind"]],
                inputs=tuple(operand or "" for operand in operands),
                outputs=tuple(output or "" for output in outputs),
                weights=operands[1] or "",
                precision=precisions.pop(),
                nodes=nodes_of(name, "" if layers is None else layers[1].decode(errors="replace")),
            )


def check_compiled(asked: str, parsed: PrecisionTable, compiled: PrecisionTable) -> None:
    """Refuse an engine none of whose quantised layers were compiled as such.

    Args:
        asked: Precision that was requested; "" accepts any.
        parsed: Precisions of the parsed network.
        compiled: Precisions of the compiled products; nothing is checked where there are none.

    Raises:
        BuildError: Layers were parsed as INT8 or FP8, and none multiplies in it.
    """
    if not asked or not compiled.rows:
        return
    for precision in get_args(QuantisedPrecision):
        share = parsed.share(precision)
        if share > 0 and not compiled.share(precision):
            found = ", ".join(f"{r.mult_adds_share:.1%} {r.precision}" for r in compiled.rows)
            raise BuildError(
                f"{asked} was requested and {share:.1%} of the Mult-Adds were parsed as "
                f"{precision}, but the compiled engine multiplies in {found}: TensorRT compiled "
                "these layers to a wider format. Export with --fp16 for this device"
            )
