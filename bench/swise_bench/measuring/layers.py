"""Time of each layer of a network, by the runtimes' own profilers."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from swise_bench.results.values import LayerTime
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.runtimes.table import load_runtime


def profile_layers(
    path: Path, *, runtime: str, lr_size: tuple[int, int], threads: int
) -> tuple[LayerTime, ...]:
    """Median time of every layer, slowest first.

    Args:
        path: The ONNX file.
        runtime: Key of the runtimes table; its module has a profiler.
        lr_size: Input size, (W, H).
        threads: Threads of the runtime.
    """
    interface = read_onnx_file(path).interface
    multiple = interface.multiple
    width, height = (-(-side // multiple) * multiple for side in lr_size)
    port = interface.input
    batch = np.zeros(port.shape(interface.batch or 1, width, height), port.dtype)
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    found = load_runtime(runtime).profile(path, batch=batch, threads=threads)
    for name, operator, time_ms in found:
        times[name, operator].append(time_ms)
    layers = [LayerTime(*key, float(np.median(samples))) for key, samples in times.items()]
    return tuple(sorted(layers, key=lambda layer: -layer.p50_ms))
