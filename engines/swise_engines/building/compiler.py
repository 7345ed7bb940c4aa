"""ONNX to engine bytes: one call into TensorRT, its versions and failures translated."""

import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from swise_deploy.errors import BuildError
from swise_deploy.storage.files import writing
from swise_engines.building.builder_config import CompileOptions, create_config
from swise_engines.building.layer_pins import apply_pins, pins_from_layers
from swise_engines.building.progress import BuildProgress, reports_progress, stopping_on_ctrl_c
from swise_engines.tensorrt.api import (
    Api,
    Messages,
    TypingPlan,
    create_builder,
    load_tensorrt,
    plan_typing,
    version_of,
)
from swise_engines.tensorrt.layer_types import layers_from_network
from swise_engines.tensorrt.onnx_source import EngineSource
from swise_engines.tensorrt.precision_table import (
    PrecisionTable,
    check_precision,
    table_from_layers,
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """An engine, and what was seen while it was built."""

    plan: bytes
    table: PrecisionTable
    dla_fallback: tuple[str, ...]
    seconds: float


def compile_engine(
    source: EngineSource, options: CompileOptions, progress: BuildProgress
) -> Compiled:
    """Build an engine in memory.

    Raises:
        BackendMissingError: The TensorRT is not installed or too old.
        BuildError: TensorRT cannot parse or build it, or computes in another precision.
        InputError: The options do not go together.
        KeyboardInterrupt: Ctrl-C, or `progress.cancel()`.
    """
    trt = load_tensorrt(options.backend)
    typing = plan_typing(
        options.backend,
        version_of(trt),
        _precisions_of(source),
        on_dla=options.dla_core is not None,
    )
    messages = Messages(trt)
    builder = create_builder(trt, messages)
    network = builder.create_network(_creation_flags(trt, typing))
    _parse(trt, network, messages, source.path)
    layers = layers_from_network(trt, network)
    table = table_from_layers(layers, source.counts, "parsed network")
    check_precision(options.precision, table)
    if typing.pins_layers:
        apply_pins(trt, network, pins_from_layers(layers))
    config = create_config(trt, builder, network, options, source=source, progress=progress)
    for flag in typing.builder_flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    fallback = () if options.dla_core is None else _place_on_dla(trt, config, network, options)
    started = time.perf_counter()
    with stopping_on_ctrl_c(progress, has_steps=reports_progress(trt)):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        reasons = messages.explain()
        raise BuildError(
            f"{options.backend} {version_of(trt)} cannot build {source.path}: {reasons}. "
            f"{_advise(reasons, options)}"
        )
    seconds = time.perf_counter() - started
    if options.timing_cache is not None:
        _save_timings(config, options.timing_cache)
    return Compiled(bytes(plan), table, fallback, seconds)


def _precisions_of(source: EngineSource) -> set[str]:
    return {layer.precision for layer in source.counts.layers}


def _creation_flags(trt: ModuleType, typing: TypingPlan) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    known = [getattr(flags, name) for name in typing.creation_flags if hasattr(flags, name)]
    return sum(1 << int(flag) for flag in known)


def _parse(trt: ModuleType, network: Api, messages: Messages, path: Path) -> None:
    parser = trt.OnnxParser(network, messages.sink)
    if not parser.parse_from_file(str(path)):
        # The parser frames its dump of a node in dashes; what matters is before and after it.
        messages.errors[:] = [text for text in messages.errors if "---" not in text]
        raise BuildError(
            f"TensorRT {version_of(trt)} cannot read {path}: {messages.explain()}. "
            "Export the network again with swise-export, which keeps to what TensorRT knows"
        )


def _place_on_dla(
    trt: ModuleType, config: Api, network: Api, options: CompileOptions
) -> tuple[str, ...]:
    """Put on the accelerator what it can run; gives the names of the layers that it cannot."""
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return tuple(str(layer.name) for layer in layers if not config.can_run_on_DLA(layer))


def _save_timings(config: Api, path: Path) -> None:
    timings = config.get_timing_cache()
    if path.exists():
        before = config.create_timing_cache(path.read_bytes())
        if before is not None:  # a damaged file
            timings.combine(before, True)
    with writing(path) as temporary:
        temporary.write_bytes(bytes(timings.serialize()))


def _advise(reasons: str, options: CompileOptions) -> str:
    words = reasons.lower().replace(" ", "")
    if "outofmemory" in words or "workspace" in words:
        limit = f"{options.workspace_mib} MiB" if options.workspace_mib else "not limited"
        return (
            f"It had too little memory (workspace: {limit}). Raise --workspace, build for smaller "
            "pictures with --size, or close what else uses memory"
        )
    if "resize" in words:
        return "Export with swise-export, whose default form has no bicubic Resize"
    return "Lower --optimization-level, or give one fixed --size"
