"""Names of types in ONNX, numpy and TensorRT against the libraries themselves."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from swise_deploy.precision import PRECISIONS, Precision, precision_of_type

ONNX_TYPES = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp8": TensorProto.FLOAT8E4M3FN,
    "int8": TensorProto.INT8,
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_type_s_names_in_onnx_and_numpy_give_its_precision(precision: Precision) -> None:
    onnx_type = ONNX_TYPES[precision]
    assert precision_of_type(TensorProto.DataType.Name(onnx_type)) == precision
    if precision in ("fp32", "fp16", "int8"):
        dtype = helper.tensor_dtype_to_np_dtype(onnx_type)
        assert precision_of_type(str(dtype)) == precision
        assert PRECISIONS[precision].num_bytes == dtype.itemsize


def test_largest_numbers_are_numpy_s() -> None:
    assert PRECISIONS["fp16"].max_finite == float(np.finfo(np.float16).max)
    assert PRECISIONS["fp32"].max_finite == float(np.finfo(np.float32).max)


# tensorrt.DataType's names in TensorRT 10.
@pytest.mark.parametrize(
    ("name", "precision"),
    [("FLOAT", "fp32"), ("HALF", "fp16"), ("BF16", "bf16"), ("FP8", "fp8"), ("INT4", None)],
)
def test_tensorrt_s_names_give_precisions(name: str, precision: Precision | None) -> None:
    assert precision_of_type(name) == precision
