"""Types of the layers of a parsed network and of a built engine."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import cast, get_args

from swise_deploy.errors import BuildError
from swise_deploy.precision import QuantisedPrecision, precision_of_type
from swise_engines.tensorrt.api import Api

FLOATING = ("fp32", "fp16", "bf16", "fp8", "fp4")
QUANTISED: tuple[str, ...] = get_args(QuantisedPrecision)
SHAPES = "shapes"
"""Precision of a layer that computes sizes, not pixels."""
UNKNOWN = "unknown"
"""Precision of a layer of an engine that has several types and names no weights."""

# Layers that do the multiplying: the others of a node (bias, shuffles) carry none of its Mult-Adds.
MULTIPLIERS = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM"})

_CLASSES = {"CONVOLUTION": "IConvolutionLayer", "DECONVOLUTION": "IDeconvolutionLayer"}
_ONNX_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?:\x1e|\s|\[|$)")

# TensorRT 8 and 10 report format and type in one field; 11 splits it. (NVIDIA, TensorRT migration
# guide 10.x to 11.x, "IEngineInspector JSON output")
_TYPE_FIELDS = ("DataType", "Datatype", "Format/Datatype", "Format")


@dataclass(frozen=True, slots=True)
class LayerTypes:
    """The types of one layer.

    Attributes:
        name: Its name in TensorRT.
        kind: Its LayerType, such as "CONVOLUTION"; in an engine the kind of kernel.
        inputs: Types of its inputs, such as "fp16".
        outputs: Types of its outputs.
        weights: Type that its weights are stored in; "" if it has none or does not name them.
        precision: Its precision; SHAPES for arithmetic on sizes, UNKNOWN where an engine does
            not name it.
        nodes: Its ONNX nodes.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: str
    precision: str
    nodes: tuple[str, ...]


