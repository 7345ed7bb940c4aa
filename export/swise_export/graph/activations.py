"""The largest activation of every layer, measured on pictures.

fp16 has no number above 65504. An overflow that nobody measured shows as a black picture.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from swise_deploy.errors import ExportError
from swise_deploy.pictures.files import RgbImage
from swise_deploy.runner import float_from_image


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """The largest magnitude of a tensor."""

    tensor: str
    node: str
    op_type: str
    max_abs: float


def measure_ranges(model: onnx.ModelProto, images: Sequence[RgbImage]) -> list[ActivationRange]:
    """Measure the largest magnitude of every float tensor of an fp32 model on LR pictures.

    Raises:
        ExportError: The output of a layer contains NaN or infinity in fp32; the message names it.
    """
    shaped = onnx.shape_inference.infer_shapes(model)
    floats = {
        value.name
        for value in shaped.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    producers = [(n, name) for n in model.graph.node for name in n.output if name in floats]
    names = [name for _, name in producers]
    session = session_with_outputs(model, names)
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


def tensors_on_pictures(
    model: onnx.ModelProto, names: Collection[str], images: Iterable[RgbImage]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run an fp32 model with float io on LR pictures; gives some of its tensors for each, by name.

    The model's input may be one of them.
    """
    feed = model.graph.input[0].name
    fetched = [name for name in dict.fromkeys(names) if name != feed]
    session = session_with_outputs(model, fetched)
    for image in images:
        lr = float_from_image(image)
        # With an empty list of outputs a session computes all of them.
        outputs = session.run(fetched, {feed: lr}) if fetched else []
        yield dict(zip(fetched, outputs, strict=True)) | {feed: lr}


def session_with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """Open a session on the CPU that also outputs some fp32 tensors of a model."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    present = {value.name for value in extended.graph.output}
    extended.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in present
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Threads that wait actively cost processor time and win nothing in runs of seconds.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        extended.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _refuse_non_finite(ranges: Iterable[ActivationRange]) -> None:
    for found in ranges:
        if not np.isfinite(found.max_abs):
            raise ExportError(
                f"the output of layer {found.node} ({found.op_type}) contains NaN or infinity in "
                "fp32; expected finite values: the checkpoint is damaged or its training diverged. "
                "Use an earlier checkpoint"
            )
