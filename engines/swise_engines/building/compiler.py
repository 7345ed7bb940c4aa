"""From ONNX to the bytes of an engine: TensorRT's versions and errors are translated here."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from swise_deploy.errors import BuildError, OutputError
from swise_deploy.precision import Precision
from swise_deploy.storage.files import writing
from swise_engines.building.builder_config import CompileOptions, create_config
from swise_engines.building.layer_pins import apply_pins, pins_from_layers
from swise_engines.building.progress import (
    BuildProgress,
    ending_on_ctrl_c,
    reports_progress,
    stopping_on_ctrl_c,
)
from swise_engines.tensorrt.api import (
    Api,
    Messages,
    TypingPlan,
    create_builder,
    load_tensorrt,
    plan_typing,
    version_of,
)
from swise_engines.tensorrt.compiled_program import check_compiled, products_from_plan
from swise_engines.tensorrt.kernel_text import check_stores, count_stores
from swise_engines.tensorrt.layer_types import layers_from_network
from swise_engines.tensorrt.onnx_source import EngineSource
from swise_engines.tensorrt.precision_table import (
    PrecisionTable,
    check_precision,
    table_from_layers,
)
from swise_export.graph.loading import load_onnx

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The bytes of an engine, and the facts of its build.

    Attributes:
        plan: The engine.
        table: Precisions of the parsed network.
        compiled: Precisions of its products, from the program that it carries; None where it
            carries none.
        stores: Stores by precision in the text of its kernels; empty where it carries none.
        dla_fallback: Layers that the accelerator leaves to the GPU.
        seconds: Wall time of the build.
    """

    plan: bytes
    table: PrecisionTable
    compiled: PrecisionTable | None
    stores: Mapping[Precision, int]
    dla_fallback: tuple[str, ...]
    seconds: float


def compile_engine(
    source: EngineSource, options: CompileOptions, progress: BuildProgress
) -> Compiled:
    """Build an engine in memory.

    Raises:
        BackendMissingError: TensorRT is not installed, too old, or does not start.
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
    with stopping_on_ctrl_c(progress):
        builder = create_builder(trt, messages)
        network = builder.create_network(_creation_flags(trt, typing))
        _parse(trt, network, messages, source.path)
        _keep_picture(network, source.interface.output.name)
        progress.check()
        layers = layers_from_network(trt, network)
        table = table_from_layers(layers, source.counts, "parsed network")
        check_precision(options.precision, table)
        if typing.pins_layers:
            apply_pins(trt, network, pins_from_layers(layers))
        config = create_config(trt, builder, network, options, source=source, progress=progress)
        for flag in typing.builder_flags:
            config.set_flag(getattr(trt.BuilderFlag, flag))
        fallback = () if options.dla_core is None else _place_on_dla(trt, config, network, options)
        progress.check()
        started = time.perf_counter()
        with ending_on_ctrl_c(has_steps=reports_progress(trt)):
            plan = builder.build_serialized_network(network, config)
        progress.check()
        if plan is None:
            reasons = messages.explain()
            raise BuildError(
                f"{options.backend} {version_of(trt)} cannot build {source.path}: {reasons}. "
                f"{_advise(reasons, options)}"
            )
        seconds = time.perf_counter() - started
        if options.timing_cache is not None:
            _save_timings(config, options.timing_cache)
        content = bytes(plan)
        stores = count_stores(content)
        products = products_from_plan(content)
        compiled = table_from_layers(products, source.counts, "compiled engine")
        if products:
            check_compiled(options.precision, table, compiled)
        else:
            check_stores(options.precision, table, stores)
        return Compiled(content, table, compiled if products else None, stores, fallback, seconds)


def _precisions_of(source: EngineSource) -> set[str]:
    return {layer.precision for layer in source.counts.layers}


def _creation_flags(trt: ModuleType, typing: TypingPlan) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    known = [getattr(flags, name) for name in typing.creation_flags if hasattr(flags, name)]
    return sum(1 << int(flag) for flag in known)


def _parse(trt: ModuleType, network: Api, messages: Messages, path: Path) -> None:
    parser = trt.OnnxParser(network, messages.sink)
    if not _parse_file(parser, path):
        # The parser frames its dump of a node in dashes; the reason is before and after it.
        messages.errors[:] = [text for text in messages.errors if "---" not in text]
        raise BuildError(
            f"TensorRT {version_of(trt)} cannot read {path}: {messages.explain()}. "
            "Export the network again with swise-export, which uses only operators of TensorRT"
        )


def _parse_file(parser: Api, path: Path) -> bool:
    """Parse a file; sides that share a name get their own, or TensorRT wants them to be equal."""
    model = load_onnx(path, external_data=False)
    stored = {tensor.name for tensor in model.graph.initializer}
    dims = [
        dim
        for value in model.graph.input
        if value.name not in stored
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    ]
    if len({dim.dim_param for dim in dims}) == len(dims):
        return bool(parser.parse_from_file(str(path)))
    for number, dim in enumerate(dims):
        dim.dim_param = f"side_{number}"
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    return bool(parser.parse(model.SerializeToString(), str(path)))


def _keep_picture(network: Api, name: str) -> None:
    """Drop outputs beside the picture: an engine computes and returns every one that it has."""
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    for tensor in outputs:
        if tensor.name != name:
            network.unmark_output(tensor)


def _place_on_dla(
    trt: ModuleType, config: Api, network: Api, options: CompileOptions
) -> tuple[str, ...]:
    """Place layers on the accelerator; returns the names of those that it cannot run."""
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return tuple(str(layer.name) for layer in layers if not config.can_run_on_DLA(layer))


def _save_timings(config: Api, path: Path) -> None:
    """Keep the timings for the next build; a folder that cannot be written is a warning."""
    timings = config.get_timing_cache()
    if path.exists():
        before = config.create_timing_cache(path.read_bytes())
        if before is not None:  # a damaged file
            timings.combine(before, True)
    try:
        with writing(path) as temporary:
            temporary.write_bytes(bytes(timings.serialize()))
    except OutputError as error:
        logger.warning("the timings of kernels are not kept for the next build: %s", error)


def _advise(reasons: str, options: CompileOptions) -> str:
    words = reasons.lower().replace(" ", "")
    if "outofmemory" in words or "workspace" in words:
        limit = f"{options.workspace_mib} MiB" if options.workspace_mib else "not limited"
        return (
            f"It had too little memory (workspace: {limit}). Raise --workspace, build for smaller "
            "pictures with --size, or close other programs"
        )
    if "resize" in words:
        return "Export with swise-export, whose default form has no bicubic Resize"
    return "Lower --optimization-level, or give one fixed --size"
