"""Peaks of this machine's processor: a large convolution and a large copy."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from swise_bench.prediction.roofline import Device
from swise_deploy.timing import time_calls

# 256 channels at 64x64: compute-bound by a wide margin (about 500 MACs a byte), and within a
# second's reach.
_CHANNELS = 256
_SIDE = 64
_KERNEL = 3
_COPY_BYTES = 64 * 2**20


def measure_peaks(threads: int) -> Device:
    """Measure the peaks of this machine, with the threads that the benchmark uses.

    Arithmetic: a 256-channel 3x3 convolution, fp32, in ONNX Runtime and, where it is installed, in
    OpenVINO. Bandwidth: copies of 64 MiB, one in each thread, reading and writing counted. The best
    of the runs stands for the peak.
    """
    model = _convolution_model()
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, _CHANNELS, _SIDE, _SIDE), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        calls = {"ONNX Runtime": _in_onnxruntime(model, x, threads), "copy": _copies(pool, threads)}
        if find_spec("openvino") is not None:
            calls["OpenVINO"] = _in_openvino(model, x, threads)
        timings = time_calls(calls, min_runs=12, max_seconds=8)
    best_ms = {name: min(timing.samples_ms) for name, timing in timings.items()}
    bandwidth = 2 * _COPY_BYTES * threads / (best_ms.pop("copy") * 1e6)
    runtime = min(best_ms, key=lambda name: best_ms[name])
    macs = _CHANNELS**2 * _KERNEL**2 * _SIDE**2
    tera_ops = 2 * macs / (best_ms[runtime] * 1e9)
    return Device(
        "this machine",
        {"fp32": tera_ops, "fp16": None, "int8": None},
        tera_ops,
        bandwidth,
        f"measured with {threads} threads: {tera_ops * 500:.1f} GMAC/s in a {_CHANNELS}-channel "
        f"{_KERNEL}x{_KERNEL} convolution of {runtime}, {bandwidth:.1f} GB/s in copies",
    )


def _convolution_model() -> onnx.ModelProto:
    shape = (1, _CHANNELS, _SIDE, _SIDE)
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((_CHANNELS, _CHANNELS, _KERNEL, _KERNEL), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "peak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=onnx.IR_VERSION_2021_7_30)


def _in_onnxruntime(
    model: onnx.ModelProto, x: NDArray[np.float32], threads: int
) -> Callable[[], NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: np.asarray(session.run(None, {"x": x})[0])


def _in_openvino(
    model: onnx.ModelProto, x: NDArray[np.float32], threads: int
) -> Callable[[], NDArray[np.float32]]:
    from swise_export.runtimes.openvino import openvino_core

    core = openvino_core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    read = core.read_model(model.SerializeToString(), b"")
    request = core.compile_model(read, "CPU", options).create_infer_request()
    return lambda: np.asarray(request.infer([x], share_inputs=True)[0])


def _copies(pool: ThreadPoolExecutor, threads: int) -> Callable[[], object]:
    sources = [np.ones(_COPY_BYTES // 4, np.float32) for _ in range(threads)]
    destinations = [np.zeros_like(source) for source in sources]

    def copy() -> None:
        list(pool.map(np.copyto, destinations, sources))

    return copy
