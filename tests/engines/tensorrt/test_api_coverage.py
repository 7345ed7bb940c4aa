"""Every name of TensorRT that the code uses exists in the TensorRT that is installed.

The names and the number of arguments are read out of the source of the modules that call TensorRT,
and looked up in the Python bindings, which name their arguments. Nothing is built or run: that
works without a GPU, also for TensorRT 8.6, which builds nothing without one.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import swise_engines
from swise_engines.building.layer_pins import pins_from_layers
from swise_engines.targets.catalogue import Backend
from swise_engines.tensorrt.api import plan_typing
from swise_engines.tensorrt.layer_types import LayerTypes

ROOM = Path(swise_engines.__file__).parent

# Modules that hold objects of TensorRT, and the class of each by the name of its variable.
CLASSES = {
    "building/compiler.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "config": "IBuilderConfig",
        "parser": "OnnxParser",
        "timings": "ITimingCache",
    },
    "building/builder_config.py": {"config": "IBuilderConfig"},
    "building/layer_pins.py": {"network": "INetworkDefinition"},
    "building/progress.py": {},
    "running/loaded_engine.py": {
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
    },
    "running/read_back.py": {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "context": "IExecutionContext",
        "inspector": "EngineInspector",
    },
    "running/runner.py": {"context": "IExecutionContext", "_context": "IExecutionContext"},
    "tensorrt/api.py": {},
    "tensorrt/layer_types.py": {
        "network": "INetworkDefinition",
        "layer": "ILayer",
        "producer": "ILayer",
        "tensor": "ITensor",
    },
    "tensorrt/rtx_gpus.py": {},
}

# What the code asks for with hasattr or getattr first, or uses with one of the two alone.
OPTIONAL: dict[Backend, set[str]] = {
    "tensorrt": {
        # TensorRT for RTX only.
        "ComputeCapability", "CudaGraphStrategy", "ICudaEngine.create_runtime_config",
        # Called with a runtime configuration for TensorRT for RTX only.
        "ICudaEngine.create_execution_context",
        # Asked for first.
        "EngineInvalidityDiagnostics", "EngineValidity", "IProgressMonitor", "PreviewFeature",
        "Runtime.engine_host_code_allowed", "Runtime.get_engine_validity",
        "ICudaEngine.device_memory_size", "IConvolutionLayer", "IDeconvolutionLayer",
        # An attribute of IConvolutionLayer, whose class a layer is given first.
        "ILayer.kernel",
    },
    "tensorrt_rtx": {
        # TensorRT only: DLA, timing caches, devices of a layer, weak typing.
        "DeviceType", "IBuilderConfig.DLA_core", "IBuilderConfig.default_device_type",
        "IBuilderConfig.can_run_on_DLA", "IBuilderConfig.get_timing_cache",
        "IBuilderConfig.create_timing_cache", "ITimingCache.combine", "ITimingCache.serialize",
        "BuilderFlag.GPU_FALLBACK", "Runtime.DLA_core", "PreviewFeature",
        "IBuilderConfig.set_preview_feature", "Runtime.engine_host_code_allowed",
        "ICudaEngine.device_memory_size", "ILayer.kernel", "ILayer.precision",
        "ILayer.set_output_type",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Use:
    """A name of TensorRT in the source, with its number of arguments where it is called."""

    name: str
    where: str
    num_arguments: int | None


def uses_of(path: str, classes: dict[str, str]) -> Iterator[Use]:
    """Every attribute of the module and of its objects in one source file."""
    tree = ast.parse((ROOM / path).read_text(encoding="utf-8"))
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        call = calls.get(id(node))
        number = None if call is None else len(call.args) + len(call.keywords)
        where = f"{path}:{node.lineno}"
        if _is_module(owner):
            yield Use(node.attr, where, None)
        elif isinstance(owner, ast.Attribute) and _is_module(owner.value):
            yield Use(f"{owner.attr}.{node.attr}", where, number)
        elif (kind := classes.get(_name(owner))) is not None:
            yield Use(f"{kind}.{node.attr}", where, number)


def _is_module(node: ast.expr) -> bool:
    return _name(node) == "trt"


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


USES = [use for path, classes in CLASSES.items() for use in uses_of(path, classes)]


def signatures(function: object) -> list[tuple[int, int]]:
    """Least and most arguments beside self of each overload, from what pybind11 documents."""
    text = getattr(function, "__doc__", "") or ""
    found = []
    for line in re.findall(r"^(?:\d+\. )?\w+\((.*)\)(?: -> .*)?$", text, re.MULTILINE):
        arguments = _split(line)[1:]
        needed = sum("=" not in argument for argument in arguments)
        found.append((needed, len(arguments)))
    return found


def _split(text: str) -> list[str]:
    """Arguments of a signature: commas inside brackets part nothing."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def installed(request: pytest.FixtureRequest) -> tuple[Backend, ModuleType]:
    backend: Backend = request.param
    return backend, pytest.importorskip(backend, reason=f"needs the package {backend}")


