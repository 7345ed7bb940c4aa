"""The largest activation of every layer, measured on real pictures.

fp16 holds nothing above 65504, and the first sign of an overflow is a black picture in production.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

from swise_deploy.errors import ExportError
from swise_deploy.pictures.files import RgbImage
from swise_deploy.runner import float_from_image

FP16_MAX = 65504.0


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """The largest magnitude that a tensor reached."""

    tensor: str
    node: str
    op_type: str
    max_abs: float


def measure_ranges(model: onnx.ModelProto, images: Sequence[RgbImage]) -> list[ActivationRange]:
    """Run an fp32 model on LR pictures and record the largest magnitude of every float tensor.

    Raises:
        ExportError: A layer gives infinities or NaN in fp32 already; it is named.
    """
    shaped = onnx.shape_inference.infer_shapes(model)
    floats = {
        value.name
        for value in shaped.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    producers = [(n, name) for n in model.graph.node for name in n.output if name in floats]
    names = [name for _, name in producers]
    session = session_watching(model, names)
    largest = dict.fromkeys(names, 0.0)
    feed = session.get_inputs()[0]
    for image in images:
        lr = image[None] if feed.type == "tensor(uint8)" else float_from_image(image)
        for name, value in zip(names, session.run(names, {feed.name: lr}), strict=True):
            largest[name] = np.maximum(largest[name], np.abs(value).max(initial=0.0))
    ranges = [
        ActivationRange(name, node.name, node.op_type, float(largest[name]))
        for node, name in producers
    ]
    _refuse_non_finite(ranges)
    return ranges


def session_watching(model: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """A session on the CPU that gives some fp32 tensors of a model beside its outputs."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    kept = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in kept
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _refuse_non_finite(ranges: Iterable[ActivationRange]) -> None:
    for found in ranges:
        if not np.isfinite(found.max_abs):
            raise ExportError(
                f"layer {found.node} ({found.op_type}) gives values that are not finite, in fp32 "
                "already: the checkpoint is broken or has diverged. Use an earlier checkpoint"
            )
