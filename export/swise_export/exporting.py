"""From a torch network to an ONNX file."""

import dataclasses
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import Tensor, nn

from swise_deploy import __version__
from swise_deploy.errors import ExportError
from swise_deploy.files import sha256_of, writing
from swise_deploy.images import RgbImage
from swise_deploy.models.checkpoint import LoadedNetwork
from swise_deploy.runner import PictureIO
from swise_export.deploy_form import deploy_form
from swise_export.fp16 import fp16_from_fp32
from swise_export.manifest import (
    Form,
    Manifest,
    TensorFacts,
    metadata_from_manifest,
    write_manifest,
)

logger = logging.getLogger(__name__)

# The newest opset that TensorRT 8.6 (JetPack 6.0) takes; 10, 11, RTX and ONNX Runtime take it too.
OPSET = 17

# Any size does: the sizes of a dynamic export are free.
_TRACED_SIZE = (32, 24)


class _Uint8Pictures(nn.Module):
    """A network with 8-bit pictures on both sides: (N, H, W, 3) uint8 RGB."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        # TensorRT takes uint8 at the input only if the first thing done to it is the cast.
        sr = self.network(lr.to(torch.float32).permute(0, 3, 1, 2) / 255)
        levels = torch.round(torch.clamp(sr, 0, 1) * 255)
        return levels.permute(0, 2, 3, 1).to(torch.uint8)


def export_onnx(
    network: LoadedNetwork,
    path: Path,
    *,
    precision: Literal["fp32", "fp16"] = "fp32",
    io: PictureIO = "float",
    size: tuple[int, int] | None = None,
    form: Form = "deploy",
    range_images: Sequence[RgbImage] = (),
) -> Manifest:
    """Export a network to one ONNX file with its manifest beside it.

    Args:
        network: What to export.
        path: NAME.onnx; NAME.json is written too. Either both are new afterwards, or neither.
        precision: "fp16" computes in half precision wherever the activations allow it.
        io: How pictures enter and leave.
        size: (width, height) of the only input size; None for any.
        form: "plain" exports the network as it is written.
        range_images: LR pictures on which activation ranges are measured for fp16; without any,
            only the operations that always need fp32 get it.

    Raises:
        ExportError: The network cannot be traced, or it gives values that are not finite.
        OutputError: The file cannot be written.
    """
    module = deploy_form(network.module) if form == "deploy" else network.module.eval()
    model = traced(module, network, io=io, size=size)
    fp32_nodes: tuple[str, ...] = ()
    activations: dict[str, float] = {}
    if precision == "fp16":
        half = fp16_from_fp32(model, range_images)
        model, fp32_nodes = half.model, half.fp32_nodes
        activations = {found.node: found.max_abs for found in half.ranges}
    manifest = Manifest(
        sha256="",
        model=network.name,
        scale=network.scale,
        precision=precision,
        io=io,
        form=form,
        input=_tensor_facts(model.graph.input[0], io),
        output=_tensor_facts(model.graph.output[0], io),
        num_params=sum(p.numel() for p in network.module.parameters()),
        opset=OPSET,
        weights=Path(network.source).name,
        weights_sha256=network.weights_sha256,
        fp32_nodes=fp32_nodes,
        activations=activations,
        versions={
            "swise-deploy": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
        },
    )
    return save_with_manifest(model, path, manifest)


def save_with_manifest(model: onnx.ModelProto, path: Path, manifest: Manifest) -> Manifest:
    """Write a model and its sidecar; returns the manifest with the file's hash in it.

    Raises:
        OutputError: A file cannot be written.
    """
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
) -> onnx.ModelProto:
    """Trace a form of a network into an fp32 model; the arguments are those of `export_onnx`.

    Raises:
        ExportError: It cannot be traced.
    """
    width, height = size or _TRACED_SIZE
    sample = torch.rand(1 if size else 2, 3, height, width)
    if io == "uint8":
        module = _Uint8Pictures(module)
        sample = (sample * 255).to(torch.uint8).permute(0, 2, 3, 1)
    rows, columns = (2, 3) if io == "float" else (1, 2)
    dynamic = {
        "lr": {0: "batch", rows: "height", columns: "width"},
        "sr": {0: "batch", rows: f"height_x{network.scale}", columns: f"width_x{network.scale}"},
    }
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # The tracer warns of its own age and of Python numbers that are meant to be constants.
        warnings.simplefilter("ignore")
        target = Path(folder) / "traced.onnx"
        try:
            torch.onnx.export(
                module.eval(),
                (sample,),
                str(target),
                input_names=["lr"],
                output_names=["sr"],
                opset_version=OPSET,
                dynamic_axes=None if size else dynamic,
                dynamo=False,
            )
            model = onnx.load(target)
            onnx.checker.check_model(model)
        except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
            raise ExportError(
                f"{network.name} x{network.scale} could not be traced: {str(error).splitlines()[0]}"
            ) from error
    return model


def _tensor_facts(value: onnx.ValueInfoProto, io: PictureIO) -> TensorFacts:
    dims = value.type.tensor_type.shape.dim
    return TensorFacts(
        name=value.name,
        dtype="uint8" if io == "uint8" else "float32",
        layout="NHWC" if io == "uint8" else "NCHW",
        shape=tuple(dim.dim_param or dim.dim_value for dim in dims),
        value_range=(0, 255) if io == "uint8" else (0, 1),
    )