def layers_from_network(trt: ModuleType, network: Api) -> tuple[LayerTypes, ...]:
    """Types of the layers of a parsed network; with strong typing the engine has the same."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    return tuple(_read_layer(trt, layer, producers) for layer in layers)


def _read_layer(trt: ModuleType, layer: Api, producers: Mapping[str, Api]) -> LayerTypes:
    tensors = [layer.get_input(index) for index in range(layer.num_inputs)]
    tensors = [tensor for tensor in tensors if tensor is not None]
    inputs = tuple(_type_name(tensor.dtype) for tensor in tensors)
    outputs = tuple(_type_name(layer.get_output(index).dtype) for index in range(layer.num_outputs))
    sources = [_dequantised_from(producers.get(tensor.name)) for tensor in tensors]
    kind = str(layer.type.name)
    weights = _weights_beside(tensors[1:], producers) or _weights_inside(trt, layer)
    is_quantised = kind in MULTIPLIERS and sources[:1] == [weights] and weights in QUANTISED
    floating = [n for n in (*inputs, *outputs) if n in FLOATING and n not in QUANTISED]
    if kind in ("CONSTANT", "SHAPE") or not floating:
        precision = SHAPES
    else:
        precision = weights if is_quantised else floating[0]
    return LayerTypes(
        name=layer.name,
        kind=kind,
        inputs=inputs,
        outputs=outputs,
        weights=weights,
        precision=precision,
        nodes=nodes_of(layer.name, getattr(layer, "metadata", "")),
    )


def _weights_beside(tensors: Sequence[Api], producers: Mapping[str, Api]) -> str:
    for tensor in tensors:
        producer = producers.get(tensor.name)
        if source := _dequantised_from(producer):
            return source
        stored = _type_name(tensor.dtype)
        if producer is not None and producer.type.name == "CONSTANT" and stored in FLOATING:
            return stored
    return ""


def _weights_inside(trt: ModuleType, layer: Api) -> str:
    if layer.type.name not in _CLASSES or layer.num_inputs != 1:
        return ""
    # The bindings return the base class; the weights are attributes of the derived one.
    layer.__class__ = getattr(trt, _CLASSES[layer.type.name])
    # NumPy's types, and TensorRT's own where NumPy has none: DataType.BF16.
    stored = str(layer.kernel.dtype).rpartition(".")[2]
    return precision_of_type(stored) or stored


def _dequantised_from(producer: Api | None) -> str:
    """The stored type of a tensor from DequantizeLinear; "" for other tensors."""
    if producer is None or producer.type.name != "DEQUANTIZE":
        return ""
    return _type_name(producer.get_input(0).dtype)


def _type_name(data_type: Api) -> str:
    name = str(data_type.name)
    return precision_of_type(name) or name.lower()


def nodes_of(name: str, metadata: str) -> tuple[str, ...]:
    """The ONNX nodes of a layer, from its metadata, or from its name where it has none."""
    parts = _ONNX_NODE.findall(metadata or "") or re.split(r" \+ |[{}\[\]]|\.\.\.", name)
    # The parser names a nameless node after its first output, as the counting does.
    return tuple(part.strip().removeprefix("node_of_") for part in parts if part.strip())


def layers_from_inspector(text: str) -> tuple[LayerTypes, ...]:
    """Types of every layer of a built engine, from the inspector's JSON.

    The engine has to be built with detailed profiling verbosity, as all engines here are.

    Raises:
        BuildError: The text names no layer with its types.
    """
    try:
        # Not strict: control characters separate the names of joined nodes.
        document = cast("Mapping[str, object]", json.loads(text, strict=False))
    except ValueError as error:
        raise BuildError(
            f"the engine inspector returned {text[:80]!r}; expected JSON: {error}"
        ) from error
    entries = cast("list[Mapping[str, object] | str]", document.get("Layers", []))
    layers = tuple(_read_entry(entry) for entry in entries if not isinstance(entry, str))
    if all(layer.precision in (SHAPES, UNKNOWN) for layer in layers):
        raise BuildError(
            f"the engine inspector names no types ({len(entries)} layers). Build the engine with "
            "detailed profiling verbosity, as swise-build does"
        )
    return layers


def _read_entry(entry: Mapping[str, object]) -> LayerTypes:
    name = str(entry.get("Name", ""))
    inputs, outputs = (_formats(entry.get(key)) for key in ("Inputs", "Outputs"))
    held = entry.get("Weights")
    stored = str(held.get("Type", "")) if isinstance(held, dict) else ""
    weights = type_from_format(stored) if stored else ""
    return LayerTypes(
        name=name,
        kind=str(entry.get("ParameterType", entry.get("LayerType", ""))),
        inputs=inputs,
        outputs=outputs,
        weights=weights,
        precision=_precision_of_kernel(inputs, outputs, weights),
        nodes=nodes_of(name, str(entry.get("Metadata", ""))),
    )


def _precision_of_kernel(inputs: Sequence[str], outputs: Sequence[str], weights: str) -> str:
    """The precision of a kernel's multiplications, as far as its types determine it.

    A kernel may contain several nodes: one that reads fp32 and writes fp16 may multiply before or
    after its cast. The type of its weights decides, where it has one.
    """
    known = (*FLOATING, "int8")
    if weights in known:
        return weights
    reads = {name for name in inputs if name in known}
    touches = reads | {name for name in outputs if name in known}
    if not touches:
        return SHAPES
    if len(touches) == 1 or (len(reads) == 1 and "fp32" not in reads):
        return min(reads or touches)
    return UNKNOWN


def _formats(tensors: object) -> tuple[str, ...]:
    entries = cast("list[Mapping[str, object]]", tensors or [])
    named = (next((entry[f] for f in _TYPE_FIELDS if f in entry), "") for entry in entries)
    return tuple(type_from_format(str(text)) for text in named)


def type_from_format(text: str) -> str:
    """The type in a text of the inspector, such as "Row major linear FP16 format" or "Half"."""
    for word in re.split(r"[^a-z0-9]+", text.lower()):
        if precision := precision_of_type(word):
            return precision
    return text.lower()
