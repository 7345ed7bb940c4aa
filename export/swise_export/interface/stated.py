"""The pictures of a graph as it states them: names, types, layout, fixed sizes, scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from swise_deploy.errors import InputError
from swise_export.graph.loading import facts_of_model
from swise_export.graph.shapes import shape_graph
from swise_export.interface.ports import CHANNELS, MAX_SIDE, ElementType, Interface, Layout, Port
from swise_export.manifest import METADATA_PREFIX

_ELEMENT_TYPES: Mapping[int, ElementType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
}


def interface_of_model(model: onnx.ModelProto, path: Path | None = None) -> Interface | None:
    """The pictures that a graph takes and gives, as the graph states them.

    Args:
        model: The model; weights are not needed.
        path: Its file, for messages.

    Returns:
        None where the graph does not state its layout or its scale. The multiple is that of the
        metadata, or 1; floats have the range 0..1, uint8 has 0..255.

    Raises:
        InputError: It is not a picture network.
    """
    name = str(path or "the ONNX model")
    facts = facts_of_model(model)
    stated = stated_input(model, name)
    if stated is None:
        return None
    found = _output_by_shapes(model, stated)
    if found is None:
        return None
    given, scale = found
    return Interface(
        stated.port,
        given,
        stated_scale(facts, name) or scale,
        stated.size,
        stated.batch,
        stated_number(facts, "multiple", name) or 1,
    )


@dataclass(frozen=True, slots=True)
class StatedInput:
    """The picture input as the graph states it.

    Attributes:
        port: Name, type, layout, channels.
        size: The only (width, height); None for any.
        batch: The only number of pictures; None for any.
    """

    port: Port
    size: tuple[int, int] | None
    batch: int | None


def stated_input(model: onnx.ModelProto, name: str) -> StatedInput | None:
    """The picture input of a graph; None where its dimensions leave the layout open.

    Raises:
        InputError: There is no such input, or its element type is not supported.
    """
    info = picture_input(model, name)
    dims = fixed_dims(info)
    dtype = element_type(info, name)
    layout, channels = _layout_of(dims, dtype)
    if layout is None or channels is None:
        return None
    height, width = (dims[1], dims[2]) if layout == "NHWC" else (dims[2], dims[3])
    port = Port(info.name, dtype, layout, channels, 255.0 if dtype == "uint8" else 1.0)
    return StatedInput(port, only_size(width, height), dims[0] or None)


def only_size(width: int, height: int) -> tuple[int, int] | None:
    """The size of a graph's pictures, a square where one side is open (0); None for any size."""
    return (width or height, height or width) if width or height else None


