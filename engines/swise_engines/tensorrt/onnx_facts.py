"""What an ONNX file says of itself: which network, and which inputs it takes."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from swise_export.graph.counting import picture_input, picture_layout, read_onnx
from swise_export.manifest import facts_of_onnx, scale_from_facts


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """Facts of an ONNX file.

    Attributes:
        network: Name of the network; "" where the file does not say.
        scale: Output size over input size; 0 where the file does not say.
        size: The only input (width, height) that it takes; None for any.
        batch: The only batch that it takes; None for any.
    """

    network: str
    scale: int
    size: tuple[int, int] | None
    batch: int | None


def read_facts(path: Path) -> OnnxFacts:
    """Read the facts of an ONNX file.

    Raises:
        InputError: The file is missing, is no whole ONNX file with one picture input, or states a
            scale that is none.
    """
    model = read_onnx(path)
    facts = facts_of_onnx(model)
    picture = picture_input(model)
    batch, *sides = _fixed_dims(picture)
    height, width = sides[:2] if picture_layout(picture) == "nhwc" else sides[1:]
    size = (width, height) if width and height else None
    return OnnxFacts(facts.get("model", ""), scale_from_facts(facts, path), size, batch or None)


def _fixed_dims(picture: onnx.ValueInfoProto) -> list[int]:
    """Dimensions, 0 where any is taken."""
    return [dim.dim_value for dim in picture.type.tensor_type.shape.dim]
