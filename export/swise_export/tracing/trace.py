"""From a torch network to an ONNX file."""

import contextlib
import copy
import dataclasses
import inspect
import logging
import warnings
from collections.abc import Collection, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from swise_deploy import __version__
from swise_deploy.checkpoints.adapting import CalledNetwork
from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import ExportError, first_line
from swise_deploy.pictures.files import RgbImage
from swise_deploy.precision import (
    ExportPrecision,
    FilePrecision,
    QuantisedPrecision,
    RestPrecision,
    half_precision,
)
from swise_deploy.runner import PictureIO
from swise_deploy.storage.files import scratch, sha256_of, writing
from swise_export.manifest import (
    Form,
    Manifest,
    QuantisedFacts,
    TensorFacts,
    metadata_from_manifest,
    write_manifest,
)
from swise_export.precision.half import HalfModel, half_from_fp32
from swise_export.precision.recipe import QuantisationRecipe, quantised_model
from swise_export.rewriting.deploy_form import deploy_form
from swise_export.rewriting.folding import folded_parametrizations
from swise_export.tracing.shared_weights import share_weights
from swise_export.tracing.traceable import traceable_functions

logger = logging.getLogger(__name__)

# The newest opset that TensorRT 8.6 (JetPack 6.0) takes; 10, 11, RTX and ONNX Runtime take it too.
OPSET = 17

# The first whose QuantizeLinear takes fp16 and gives FP8. TensorRT 10, 11, RTX and ONNX Runtime
# take it.
OPSET_QUANTISED = 19

TRACED_SIZE = (32, 24)
"""(width, height) of the example that is traced where the file takes any size."""


