"""Number formats as ONNX stores them: rounding of values, and tensors of rounded values."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.precision import PRECISIONS, Precision

STORED_TYPES: Mapping[Precision, np.dtype[np.generic]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp8": np.dtype(ml_dtypes.float8_e4m3fn),
    "int8": np.dtype(np.int8),
}
"""NumPy's types."""

ONNX_TYPES: Mapping[Precision, int] = {
    precision: next(
        TensorProto.DataType.Value(name.upper())
        for name in form.names
        if name.upper() in TensorProto.DataType.keys()  # noqa: SIM118  # no dict
    )
    for precision, form in PRECISIONS.items()
}
"""Element types of ONNX."""

_NARROW: tuple[Precision, ...] = ("fp16", "bf16", "fp8")


def rounded(values: NDArray[np.floating], precision: Precision) -> NDArray[np.float32]:
    """Round to the nearest number of a format, ties to even; 8-bit formats saturate.

    INT8 is symmetric: -127 to 127.
    """
    form = PRECISIONS[precision]
    if form.num_bytes == 1:
        values = np.clip(values, -form.max_finite, form.max_finite)
    is_integer = precision == "int8"
    nearest = np.rint(values) if is_integer else values.astype(STORED_TYPES[precision])
    return np.asarray(nearest, np.float32)


def tensor_from_values(
    values: NDArray[np.floating], precision: Precision, name: str
) -> onnx.TensorProto:
    """A tensor in a format, of values rounded as by `rounded`."""
    stored = rounded(values, precision).astype(STORED_TYPES[precision])
    return helper.make_tensor(name, ONNX_TYPES[precision], stored.shape, stored.tobytes(), raw=True)


def values_of_tensor(tensor: onnx.TensorProto) -> NDArray[np.float32]:
    """The values of a tensor of any format, as fp32."""
    return np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)


def narrow_formats(model: onnx.ModelProto) -> frozenset[Precision]:
    """Those of fp16, bf16 and FP8 in which a model stores numbers, or to which it converts them."""
    types = {tensor.data_type for tensor in model.graph.initializer} | {
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "to"
    }
    return frozenset(name for name in _NARROW if ONNX_TYPES[name] in types)