def test_the_source_uses_all_classes_that_are_looked_up():
    used = {use.name.partition(".")[0] for use in USES}
    assert {kind for classes in CLASSES.values() for kind in classes.values()} <= used
    assert len(USES) > 80


def test_every_name_exists_with_that_number_of_arguments(installed):
    backend, trt = installed
    missing, misfits, num_signatures = [], [], 0
    for use in USES:
        first = use.name.partition(".")[0]
        if use.name in OPTIONAL[backend] or first in OPTIONAL[backend] or first == "__class__":
            continue
        value: object = trt
        for part in use.name.split("."):
            value = getattr(value, part, None)
        if value is None and not use.name.endswith("__class__"):
            missing.append(f"{use.name} at {use.where}")
        elif use.num_arguments is not None and (known := signatures(value)):
            num_signatures += 1
            if not any(least <= use.num_arguments <= most for least, most in known):
                misfits.append(f"{use.name} at {use.where}: {use.num_arguments}, expected {known}")
    assert missing == []
    assert misfits == []
    assert num_signatures > 15


def test_names_that_the_code_builds_exist_too(installed):
    backend, trt = installed
    plan = plan_typing(backend, trt.__version__, {"fp32", "fp16", "int8"})
    for flag in plan.builder_flags:
        assert hasattr(trt.BuilderFlag, flag)
    assert any(hasattr(trt.NetworkDefinitionCreationFlag, flag) for flag in plan.creation_flags)
    layers = [
        LayerTypes("a", "CONVOLUTION", (kind,), (kind,), kind, kind, ())
        for kind in ("fp32", "fp16")
    ]
    for pin in pins_from_layers(layers):
        for name in (pin.precision, *pin.outputs.values()):
            assert hasattr(trt.DataType, name)


def test_tensorrt_8_is_typed_by_flags_and_obeyed_layer_precisions():
    trt = pytest.importorskip("tensorrt", reason="needs the package tensorrt")
    if not trt.__version__.startswith("8."):
        pytest.skip(f"TensorRT {trt.__version__} is typed by the graph")
    plan = plan_typing("tensorrt", trt.__version__, {"fp32", "fp16", "int8"})
    assert plan.builder_flags == ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS")
    assert plan.pins_layers
    for name in ("precision", "set_output_type"):
        assert hasattr(trt.ILayer, name)
    for kind in ("IConvolutionLayer", "IDeconvolutionLayer"):
        assert hasattr(getattr(trt, kind), "kernel")
    assert signatures(trt.ICudaEngine.create_execution_context) == [(0, 0)]
    if trt.__version__.startswith("8.6"):
        assert hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806")
        assert hasattr(trt.HardwareCompatibilityLevel, "AMPERE_PLUS")


def test_arguments_are_parted_outside_brackets():
    assert _split("self: A, b: List[C, D], e: int = 0") == [
        "self: A",
        "b: List[C, D]",
        "e: int = 0",
    ]
