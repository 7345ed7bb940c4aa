"""Precisions: the number formats that networks compute in, as one type and one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
"""The number format of a layer, of a whole file, or of a runner's arithmetic."""

FilePrecision = Literal["fp32", "fp16", "bf16", "fp8", "int8", "mixed"]
"""The precision of a file or engine: "mixed" where several layers that multiply differ."""

FILE_PRECISIONS: tuple[FilePrecision, ...] = get_args(FilePrecision)

ExportPrecision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
"""Precisions that swise-export writes into a graph."""

EXPORT_PRECISIONS: tuple[ExportPrecision, ...] = get_args(ExportPrecision)

HalfPrecision = Literal["fp16", "bf16"]
"""Precisions of 16 bits, to which numbers are rounded without a scale."""

QuantisedPrecision = Literal["int8", "fp8"]
"""Precisions of 8 bits, in which numbers have a scale."""

RestPrecision = Literal["fp16", "fp32"]
"""Precisions of the other layers in a graph with quantised layers."""

ActivationType = Literal["int8", "uint8"]
"""Stored type of INT8 activations: int8 with zero point 0, or uint8 with zero point 128."""

QUANTISED_OR_ROUNDED: tuple[FilePrecision, ...] = ("int8", "mixed", "fp8", "bf16")
"""Precisions of files that a runtime may compute otherwise than they state."""

TrainingPrecision = Literal["fp32", "bf16", "fp16"]
"""Precisions of the forward pass in training."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """A number format.

    Attributes:
        bits: Bits of a number.
        names: Names of the type, in lower case: in ONNX, numpy and TensorRT.
        max_finite: Largest magnitude.
    """

    bits: int
    names: tuple[str, ...]
    max_finite: float

    @property
    def num_bytes(self) -> int:
        """Bytes of a number in memory."""
        return self.bits // 8


PRECISIONS: Mapping[Precision, NumberFormat] = {
    "fp32": NumberFormat(32, ("fp32", "float", "float32"), max_finite=3.4028234663852886e38),
    # IEEE 754 binary16: 2^15 (2 - 2^-10).
    "fp16": NumberFormat(16, ("fp16", "half", "float16"), max_finite=65504.0),
    # 2^127 (2 - 2^-7).
    "bf16": NumberFormat(16, ("bf16", "bfloat16"), max_finite=3.3895313892515355e38),
    # E4M3, finite numbers only; Micikevicius et al., "FP8 formats for deep learning", 2022.
    "fp8": NumberFormat(8, ("fp8", "float8e4m3fn"), max_finite=448.0),
    "int8": NumberFormat(8, ("int8",), max_finite=127.0),
}


def precision_of_type(name: str) -> Precision | None:
    """The precision with a type name of ONNX, numpy or TensorRT; None for other types."""
    return _BY_NAME.get(name.lower())


_BY_NAME: Mapping[str, Precision] = {
    name: precision for precision, form in PRECISIONS.items() for name in form.names
}


def half_precision(precision: ExportPrecision) -> HalfPrecision | None:
    """A precision of 16 bits as such; None for others."""
    return next((half for half in get_args(HalfPrecision) if half == precision), None)


def quantised_precision(precision: ExportPrecision) -> QuantisedPrecision | None:
    """A precision of 8 bits as such; None for others."""
    return next((low for low in get_args(QuantisedPrecision) if low == precision), None)


def combined_precision(precisions: "frozenset[Precision] | set[Precision]") -> FilePrecision | None:
    """One word for the precisions of several layers; None for no layers at all."""
    if not precisions:
        return None
    return next(iter(precisions)) if len(precisions) == 1 else "mixed"
