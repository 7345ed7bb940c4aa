"""Small ONNX files with a known answer, and real engines built from them."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import onnx
import pytest
from numpy.typing import DTypeLike
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.precision import QuantisedPrecision
from swise_engines.building.build import Built, build_engine
from swise_engines.building.options import BuildOptions, choose_backend
from swise_engines.building.progress import Report
from swise_engines.cuda.boundary import (
    Cuda,
    Device,
    DeviceBuffer,
    GpuAtHand,
    Graph,
    HostBuffer,
    Stream,
    Timer,
    find_gpu,
    out_of_memory,
)
from swise_engines.targets.catalogue import find_target
from swise_engines.tensorrt.api import Messages, create_runtime, load_tensorrt
from swise_engines.tensorrt.manifest import EngineManifest, read_manifest
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.graph.number_formats import tensor_from_values
from swise_export.precision.half import half_from_fp32

Kind = Literal["fp32", "fp16", "bf16", "int8", "fp8", "mixed"]
MakeOnnx = Callable[..., Path]

NO_GPU = GpuAtHand(None, "this test runs without one")
SMALL = Profile(Extent(1, 8, 8), Extent(1, 16, 12), Extent(2, 32, 24))


def quiet(phase: str, share: float) -> None:
    del phase, share


@pytest.fixture(scope="session")
def make_onnx(tmp_path_factory: pytest.TempPathFactory) -> MakeOnnx:
    """Writes an ONNX file that repeats every pixel `scale` times both ways.

    A 1x1 convolution 3 -> 3 (the identity, 9 MACs a pixel), then a 3x3 one 3 -> 3*scale**2 (243 *
    scale**2 / 9 MACs), then PixelShuffle. "mixed" computes the first in fp32, the second in fp16.
    """

    def make(
        kind: Kind = "fp32",
        *,
        scale: int = 2,
        io: Literal["float", "uint8"] = "float",
        sides: tuple[int | str, int | str, int | str] = ("n", "h", "w"),
        says: dict[str, str] | None = None,
        name: str = "tiny.onnx",
    ) -> Path:
        path = tmp_path_factory.mktemp("onnx") / name
        model = _repeating_model(kind, scale, io, sides)
        if kind == "bf16":
            model = half_from_fp32(model, precision="bf16").model
        facts = {"model": "tiny", "scale": str(scale), "io": io, "precision": kind}
        facts.update(says or {})
        helper.set_model_props(model, {f"swise.{key}": value for key, value in facts.items()})
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path

    return make


def _repeating_model(
    kind: Kind, scale: int, io: str, sides: tuple[int | str, int | str, int | str]
) -> onnx.ModelProto:
    first = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    second = np.zeros((3 * scale**2, 3, 3, 3), np.float32)
    for channel in range(3):
        second[channel * scale**2 : (channel + 1) * scale**2, channel, 1, 1] = 1
    low = next((p for p in get_args(QuantisedPrecision) if p == kind), None)
    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.TensorProto] = []

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def store(name: str, array: np.ndarray) -> str:
        stored.append(numpy_helper.from_array(array, name))
        return name

    def convolve(x: str, weights: np.ndarray, name: str, half: bool, pad: int) -> str:
        if half:
            x = add("Cast", [x], f"{name}_half", to=TensorProto.FLOAT16)
            weights = weights.astype(np.float16)
        if low is not None:
            x = _quantised(x, name, low)
            levels = f"{name}_levels"
            stored.append(tensor_from_values(weights, low, levels))
            step = store(f"{name}_step", np.ones(len(weights), np.float32))
            w = add("DequantizeLinear", [levels, step], f"{name}_weights", axis=0)
        else:
            w = store(f"{name}_weights", weights)
        return add("Conv", [x, w], name, pads=[pad] * 4)

    def _quantised(x: str, name: str, low: QuantisedPrecision) -> str:
        step = store(f"{name}_x_step", np.array(1 / 127, np.float32))
        zero = f"{name}_x_zero"
        stored.append(tensor_from_values(np.zeros((), np.float32), low, zero))
        q = add("QuantizeLinear", [x, step, zero], f"{name}_q")
        return add("DequantizeLinear", [q, step, zero], f"{name}_dq")

    x = "lr"
    if io == "uint8":
        x = add("Cast", [x], "widened", to=TensorProto.FLOAT)
        x = add("Transpose", [x], "planes", perm=[0, 3, 1, 2])
    x = convolve(x, first, "first", kind == "fp16", 0)
    x = convolve(x, second, "second", kind in ("fp16", "mixed"), 1)
    x = add("DepthToSpace", [x], "shuffled", blocksize=scale, mode="CRD")
    if io == "uint8":
        x = add("Cast", [x], "float", to=TensorProto.FLOAT)
        low = store("low", np.array(0, np.float32))
        high = store("high", np.array(255, np.float32))
        x = add("Clip", [x, low, high], "clipped")
        x = add("Round", [x], "rounded")
        x = add("Transpose", [x], "pixels", perm=[0, 2, 3, 1])
        add("Cast", [x], "sr", to=TensorProto.UINT8)
    else:
        add("Cast", [x], "sr", to=TensorProto.FLOAT)
    batch, height, width = sides
    dims: list[int | str] = (
        [batch, 3, height, width] if io == "float" else [batch, height, width, 3]
    )
    dtype = TensorProto.FLOAT if io == "float" else TensorProto.UINT8
    free: list[int | str] = ["N", 3, "H", "W"] if io == "float" else ["N", "H", "W", 3]
    graph = helper.make_graph(
        nodes,
        "repeat",
        [helper.make_tensor_value_info("lr", dtype, dims)],
        [helper.make_tensor_value_info("sr", dtype, free)],
        stored,
    )
    opset, ir_version = (19, 9) if kind == "fp8" else (17, 8)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


@pytest.fixture(scope="session")
def rtx() -> None:
    """Skips where TensorRT for RTX is not installed; it needs no GPU."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("needs tensorrt-rtx-cu13, the extra [rtx]")


