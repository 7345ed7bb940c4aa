"""ONNX graphs in the form that TensorRT 8.2 takes: one size, opset 13, weakly typed.

Weak typing means that the graph is fp32 and that the precision of each layer is set beside it: the
casts of an fp16 file go, and what they stated becomes a list of layers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from swise_deploy.errors import InputError
from swise_deploy.precision import Precision
from swise_engines.tensorrt.onnx_source import EngineSource
from swise_export.graph.loading import load_onnx

OPSET = 13
_IR_VERSION = 7  # of ONNX 1.8, which has opset 13
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_SEPARATORS = str.maketrans(dict.fromkeys(",:+* \"'$`\\", "_"))
"""Characters with a meaning in trtexec's lists or in a shell."""


@dataclass(frozen=True, slots=True)
class WeakForm:
    """A graph for a weakly typed TensorRT.

    Attributes:
        model: The graph, fp32 but for Q/DQ.
        precisions: Precision of each node that computes on floating-point numbers, by its name.
    """

    model: onnx.ModelProto
    precisions: Mapping[str, Precision]


def weak_form_of(source: EngineSource, shape: tuple[int, int, int, int]) -> WeakForm:
    """Convert a file for one input shape.

    Raises:
        InputError: The file takes other types than float32, or has operators that opset 13 lacks.
    """
    ports = (source.interface.input, source.interface.output)
    if any(port.dtype != "float32" for port in ports):
        raise InputError(
            f"{source.path} takes {ports[0].dtype} and gives {ports[1].dtype}; TensorRT before "
            "8.5 takes float32 alone. Export with --io float"
        )
    model = load_onnx(source.path)
    stated = {layer.name: layer.precision for layer in source.counts.layers}
    names = _name_nodes(model.graph.node)
    _fix_shape(model, ports[0].name, shape)
    _fold_constants(model)
    _widen(model)
    _lower_opset(model, source)
    kept = {node.name for node in model.graph.node if node.op_type not in _QUANTISING}
    precisions: dict[str, Precision] = {}
    for original, name in names.items():
        precision = _PINNED.get(stated.get(original, ""))
        if name in kept and precision is not None:
            precisions[name] = precision
    outputs = {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.name in precisions and outputs & set(node.output):
            precisions[node.name] = "fp32"  # the type of the file's output
    return WeakForm(model, precisions)


_PINNED: Mapping[str, Precision] = {"fp32": "fp32", "fp16": "fp16"}
_QUANTISING = ("QuantizeLinear", "DequantizeLinear")


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """Give every node a name of its own that trtexec's lists can hold; by the counted name."""
    names: dict[str, str] = {}
    used: set[str] = set()
    for node in nodes:
        counted = node.name or node.output[0]
        name = counted.translate(_SEPARATORS)
        while name in used:
            name += "_"
        used.add(name)
        names[counted] = node.name = name
    return names


def _fix_shape(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> None:
    (info,) = (value for value in model.graph.input if value.name == name)
    info.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    model.graph.CopyFrom(inferred.graph)


def _fold_constants(model: onnx.ModelProto) -> None:
    """Replace what does not depend on pixels, such as arithmetic on sizes, by constants."""
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    shapes = {value.name: _dims(value) for value in (*graph.input, *graph.value_info)}
    kept = []
    for node in graph.node:
        known = [constants.get(name) for name in node.input if name]
        if node.op_type == "Shape" and shapes.get(node.input[0]) is not None:
            found: list[NDArray[np.generic]] = [np.array(shapes[node.input[0]], np.int64)]
        elif node.op_type in _QUANTISING or any(value is None for value in known):
            kept.append(node)
            continue
        else:
            found = _evaluate(node, constants, model.opset_import)
        constants.update(zip(node.output, found, strict=True))
    used = {name for node in kept for name in node.input} | {o.name for o in graph.output}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
        if name in used
    )


def _evaluate(
    node: onnx.NodeProto,
    constants: Mapping[str, NDArray[np.generic]],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> list[NDArray[np.generic]]:
    feeds = {name: constants[name] for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    model = helper.make_model(graph, opset_imports=list(opsets))
    return list(ReferenceEvaluator(model).run(None, feeds))


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    dims = value.type.tensor_type.shape.dim
    known = value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims)
    return tuple(d.dim_value for d in dims) if known else None


def _widen(model: onnx.ModelProto) -> None:
    """Make an fp16 graph fp32: its casts between floating-point types do nothing any more."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types.update({value.name: value.type.tensor_type.elem_type for value in graph.input})
    sources: dict[str, str] = {}
    outputs = {output.name for output in graph.output}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = sources.get(name, name)
        target = next((a.i for a in node.attribute if a.name == "to"), 0)
        is_between = node.op_type == "Cast" and target in _FLOATS
        if is_between and types.get(node.input[0], TensorProto.FLOAT) in _FLOATS:
            if node.output[0] in outputs:  # the output keeps its name
                node.op_type = "Identity"
                del node.attribute[:]
                kept.append(node)
            else:
                sources[node.output[0]] = node.input[0]
            continue
        kept.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)


def _lower_opset(model: onnx.ModelProto, source: EngineSource) -> None:
    """State opset 13 where all operators and attributes exist there with the same meaning."""
    missing = []
    for node in model.graph.node:
        # allowzero came with Reshape 14; 0, its default, is how 13 works.
        attributes = [a for a in node.attribute if a.name != "allowzero" or a.i]
        del node.attribute[:]
        node.attribute.extend(attributes)
        try:
            schema = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
        except onnx.defs.SchemaError:
            missing.append(node.op_type)
            continue
        later = [a.name for a in attributes if a.name not in schema.attributes]
        missing += [f"{node.op_type}.{name}" for name in later]
        if not schema.min_input <= len(node.input) <= schema.max_input:
            missing.append(f"{node.op_type} with {len(node.input)} inputs")
    if missing:
        raise InputError(
            f"{source.path} has {', '.join(sorted(set(missing)))}, which opset {OPSET} lacks; "
            "TensorRT 8.2 takes no later one. Export the network again with swise-export"
        )
    del model.opset_import[:], model.functions[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
