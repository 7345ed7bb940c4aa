"""Where the time goes within a network: the runtimes' own profilers."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_bench.results.document import LayerTime
from swise_deploy.runner import PictureIO
from swise_export.runtimes.openvino import openvino_core

Durations = defaultdict[tuple[str, str], list[float]]


def profile_onnx(
    path: Path, *, io: PictureIO, lr_size: tuple[int, int], threads: int, num_runs: int = 5
) -> tuple[LayerTime, ...]:
    """Median time of every node as ONNX Runtime's own profiler reports it, slowest first.

    The graph that runs is the optimised one: several nodes of the file may have become one.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(num_runs):
            session.run(None, {session.get_inputs()[0].name: _zeros(io, lr_size)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _layer_times(events)


def profile_openvino(
    path: Path, *, io: PictureIO, lr_size: tuple[int, int], threads: int, num_runs: int = 5
) -> tuple[LayerTime, ...]:
    """Median time of every node as OpenVINO's performance counters report it, slowest first.

    The graph that runs is the compiled one; what was fused away has no time of its own.
    """
    core = openvino_core()
    lr = _zeros(io, lr_size)
    model = core.read_model(path)
    model.reshape({0: list(lr.shape)})
    options = {
        "PERF_COUNT": True,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    durations: Durations = defaultdict(list)
    for _ in range(num_runs):
        request.infer([lr])
        for info in request.profiling_info:
            if info.real_time.total_seconds() > 0:
                key = info.node_name, info.node_type
                durations[key].append(info.real_time.total_seconds() * 1000)
    return _sorted(durations)


def _zeros(io: PictureIO, lr_size: tuple[int, int]) -> NDArray[np.generic]:
    width, height = lr_size
    if io == "uint8":
        return np.zeros((1, height, width, 3), np.uint8)
    return np.zeros((1, 3, height, width), np.float32)


def _layer_times(events: Sequence[Mapping[str, object]]) -> tuple[LayerTime, ...]:
    durations: Durations = defaultdict(list)
    for event in events:
        name, details = str(event.get("name", "")), event.get("args")
        is_kernel = event.get("cat") == "Node" and name.endswith("_kernel_time")
        if is_kernel and isinstance(details, dict):
            key = name.removesuffix("_kernel_time"), str(details.get("op_name", ""))
            durations[key].append(float(str(event["dur"])) / 1000)
    return _sorted(durations)


def _sorted(durations: Durations) -> tuple[LayerTime, ...]:
    layers = [
        LayerTime(name, op_type, float(np.median(times)))
        for (name, op_type), times in durations.items()
    ]
    return tuple(sorted(layers, key=lambda layer: -layer.p50_ms))
