"""Latency of several subjects in one interleaved run, and where the time goes within one."""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from swise_bench.results import Latency, LayerTime, Ratio
from swise_deploy.runner import PictureIO, Runner
from swise_deploy.timing import picture_call, ratio, time_calls

WALL_CLOCK = (
    "wall clock of one call with pictures in host memory before and after it; "
    "copies to and from a device, where there is one, are included"
)

# Threads of ONNX Runtime and OpenMP keep spinning after a run; the next subject waits that out.
PAUSE_S = 0.02


def open_all(
    openers: Mapping[str, Callable[[], Runner]], stack: ExitStack
) -> tuple[dict[str, Runner], dict[str, float]]:
    """Open and activate runners until the stack is closed; their load times in milliseconds too."""
    runners, load_ms = {}, {}
    for name, opener in openers.items():
        start = time.perf_counter_ns()
        runners[name] = stack.enter_context(opener())
        load_ms[name] = (time.perf_counter_ns() - start) / 1e6
    return runners, load_ms


def measure_latency(
    runners: Mapping[str, Runner],
    *,
    lr_size: tuple[int, int],
    batch: int = 1,
    min_runs: int = 20,
    max_seconds: float = 10.0,
) -> dict[str, Latency]:
    """Time activated runners in turn.

    Args:
        runners: Activated runners by name.
        lr_size: Input size, (W, H).
        batch: Pictures in one call.
        min_runs: Rounds to make if time allows.
        max_seconds: Time for the counted rounds, for each runner.
    """
    calls = {name: picture_call(r, lr_size, batch=batch) for name, r in runners.items()}
    timings = time_calls(
        calls, min_runs=min_runs, max_seconds=max_seconds * len(calls), pause_s=PAUSE_S
    )
    return {n: Latency(lr_size, batch, timing, WALL_CLOCK) for n, timing in timings.items()}


def compare_latencies(latencies: Mapping[str, Latency], reference: str) -> list[Ratio]:
    """Every subject against the reference, round by round."""
    base = latencies[reference]
    return [
        Ratio(name, reference, base.lr_size, base.batch, ratio(latency.timing, base.timing))
        for name, latency in latencies.items()
        if name != reference
    ]


def profile_onnx(
    path: Path, *, io: PictureIO, lr_size: tuple[int, int], threads: int, num_runs: int = 5
) -> tuple[LayerTime, ...]:
    """Median time of every node as ONNX Runtime's own profiler reports it, slowest first.

    The graph that runs is the optimised one: several nodes of the file may have become one.
    """
    import onnxruntime

    width, height = lr_size
    shape = (1, height, width, 3) if io == "uint8" else (1, 3, height, width)
    lr = np.zeros(shape, np.uint8 if io == "uint8" else np.float32)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(num_runs):
            session.run(None, {session.get_inputs()[0].name: lr})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _layer_times(events)


def _layer_times(events: Sequence[Mapping[str, object]]) -> tuple[LayerTime, ...]:
    durations: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name, details = str(event.get("name", "")), event.get("args")
        is_kernel = event.get("cat") == "Node" and name.endswith("_kernel_time")
        if is_kernel and isinstance(details, dict):
            key = name.removesuffix("_kernel_time"), str(details.get("op_name", ""))
            durations[key].append(float(str(event["dur"])) / 1000)
    layers = [
        LayerTime(name, op_type, float(np.median(times)))
        for (name, op_type), times in durations.items()
    ]
    return tuple(sorted(layers, key=lambda layer: -layer.p50_ms))
