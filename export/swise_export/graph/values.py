"""Element type and shape of one value of a graph."""

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper


@dataclass(frozen=True, slots=True)
class ValueType:
    """Element type (a TensorProto.DataType) and shape of one value."""

    dtype: int
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def size_bytes(self) -> int:
        """Bytes in memory; types under 8 bits are packed."""
        if self.dtype in _PACKED_BITS:
            return -(-self.num_elements * _PACKED_BITS[self.dtype] // 8)
        return self.num_elements * helper.tensor_dtype_to_np_dtype(self.dtype).itemsize


_PACKED_BITS = {
    onnx.TensorProto.DataType.Value(name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4))
    if name in onnx.TensorProto.DataType.keys()  # noqa: SIM118  # a protobuf enum, not a dict
}

_FEW_VALUES = 4


def content_key(tensor: onnx.TensorProto) -> tuple[object, ...] | None:
    """A key that is equal for copies of one stored weight; None for weights without a key.

    Tensors of rank 0 and 1 and those with only a few different values have none: biases and scales
    of untrained layers and identity kernels may be equal without being copies.
    """
    content = tensor.raw_data
    num = int(np.prod(tensor.dims, dtype=np.int64))
    if len(tensor.dims) < 2 or num < 2 or len(content) < num:
        return None
    width = len(content) // num
    values = {content[at : at + width] for at in range(0, min(len(content), 4096 * width), width)}
    if len(values) <= _FEW_VALUES:
        return None
    return tensor.data_type, tuple(tensor.dims), hashlib.sha256(content).digest()


def type_proto(value: ValueType) -> onnx.TypeProto:
    """Convert a type to ONNX's message."""
    return helper.make_tensor_type_proto(value.dtype, value.shape)
