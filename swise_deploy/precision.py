"""Precisions: the number formats that networks compute in, as one type and one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
"""The number format of a layer, of a whole file, or of a runner's arithmetic."""

FilePrecision = Literal["fp32", "fp16", "bf16", "fp8", "int8", "mixed"]
"""The precision of a file or engine: "mixed" where several layers that multiply differ."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """A number format.

    Attributes:
        bits: Bits of a number.
        onnx_type: Name in onnx.TensorProto.DataType.
        is_float: False for integers, which need a scale for each tensor.
        max_finite: Largest magnitude.
    """

    bits: int
    onnx_type: str
    is_float: bool
    max_finite: float

    @property
    def num_bytes(self) -> int:
        """Bytes of a number in memory."""
        return self.bits // 8


PRECISIONS: Mapping[Precision, NumberFormat] = {
    "fp32": NumberFormat(32, "FLOAT", is_float=True, max_finite=3.4028234663852886e38),
    # IEEE 754 binary16: 2^15 (2 - 2^-10).
    "fp16": NumberFormat(16, "FLOAT16", is_float=True, max_finite=65504.0),
    # 2^127 (2 - 2^-7).
    "bf16": NumberFormat(16, "BFLOAT16", is_float=True, max_finite=3.3895313892515355e38),
    # E4M3, finite numbers only; Micikevicius et al., "FP8 formats for deep learning", 2022.
    "fp8": NumberFormat(8, "FLOAT8E4M3FN", is_float=True, max_finite=448.0),
    "int8": NumberFormat(8, "INT8", is_float=False, max_finite=127.0),
}

ORDER: tuple[Precision, ...] = get_args(Precision)
"""From the widest to the narrowest, the order of tables."""


def precision_of_onnx_type(name: str) -> Precision | None:
    """The precision of a floating-point or INT8 tensor by its ONNX type; None for other types."""
    return _BY_ONNX_TYPE.get(name)


_BY_ONNX_TYPE: Mapping[str, Precision] = {
    number_format.onnx_type: name for name, number_format in PRECISIONS.items()
}


def combined_precision(precisions: "frozenset[Precision] | set[Precision]") -> FilePrecision | None:
    """One word for the precisions of several layers; None for no layers at all."""
    if not precisions:
        return None
    return next(iter(precisions)) if len(precisions) == 1 else "mixed"
