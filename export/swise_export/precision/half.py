"""Conversion of a graph to fp16 or bf16, with the nodes that need fp32 left in fp32.

TensorRT 11 takes precision from the graph alone, so the graph states it for every runtime. These
nodes stay in fp32: sums over many values (norms, averages), the final sum, on which the last bits
of a picture depend, in bf16 the layers that read the picture, and every node that reads or writes a
tensor too large for the format, found by running the network on pictures.
docs/adr/0001-deploy-form.md and docs/precision.md have the measured effect of each.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx
import onnx.version_converter
from onnx import numpy_helper

from swise_deploy.errors import ExportError, first_line
from swise_deploy.pictures.files import RgbImage
from swise_deploy.precision import PRECISIONS, HalfPrecision
from swise_export.counting import count_onnx
from swise_export.graph.activations import ActivationRange, measure_ranges
from swise_export.graph.half_emulation import MOVES
from swise_export.graph.number_formats import ONNX_TYPES, tensor_from_values, values_of_tensor

logger = logging.getLogger(__name__)

# Other pictures give larger activations than the sampled ones.
HEADROOM = 4.0

OPSET_BF16 = 22
"""The first whose convolutions take bf16."""
_IR_VERSION_BF16 = 10  # of ONNX 1.17, which has opset 22

# Sums over many values, and functions that amplify rounding errors.
_FP32_OPS = frozenset(
    {
        "GlobalAveragePool",
        "InstanceNormalization",
        "LayerNormalization",
        "ReduceMean",
        "ReduceSum",
        "Softmax",
        "Sqrt",
    }
)
# Operators that may follow the last layer.
_ARITHMETIC = frozenset(
    {"Add", "Cast", "Clip", "Div", "Identity", "Max", "Min", "Mul", "Round", "Sub", "Transpose"}
)
# A larger first layer costs time in fp32; the search for nodes that need it decides then.
_MAX_FIRST_SHARE = 0.01
# Modules that run in fp32 as a whole, without casts inside them.
_FP32_SCOPES = ("norm", "picture")


@dataclass(frozen=True, slots=True)
class HalfModel:
    """A model that computes in fp16 or bf16, except for the nodes that need fp32.

    Attributes:
        model: The ONNX model.
        fp32_nodes: Nodes that stay in fp32.
        ranges: Largest activation of every layer; empty without pictures.
    """

    model: onnx.ModelProto
    fp32_nodes: tuple[str, ...]
    ranges: tuple[ActivationRange, ...]


def half_from_fp32(
    model: onnx.ModelProto,
    images: Sequence[RgbImage] = (),
    *,
    precision: HalfPrecision = "fp16",
    keep_fp32: Collection[str] = (),
) -> HalfModel:
    """Convert an fp32 model to fp16 or bf16; the types of its inputs and outputs do not change.

    Args:
        model: An fp32 model with a name for every node; its quantised layers stay as they are.
        images: LR pictures on which the activations are measured.
        precision: The format.
        keep_fp32: Further nodes that stay in fp32.

    Raises:
        ExportError: The output of a layer contains NaN or infinity in fp32, or an operator has no
            bf16.
    """
    # The converter is slow to import.
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    if precision == "bf16":
        model = _in_opset(model, OPSET_BF16)
    ranges = measure_ranges(model, images) if images else []
    too_large = _tensors_too_large(model, ranges, precision)
    last = _last_arithmetic(model)
    first = _first_layers(model) if precision == "bf16" else set()
    kept = [
        node.name
        for node in model.graph.node
        if node.op_type in _FP32_OPS
        or any(part.startswith(_FP32_SCOPES) for part in node.name.split("/"))
        or node.name in last | first
        or node.name in keep_fp32
        or any(name in too_large for name in (*node.input, *node.output))
    ]
    kept = _without_dequantising(model, kept)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    half = convert_float_to_float16(
        half,
        keep_io_types=True,
        op_block_list=[],
        node_block_list=kept,
    )
    _merge_casts(half, {n.output[0] for n in model.graph.node if n.op_type == "Cast"})
    if precision == "bf16":
        _store_as_bf16(half, model)
    OnnxModel.graph_topological_sort(half.graph)
    return HalfModel(half, tuple(kept), tuple(ranges))


def _in_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        converted = onnx.version_converter.convert_version(model, opset)
    except RuntimeError as error:
        raise ExportError(
            f"the graph cannot be converted to opset {opset}, the first with bf16 convolutions: "
            f"{first_line(error)}. Export with --fp16"
        ) from error
    converted.ir_version = _IR_VERSION_BF16
    return converted


def _store_as_bf16(half: onnx.ModelProto, full: onnx.ModelProto) -> None:
    """Turn a converted fp16 model into bf16; constants are rounded from their values in fp32."""
    fp16, bf16 = ONNX_TYPES["fp16"], ONNX_TYPES["bf16"]
    exact = {tensor.name: tensor for tensor in full.graph.initializer}
    of_node = {(node.name, a.name): a.t for node in full.graph.node for a in node.attribute}
    pairs = [(tensor, exact[tensor.name]) for tensor in half.graph.initializer]
    for node in half.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == fp16:
                attribute.i = bf16
            elif attribute.HasField("t"):
                pairs.append((attribute.t, of_node.get((node.name, attribute.name), attribute.t)))
    for tensor, source in pairs:
        if tensor.data_type == fp16:
            tensor.CopyFrom(tensor_from_values(values_of_tensor(source), "bf16", tensor.name))
    for value in half.graph.value_info:
        if value.type.tensor_type.elem_type == fp16:
            value.type.tensor_type.elem_type = bf16


def _without_dequantising(model: onnx.ModelProto, kept: Sequence[str]) -> list[str]:
    """Remove DequantizeLinear nodes: TensorRT fuses one only if its type is its layer's type."""
    in_fp32 = set(kept)
    wide = {name for node in model.graph.node if node.name in in_fp32 for name in node.input}
    narrow = {
        node.name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] not in wide
    }
    return [name for name in kept if name not in narrow]


