"""Layer types fixed one by one, for TensorRT 8, whose builder chooses them by speed otherwise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType

from swise_engines.tensorrt.api import Api
from swise_engines.tensorrt.layer_types import LayerTypes

_IN_API = {"fp32": "FLOAT", "fp16": "HALF"}


@dataclass(frozen=True, slots=True)
class Pin:
    """The types of one layer.

    Attributes:
        layer: Its index in the network.
        precision: Name of the DataType that it computes in.
        outputs: Names of the DataTypes of its outputs, by index.
    """

    layer: int
    precision: str
    outputs: Mapping[int, str]


def pins_from_layers(layers: Iterable[LayerTypes]) -> tuple[Pin, ...]:
    """Pins for the floating-point layers, with the types of the graph.

    Arithmetic on sizes is not pinned, nor are multiplications between Q/DQ layers, whose scales
    decide.
    """
    return tuple(
        Pin(
            index,
            _IN_API[layer.precision],
            {at: _IN_API[name] for at, name in enumerate(layer.outputs) if name in _IN_API},
        )
        for index, layer in enumerate(layers)
        if layer.precision in _IN_API
    )


def apply_pins(trt: ModuleType, network: Api, pins: Iterable[Pin]) -> None:
    """Pin the layers of a weakly typed network."""
    for pin in pins:
        layer = network.get_layer(pin.layer)
        layer.precision = getattr(trt.DataType, pin.precision)
        for index, name in pin.outputs.items():
            layer.set_output_type(index, getattr(trt.DataType, name))