@pytest.fixture(scope="session")
def sm86(rtx: None, make_onnx: MakeOnnx, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A real fp16 engine for SM 8.6, built once; `engine` hands out copies."""
    del rtx
    return build_engine(
        make_onnx("fp16"),
        tmp_path_factory.mktemp("sm86") / "tiny.engine",
        BuildOptions(find_target("sm86"), profiles=(SMALL,)),
        gpu=NO_GPU,
        cache=None,
        report=quiet,
        notify=print,
    )


@pytest.fixture
def engine(sm86: Built, tmp_path: Path) -> Path:
    """A copy of a real engine with its manifest, to be damaged."""
    for suffix in (".engine", ".json"):
        shutil.copy(sm86.path.with_suffix(suffix), tmp_path)
    return tmp_path / sm86.path.name


def manifest_of(engine: Path) -> EngineManifest:
    """The manifest beside an engine that has one."""
    manifest = read_manifest(engine)
    assert manifest is not None
    return manifest


class HostCuda:
    """The boundary of CUDA over the CPU's own memory, for logic that a GPU is not needed for.

    It counts what is allocated and not freed, and captures the work that is put on a stream.
    """

    name = "host memory"
    has_graphs = True

    def __init__(self, *, integrated: bool = False, limit_bytes: int = 1 << 20) -> None:
        self.device = Device("host", "8.6", integrated, "0.0")
        self.limit_bytes = limit_bytes
        self.held: dict[int, np.ndarray] = {}
        self.on_device: set[int] = set()
        self.num_taken = 0
        self.captured = 0
        self.launched: list[Stream] = []
        self.capturing: list[Callable[[], None]] | None = None

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        yield

    def free_memory(self) -> tuple[int, int]:
        used = sum(self.held[pointer].nbytes for pointer in self.on_device & set(self.held))
        return self.limit_bytes - used, self.limit_bytes

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        free, total = self.free_memory()
        if size_bytes > free:
            raise out_of_memory(size_bytes, free, total, "a device buffer")
        pointer, release = self._hold(np.zeros(size_bytes, np.uint8))
        self.on_device.add(pointer)
        return DeviceBuffer(pointer, size_bytes, release)

    def allocate_host(
        self, shape: tuple[int, ...], dtype: DTypeLike, *, mapped: bool
    ) -> HostBuffer:
        array = np.zeros(shape, dtype)
        pointer, release = self._hold(array)
        return HostBuffer(array, pointer if mapped else 0, release)

    def _hold(self, array: np.ndarray) -> tuple[int, Callable[[], None]]:
        self.num_taken += 1
        pointer = self.num_taken
        self.held[pointer] = array

        def release() -> None:
            del self.held[pointer]

        return pointer, release

    def create_stream(self) -> Stream:
        pointer, release = self._hold(np.zeros(1))
        return Stream(pointer, None, release)

    def synchronize(self, stream: Stream) -> None:
        del stream

    def upload(self, stream: Stream, target: DeviceBuffer, source: np.ndarray) -> None:
        del stream
        self.held[target.pointer][: source.nbytes] = source.view(np.uint8).reshape(-1)

    def download(self, stream: Stream, target: np.ndarray, source: DeviceBuffer) -> None:
        del stream
        target.view(np.uint8).reshape(-1)[:] = self.held[source.pointer][: target.nbytes]

    def create_timer(self) -> Timer:
        _, release = self._hold(np.zeros(1))
        return Timer(self.synchronize, self.synchronize, lambda: 1.5, release)

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        del stream
        self.captured += 1
        captured: list[Callable[[], None]] = []
        self.capturing = captured
        enqueue()
        self.capturing = None
        _, release = self._hold(np.zeros(1))

        def launch(on: Stream) -> None:
            self.launched.append(on)
            for work in captured:
                work()

        return Graph(launch, release)


@pytest.fixture
def host_cuda() -> type[HostCuda]:
    return HostCuda


@pytest.fixture(scope="session")
def cuda() -> Cuda:
    """A GPU; tests that take it are skipped where there is none."""
    gpu = find_gpu()
    if gpu.cuda is None:
        pytest.skip(f"needs an NVIDIA GPU: {gpu.reason}")
    return gpu.cuda


def refusal_of(trt: ModuleType, plan: bytes) -> str:
    """TensorRT's words where it refuses an engine for this GPU's compute capability alone.

    "" where it takes the engine, and where it has another reason: that is for the tests to meet.
    """
    messages = Messages(trt)
    runtime = create_runtime(trt, messages)
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    validity, reasons = runtime.get_engine_validity(plan)
    unsupported = trt.EngineInvalidityDiagnostics.UNSUPPORTED_CC
    is_that = validity == trt.EngineValidity.INVALID and int(reasons) == int(unsupported)
    return messages.explain() if is_that else ""


@pytest.fixture
def ask_refusal() -> Callable[[ModuleType, bytes], str]:
    return refusal_of


@pytest.fixture(scope="session")
def served(
    cuda: Cuda, make_onnx: MakeOnnx, tmp_path_factory: pytest.TempPathFactory
) -> Literal["tensorrt", "tensorrt_rtx"]:
    """The TensorRT for this GPU; tests are skipped where it runs no engine on it, and says so."""
    backend = choose_backend(BuildOptions(None), cuda.device)
    if backend == "tensorrt_rtx":
        portable = build_engine(
            make_onnx("fp32"),
            tmp_path_factory.mktemp("portable") / "portable.engine",
            BuildOptions(find_target("sm86"), profiles=(SMALL,), compatibility="ampere_plus"),
            gpu=NO_GPU,
            cache=None,
            report=quiet,
            notify=print,
        )
        trt = load_tensorrt(backend)
        with cuda.use():
            refusal = refusal_of(trt, portable.path.read_bytes())
        if refusal:
            pytest.skip(f"TensorRT for RTX {trt.__version__}: {refusal}")
    return backend


@pytest.fixture(scope="session")
def build_here(served: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds an engine for the GPU of this machine, with the TensorRT that is installed.

    In a process of its own: polygraphy serves one TensorRT in a process, and other tests build with
    TensorRT for RTX in this one.
    """

    def build(onnx_path: Path, *profiles: Profile) -> Path:
        out = tmp_path_factory.mktemp("here") / "here.engine"
        batch = max(profile.max.batch for profile in profiles)
        options = ["-o", str(out), "--no-cache", "--no-verify", "--backend", served]
        options += ["--batch", str(batch)]
        for profile in profiles:
            extents = (profile.min, profile.opt, profile.max)
            options += ["--size", ":".join(f"{e.width}x{e.height}" for e in extents)]
        done = subprocess.run(
            [sys.executable, "-m", "swise_engines.building.cli", str(onnx_path), *options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    return build


@pytest.fixture
def report() -> Report:
    return quiet