def _merge_casts(model: onnx.ModelProto, own: Collection[str]) -> None:
    """Remove the converter's redundant casts.

    The converter casts around every fp32 node separately. Between two fp32 nodes a value would be
    rounded and back, and a tensor with several readers would be cast once for each.

    Args:
        model: The converted model.
        own: Outputs of the network's own casts, which read other types, such as a mask's bool.
    """
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    first: dict[tuple[str, int], str] = {}
    merged: dict[str, str] = {}
    for output, node in casts.items():
        target = node.attribute[0].i
        source = casts.get(node.input[0])
        if target == onnx.TensorProto.FLOAT and source is not None and _is_rounding(source):
            if source.output[0] not in own:
                merged[output] = source.input[0]
                continue
            node.input[0] = source.input[0]
        if first.setdefault((node.input[0], target), output) != output:
            merged[output] = first[node.input[0], target]
    # A graph output keeps its name: the node that computes its value takes the name over.
    outputs = [value.name for value in model.graph.output]
    output_names = {merged[name]: name for name in outputs if name in merged}
    nodes = [n for n in model.graph.node if n.op_type != "Cast" or n.output[0] not in merged]
    for node in nodes:
        inputs = [merged.get(name, name) for name in node.input]
        node.input[:] = [output_names.get(name, name) for name in inputs]
        node.output[:] = [output_names.get(name, name) for name in node.output]
    used = {*outputs, *(name for node in nodes for name in node.input)}
    nodes = [node for node in nodes if node.op_type != "Cast" or node.output[0] in used]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_rounding(cast: onnx.NodeProto) -> bool:
    return bool(cast.attribute[0].i == onnx.TensorProto.FLOAT16)


def _tensors_too_large(
    model: onnx.ModelProto, ranges: Sequence[ActivationRange], precision: HalfPrecision
) -> set[str]:
    limit = PRECISIONS[precision].max_finite / HEADROOM
    too_large = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and abs(numpy_helper.to_array(tensor)).max(initial=0.0) > limit
    }
    overflowing = [found for found in ranges if found.max_abs > limit]
    if overflowing:
        worst = max(overflowing, key=lambda found: found.max_abs)
        logger.warning(
            "%d layers give values too large for %s and stay in fp32; the first is %s, the "
            "largest value is %.3g at %s (%s)",
            len(overflowing),
            precision,
            overflowing[0].node,
            worst.max_abs,
            worst.node,
            worst.op_type,
        )
        too_large.update(found.tensor for found in overflowing)
    return too_large


def _first_layers(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes up to the layers that read the picture, where they have few Mult-Adds.

    A picture of 8 bits in [0, 1] does not fit into the 8 bits of bf16's precision.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    stored = {tensor.name for tensor in model.graph.initializer}
    pending = [value.name for value in model.graph.input if value.name not in stored]
    found: set[str] = set()
    while pending:
        for node in readers.get(pending.pop(), []):
            if node.name not in found:
                found.add(node.name)
                if node.op_type in _ARITHMETIC | MOVES:
                    pending.extend(node.output)
    counts = count_onnx(model)
    mult_adds = sum(layer.mult_adds for layer in counts.layers if layer.name in found)
    return found if mult_adds < _MAX_FIRST_SHARE * counts.mult_adds else set()


def _last_arithmetic(model: onnx.ModelProto) -> set[str]:
    """Names of the element-wise nodes between the last layer and the output."""
    producers = {name: node for node in model.graph.node for name in node.output}
    pending = [value.name for value in model.graph.output]
    found: set[str] = set()
    while pending:
        node = producers.get(pending.pop())
        if node is not None and node.op_type in _ARITHMETIC and node.name not in found:
            found.add(node.name)
            pending.extend(node.input)
    return found