def picture_input(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    """The one input that takes pictures; inputs with a stored default do not count.

    Raises:
        InputError: There is not exactly one input of rank 4, or it needs others beside it.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in stored]
    pictures = [info for info in inputs if _rank(info) == 4]
    if len(inputs) == 1 and len(pictures) == 1:
        return cast("onnx.ValueInfoProto", pictures[0])
    found = ", ".join(describe_value(info) for info in inputs) or "nothing"
    if pictures:
        largest = max(pictures, key=lambda info: len([d for d in fixed_dims(info) if d != 1]))
        others = [info.name for info in inputs if info is not largest]
        raise InputError(
            f"{name} takes {found}; expected the picture alone. Freeze {', '.join(others)} to a "
            "constant: make it an initializer of the same name (onnx.helper), or export the "
            "network with it fixed"
        )
    fix = "Export the network for one picture input"
    if len(inputs) == 1 and _rank(inputs[0]) is None:
        fix = "State its shape (onnx.tools.update_model_dims), or export the network again"
    raise InputError(
        f"{name} takes {found}; expected one picture: float32, float16 or uint8, (N, C, H, W) or "
        f"(N, H, W, C) with 1, 3 or 4 channels. {fix}"
    )


def _rank(info: onnx.ValueInfoProto) -> int | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    return len(info.type.tensor_type.shape.dim)


def describe_value(info: onnx.ValueInfoProto) -> str:
    """A graph input or output for messages: name, element type and shape."""
    dims = [d.dim_param or (d.dim_value or "?") for d in info.type.tensor_type.shape.dim]
    has_shape = info.type.tensor_type.HasField("shape")
    shape = ", ".join(str(dim) for dim in dims) if has_shape else "of no stated shape"
    kind = info.type.tensor_type.elem_type
    known = kind in TensorProto.DataType.values()
    return f"{info.name} {TensorProto.DataType.Name(kind).lower() if known else kind} ({shape})"


def fixed_dims(info: onnx.ValueInfoProto) -> list[int]:
    """Dimensions of a value; 0 for a dynamic one.

    Raises:
        InputError: A dimension is negative or larger than `MAX_SIDE`.
    """
    dims = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    if any(not 0 <= dim <= MAX_SIDE for dim in dims):
        raise InputError(
            f"{describe_value(info)} has a dimension outside 0 to {MAX_SIDE}; expected the "
            "size of a picture. Export the network with dynamic sizes"
        )
    return dims


def element_type(info: onnx.ValueInfoProto, name: str) -> ElementType:
    """Element type of a picture.

    Raises:
        InputError: The type is not supported.
    """
    found = _ELEMENT_TYPES.get(info.type.tensor_type.elem_type)
    if found is None:
        raise InputError(
            f"{name} has {describe_value(info)}; expected pictures of "
            f"{', '.join(get_args(ElementType))}. Put a Cast in front, or export the network for "
            "float32"
        )
    return found


def _layout_of(dims: Sequence[int], dtype: ElementType) -> tuple[Layout | None, int | None]:
    """Layout and channels by the fixed dimensions; None where they do not determine them."""
    second, last = dims[1] in CHANNELS, dims[3] in CHANNELS
    if second and not last:
        return "NCHW", dims[1]
    if last and not second:
        return "NHWC", dims[3]
    if second and last:  # a tiny fixed size beside the channels: uint8 files are channels last
        return ("NHWC", dims[3]) if dtype == "uint8" and dims[3] == 3 else ("NCHW", dims[1])
    return None, None


def _output_by_shapes(model: onnx.ModelProto, stated: StatedInput) -> tuple[Port, int] | None:
    """The picture output and the scale, by shape inference; None where it cannot infer them."""
    taken = stated.port
    probes = [stated.size] if stated.size is not None else [(64, 64), (128, 64)]
    ports: list[tuple[Port, int]] = []
    for width, height in probes:
        shapes = {taken.name: taken.shape(stated.batch or 1, width, height)}
        try:
            graph = shape_graph(model, shapes)
        except InputError:
            raise
        except Exception:  # noqa: BLE001  # onnx raises several kinds; a run shows the output
            return None
        found = []
        for info in model.graph.output:
            value = graph.types.get(info.name)
            if value is None:
                return None
            element = _ELEMENT_TYPES.get(value.dtype)
            port = port_of_shape(info.name, element, value.shape, (width, height), taken.layout)
            found += [port] if port is not None else []
        if len(found) != 1:
            return None
        ports += found
    if len({scale for _, scale in ports}) != 1 or len({port for port, _ in ports}) != 1:
        return None
    return ports[0]


def port_of_shape(
    tensor: str,
    element: ElementType | None,
    shape: Sequence[int],
    lr_size: tuple[int, int],
    input_layout: Layout,
) -> tuple[Port, int] | None:
    """A picture output by its shape, with its scale; None for other shapes."""
    if element is None or len(shape) != 4:
        return None
    layouts: tuple[Layout, ...] = (input_layout, "NHWC" if input_layout == "NCHW" else "NCHW")
    for layout in layouts:
        if layout == "NHWC":
            height, width, channels = shape[1:]
        else:
            channels, height, width = shape[1:]
        scale, rest = divmod(width, lr_size[0])
        whole = scale >= 1 and rest == 0 and height == scale * lr_size[1]
        if channels in CHANNELS and whole:
            white = 255.0 if element == "uint8" else 1.0
            return Port(tensor, element, layout, channels, white), scale
    return None


def refuse_outputs(
    name: str, lr_size: tuple[int, int], outputs: Mapping[str, NDArray[np.generic]]
) -> NoReturn:
    """Refuse a graph without exactly one output that is a larger picture.

    Args:
        name: The file.
        lr_size: (width, height) of the input pictures.
        outputs: Value of every output.

    Raises:
        InputError: Always; the message names the outputs, their types and shapes.
    """
    found = ", ".join(f"{tensor} {value.dtype} {value.shape}" for tensor, value in outputs.items())
    types = ", ".join(get_args(ElementType))
    others = {str(value.dtype) for value in outputs.values()} - set(get_args(ElementType))
    if others and all(str(value.dtype) in others for value in outputs.values()):
        raise InputError(
            f"{name} gives {found}; {', '.join(sorted(others))} is not a type of pictures: "
            f"expected {types}. Put a Cast behind its last node, or export the network for float32"
        )
    raise InputError(
        f"{name} turns pictures of {lr_size[0]}x{lr_size[1]} into {found or 'nothing'}; expected "
        f"one picture of {types}, "
        "(N, C, H*scale, W*scale) or (N, H*scale, W*scale, C) with a whole-number scale and 1, 3 "
        "or 4 channels. Export the network with its picture as the only output"
    )


def stated_scale(facts: Mapping[str, str], name: str) -> int:
    """The scale in a file's metadata; 0 where it is absent.

    Raises:
        InputError: The value is not a scale.
    """
    return stated_number(facts, "scale", name)


def stated_number(facts: Mapping[str, str], key: str, name: str) -> int:
    """A whole number in a file's metadata; 0 where it is absent.

    Raises:
        InputError: The value is not a whole number of at most 5 digits.
    """
    stated = facts.get(key, "0")
    if not (stated.isascii() and stated.isdecimal() and len(stated) < 6):
        raise InputError(
            f"{name} has {stated[:40]!r} in its metadata {METADATA_PREFIX}{key}; expected a whole "
            "number. Export it again"
        )
    return int(stated)
