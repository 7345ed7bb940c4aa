"""Memory of a network for each pixel of a tile, estimated from its ONNX graph."""

import math
from pathlib import Path

import onnx

from swise_export.graph.loading import load_onnx
from swise_export.graph.shapes import ShapedGraph, shape_graph
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.interface.ports import Port

_PROBE_SIDE = 64
# Memory at the peak over the values alive at once: the most that was measured of SwiseNet x2, x3
# and x4 on whole pictures (`python bench/scripts/upscale_speed.py whole`). ONNX Runtime's arena
# grows in powers of two; both keep reordered copies of what convolutions read.
_OVERHEAD = 2.75


def bytes_per_pixel(path: Path) -> float:
    """Estimate the bytes that running an ONNX file takes for each pixel of its input.

    Values live from the node that makes them to the last that reads them; the largest sum at any
    moment counts.

    Raises:
        InputError: The file is missing or is no whole ONNX file with one picture input.
    """
    return bytes_per_pixel_of(load_onnx(path), read_onnx_file(path).interface.input)


def bytes_per_pixel_of(model: onnx.ModelProto, port: Port) -> float:
    """The same of a loaded model, whose picture enters at `port`."""
    graph = shape_graph(model, {port.name: port.shape(1, _PROBE_SIDE, _PROBE_SIDE)})
    kept = {value.name for value in model.graph.output}
    return _OVERHEAD * peak_live_bytes(graph, kept) / _PROBE_SIDE**2


def peak_live_bytes(graph: ShapedGraph, kept: set[str]) -> int:
    """The largest number of bytes that the values of a graph hold at one moment, weights left out.

    Args:
        graph: Nodes in the order in which they run.
        kept: Values that stay to the end: the outputs.
    """
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.input}
    live: dict[str, int] = {}
    peak = 0
    for index, node in enumerate(graph.nodes):
        for name in node.output:
            if name in graph.types and name not in graph.weights:
                live[name] = graph.types[name].size_bytes
        peak = max(peak, sum(live.values()))
        live = {n: s for n, s in live.items() if n in kept or last_use.get(n, -1) > index}
    return peak


def tile_side(budget_bytes: int, cost_bytes_per_pixel: float) -> int:
    """Side of the largest square tile that fits a budget: a multiple of 16, at least 32."""
    side = math.isqrt(int(budget_bytes / max(cost_bytes_per_pixel, 1.0)))
    return max(side // 16 * 16, 32)