def _with_uint8_pictures(network: nn.Module) -> list[RemovableHandle]:
    """Put 8-bit pictures on both sides of a network: (N, H, W, 3) uint8 RGB.

    Hooks, not a module around it: its layers keep their names.
    """

    def float_from_uint8(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        # TensorRT takes uint8 at the input only if the first thing done to it is the cast.
        return (args[0].to(torch.float32).permute(0, 3, 1, 2) / 255,)

    def uint8_from_float(_: nn.Module, __: tuple[Tensor], sr: Tensor) -> Tensor:
        rounded = torch.round(torch.clamp(sr, 0, 1) * 255)
        return rounded.permute(0, 2, 3, 1).to(torch.uint8)

    return [
        network.register_forward_pre_hook(float_from_uint8),
        network.register_forward_hook(uint8_from_float),
    ]


def export_onnx(
    network: LoadedNetwork,
    path: Path,
    *,
    precision: ExportPrecision = "fp32",
    io: PictureIO = "float",
    size: tuple[int, int] | None = None,
    form: Form = "deploy",
    range_images: Sequence[RgbImage] = (),
    keep_fp32: Collection[str] = (),
    recipe: QuantisationRecipe | None = None,
    batch: int | None = None,
    graph: onnx.ModelProto | None = None,
) -> Manifest:
    """Export a network to one ONNX file with its manifest beside it.

    Args:
        network: What to export.
        path: NAME.onnx; NAME.json is written too. Either both are new afterwards, or neither.
        precision: "fp16" and "bf16" compute in half precision wherever the activations allow it;
            "int8" and "fp8" follow `recipe`.
        io: Layout and type of the pictures that the file takes and gives.
        size: (width, height) of the only input size; None for any.
        form: "plain" exports the network as it is written.
        range_images: LR pictures on which activation ranges are measured for fp16 and bf16; without
            any, only the operations that always need fp32 get it.
        keep_fp32: More nodes that stay in fp32.
        recipe: The layers that are quantised, and their weights.
        batch: 1 traces for one picture at a time; None for any number.
        graph: The result of `traced_form` for these settings, where it is there already; not
            changed.

    Raises:
        ExportError: The network cannot be traced, or it gives values that are not finite.
        OutputError: The file cannot be written.
    """
    if graph is None:
        plan = None if recipe is None else recipe.plan
        opset = opset_of(precision) if plan is None else opset_of(plan.precision, plan.rest)
        graph = traced_form(network, form=form, io=io, size=size, batch=batch, opset=opset)
    model = copy.deepcopy(graph)
    found = HalfModel(model, (), ())
    written: FilePrecision = precision if recipe is None else recipe.precision
    half = half_precision(precision)
    if half is not None:
        found = half_from_fp32(model, range_images, precision=half, keep_fp32=keep_fp32)
    if recipe is not None:
        found = quantised_model(model, recipe, range_images)
    model = found.model
    manifest = Manifest(
        sha256="",
        model=network.name,
        scale=network.scale,
        precision=written,
        io=io,
        form=form,
        input=_tensor_facts(model.graph.input[0], io),
        output=_tensor_facts(model.graph.output[0], io),
        num_params=sum(p.numel() for p in network.module.parameters()),
        opset=next(entry.version for entry in model.opset_import if not entry.domain),
        weights=Path(network.source).name,
        weights_sha256=network.weights_sha256,
        fp32_nodes=found.fp32_nodes,
        activations={entry.node: entry.max_abs for entry in found.ranges},
        int8=_facts_in("int8", recipe),
        fp8=_facts_in("fp8", recipe),
        versions={
            "swise-deploy": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
        },
    )
    return save_with_manifest(model, path, manifest)


def opset_of(precision: ExportPrecision, rest: RestPrecision = "fp16") -> int:
    """The opset in which a network is traced for a precision, and for that beside INT8."""
    is_old = precision in ("fp32", "fp16") or (precision == "int8" and rest == "fp32")
    return OPSET if is_old else OPSET_QUANTISED


def _facts_in(
    precision: QuantisedPrecision, recipe: QuantisationRecipe | None
) -> QuantisedFacts | None:
    """A recipe's facts for a manifest, where it is of that precision."""
    if recipe is None or recipe.plan.precision != precision:
        return None
    plan = recipe.plan
    return QuantisedFacts(
        mult_adds_share=plan.mult_adds_share,
        layers=len(plan.quantised_layers),
        layers_fp16=tuple(x.name for x in plan.layers if x.precision != plan.precision),
        rest=plan.rest,
        calibration_images=plan.num_pictures,
        calibration_method=plan.method,
        calibration_sha256=plan.pictures_sha256,
        held_out_drift_db=plan.held_out_drift_db,
    )


def traced_form(
    network: LoadedNetwork,
    *,
    form: Form = "deploy",
    io: PictureIO = "float",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Trace a network in a form; the arguments are those of `export_onnx`."""
    module = folded_parametrizations(network.module)
    if form == "deploy":
        module = deploy_form(module)
    return traced(module, network, io=io, size=size, batch=batch, opset=opset)


def python_values(network: LoadedNetwork, *, form: Form = "deploy") -> list[str]:
    """Lines of a network's own code at which tracing turned tensors into Python numbers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(ExportError):
            _trace_warned(network, form)
    own = [
        f"{Path(w.filename).name} line {w.lineno}"
        for w in caught
        if w.category.__name__ == "TracerWarning" and "torch" not in Path(w.filename).parts
    ]
    return list(dict.fromkeys(own))[:3]


def _trace_warned(network: LoadedNetwork, form: Form) -> None:
    module = folded_parametrizations(network.module)
    module = deploy_form(module) if form == "deploy" else module.eval()
    width, height = TRACED_SIZE
    try:
        torch.jit.trace(module, torch.rand(1, 3, height, width), check_trace=False)  # type: ignore[no-untyped-call]  # torch's own
    except (RuntimeError, ValueError, TypeError) as error:
        raise ExportError(first_line(error)) from error


def save_with_manifest(model: onnx.ModelProto, path: Path, manifest: Manifest) -> Manifest:
    """Write a model and its sidecar; returns the manifest with the file's hash in it.

    Raises:
        OutputError: A file cannot be written.
    """
    share_weights(model)
    model.producer_name = "swise-deploy"
    model.producer_version = __version__
    onnx.helper.set_model_props(model, metadata_from_manifest(manifest))
    with writing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        manifest = dataclasses.replace(manifest, sha256=sha256_of(temporary))
        write_manifest(path, manifest)
    return manifest


def traced(
    module: nn.Module,
    network: LoadedNetwork,
    *,
    io: PictureIO = "float",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Trace a module into an fp32 model; the arguments are those of `export_onnx`.

    Raises:
        ExportError: It cannot be traced.
    """
    if _has_options(module):
        module = CalledNetwork(module, _call_with_picture)
    width, height = size or TRACED_SIZE
    sample = torch.rand(1 if size or batch == 1 else 2, 3, height, width)
    handles: list[RemovableHandle] = []
    if io == "uint8":
        handles = _with_uint8_pictures(module)
        sample = (sample * 255).to(torch.uint8).permute(0, 2, 3, 1)
    rows, columns = (2, 3) if io == "float" else (1, 2)
    dynamic = {
        "lr": {0: "batch", rows: "height", columns: "width"},
        "sr": {0: "batch", rows: f"height_x{network.scale}", columns: f"width_x{network.scale}"},
    }
    if batch is not None:
        for axes in dynamic.values():
            del axes[0]
    with warnings.catch_warnings(), traceable_functions(), scratch() as folder:
        # The tracer warns of its own age and of Python numbers that are meant to be constants.
        warnings.simplefilter("ignore")
        target = folder / "traced.onnx"
        try:
            # Where it fails, torch prints the whole graph to stdout, which is for results.
            with contextlib.redirect_stdout(StringIO()):
                torch.onnx.export(
                    module.eval(),
                    (sample,),
                    str(target),
                    input_names=["lr"],
                    output_names=["sr"],
                    opset_version=opset,
                    dynamic_axes=None if size else dynamic,
                    dynamo=False,
                )
            model = onnx.load(target)
            onnx.checker.check_model(model)
        except Exception as error:  # foreign code and the tracer raise errors of any class
            raise ExportError(
                f"{network.name} x{network.scale} cannot be traced: {first_line(error)}. Replace "
                "that operation in the network's code by one that ONNX has"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
    _own_weights(model)
    _narrow_doubles(model)
    if size is not None:
        height, width = (side * network.scale for side in (height, width))
        shape = (1, height, width, 3) if io == "uint8" else (1, 3, height, width)
        _fix_output(model, shape)
    return model


def _has_options(module: nn.Module) -> bool:
    """True if the forward pass has arguments by keyword alone, which torch's exporter counts in."""
    parameters = inspect.signature(module.forward).parameters.values()
    return any(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)


def _call_with_picture(module: nn.Module, lr: torch.Tensor) -> torch.Tensor:
    sr: torch.Tensor = module(lr)
    return sr


def _fix_output(model: onnx.ModelProto, shape: Sequence[int]) -> None:
    """State the output's shape: the tracer leaves the batch open."""
    dims = model.graph.output[0].type.tensor_type.shape.dim
    for dim, length in zip(dims, shape, strict=True):
        dim.dim_value = length


def _narrow_doubles(model: onnx.ModelProto) -> None:
    """Turn float64 constants and casts into float32.

    The tracer stores Python's numbers as float64 where it folds constants, although torch computes
    in float32 with them; runtimes lack kernels for float64, TensorRT all of them.
    """
    double, single = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    stored = [t for t in model.graph.initializer if t.data_type == double]
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == double:
                attribute.i = single
            if attribute.HasField("t") and attribute.t.data_type == double:
                stored.append(attribute.t)
    for tensor in stored:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in model.graph.output:
        if value.type.tensor_type.elem_type == double:
            value.type.tensor_type.elem_type = single
    del model.graph.value_info[:]


def _own_weights(model: onnx.ModelProto) -> None:
    """Give every layer its weights: the tracer stores equal tensors once, behind an Identity."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    aliases = [n for n in model.graph.node if n.op_type == "Identity" and n.input[0] in stored]
    for node in aliases:
        own = onnx.TensorProto()
        own.CopyFrom(stored[node.input[0]])
        own.name = node.output[0]
        model.graph.initializer.append(own)
        model.graph.node.remove(node)


def _tensor_facts(value: onnx.ValueInfoProto, io: PictureIO) -> TensorFacts:
    dims = value.type.tensor_type.shape.dim
    return TensorFacts(
        name=value.name,
        dtype="uint8" if io == "uint8" else "float32",
        layout="NHWC" if io == "uint8" else "NCHW",
        shape=tuple(dim.dim_param or dim.dim_value for dim in dims),
        value_range=(0, 255) if io == "uint8" else (0, 1),
    )
