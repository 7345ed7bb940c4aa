"""The folder that goes to a device: a graph, a script, a picture and its result, with facts."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swise_deploy.checkpoints.shipped import is_shipped
from swise_deploy.errors import BuildError, InputError, OutputError
from swise_deploy.pictures.files import read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.precision import FilePrecision
from swise_deploy.storage.documents import Positive, Scale, Sha256, read_document, write_document
from swise_deploy.storage.files import sha256_of, staging
from swise_engines.targets.catalogue import Target
from swise_engines.tensorrt.onnx_source import (
    EngineSource,
    check_profile,
    fit_profile,
    read_source,
)
from swise_engines.tensorrt.profiles import Profile, default_profile
from swise_engines.trtexec.script import README, precision_options, run_script
from swise_engines.trtexec.weak_form import WeakForm, weak_form_of
from swise_export.graph.loading import session_source

SCHEMA_VERSION = 1
KIND: Literal["trtexec folder"] = "trtexec folder"
DOCUMENT = "swise.json"
# An fp16 or INT8 file rounds in ONNX Runtime, where the converted one does not.
_MAX_DIFFERENCE = {"fp32": 1e-4}
_MAX_DIFFERENCE_ROUNDED = 0.05


@dataclass(frozen=True, slots=True)
class TrtexecFolder:
    """The facts of a folder.

    Attributes:
        network: Name of the network; "" where the ONNX file does not state it.
        onnx_name: Name of the ONNX file that it was made from.
        onnx_sha256: Hash of that file.
        model_sha256: Hash of model.onnx.
        input_sha256: Hash of input.raw.
        reference_sha256: Hash of reference.raw.
        input_name: Input tensor.
        output_name: Output tensor.
        width: Of the input picture.
        height: Of the input picture.
        channels: Of the picture.
        scale: Output size over input size.
        white: The value of white.
        precision: Precision that the layers have to have; "" where it is not known.
        target: Name of the device; "" where none was named.
    """

    network: str
    onnx_name: str
    onnx_sha256: Sha256
    model_sha256: Sha256
    input_sha256: Sha256
    reference_sha256: Sha256
    input_name: str
    output_name: str
    width: Positive
    height: Positive
    channels: Positive
    scale: Scale
    white: float
    precision: FilePrecision | Literal[""]
    target: str
    schema_version: int = SCHEMA_VERSION
    kind: Literal["trtexec folder"] = KIND

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output: (1, C, H, W)."""
        return 1, self.channels, self.height * self.scale, self.width * self.scale


def read_folder(folder: Path) -> TrtexecFolder:
    """Read the facts of a folder.

    Raises:
        InputError: It is not such a folder.
    """
    return read_document(
        folder / DOCUMENT,
        TrtexecFolder,
        what="the facts of the trtexec folder",
        advice="Write the folder again with swise-build FILE.onnx --trtexec",
        schema_version=SCHEMA_VERSION,
        kind=KIND,
    )


def write_folder(
    onnx: Path, out: Path | None, target: Target | None, profile: Profile | None = None
) -> Path:
    """Write a folder for a device; returns its path.

    Args:
        onnx: The ONNX file.
        out: The folder; None is beside the ONNX file, or here for one that ships, named
            after it and the target.
        target: The device; None for any.
        profile: One size; None takes the size that gives 1280x720.

    Raises:
        InputError: The file or the size does not fit, or the device lacks the file's precision.
        BuildError: The converted graph gives another picture than the file.
        OutputError: The folder cannot be written.
    """
    source = read_source(onnx)
    _check_target(source, target)
    extent = (
        fit_profile(source.interface, default_profile(source.file.scale))
        if profile is None
        else profile
    ).opt
    check_profile(source.interface, Profile(extent, extent, extent), onnx)
    port = source.interface.input
    shape = port.shape(1, extent.width, extent.height)
    form = weak_form_of(source, shape)
    lr = _picture(shape, white=port.white, channels=port.channels)
    reference = _run(form.model.SerializeToString(), port.name, lr)
    _check_conversion(source, lr, reference)
    name = target.name if target is not None else "device"
    beside = Path() if is_shipped(onnx) else onnx.parent
    out = out or beside / f"{onnx.stem}.{name}.trtexec"
    _write(out, source, target, form=form, pictures=(lr, reference))
    return out


def _check_target(source: EngineSource, target: Target | None) -> None:
    newer = sorted({layer.precision for layer in source.counts.layers} & {"bf16", "fp8"})
    if newer and (target is None or set(newer) <= set(target.precisions.get("tensorrt", ()))):
        raise InputError(
            f"{source.path} computes in {', '.join(newer)}; the folder is for the weakly typed "
            "networks of TensorRT 8.2, which have fp32, fp16 and INT8. With TensorRT 10 or later: "
            f"trtexec --onnx={source.path.name} --stronglyTyped --saveEngine=FILE.engine, or "
            "swise-build on the device"
        )
    if target is None:
        return
    if "tensorrt" not in target.precisions:
        raise InputError(f"{target.title} has no TensorRT; expected a device with one")
    needed = {layer.precision for layer in source.counts.layers if layer.mult_adds}
    lacking = sorted(needed - set(target.precisions["tensorrt"]))
    if lacking:
        raise InputError(
            f"{source.path} computes in {', '.join(lacking)}, which {target.title} does not have; "
            f"it has {', '.join(target.precisions['tensorrt'])}. Export with --fp16 or --fp32"
        )


def _picture(shape: tuple[int, ...], *, white: float, channels: int) -> NDArray[np.float32]:
    """The first shipped sample, repeated or cut to the size."""
    _, _, height, width = shape
    rgb = read_rgb(sample_paths()[0])
    rows, columns = -(-height // rgb.shape[0]), -(-width // rgb.shape[1])
    tiled = np.tile(rgb, (rows, columns, 1))[:height, :width].astype(np.float32)
    picture = tiled if channels == 3 else tiled.mean(axis=2, keepdims=True).repeat(channels, 2)
    scaled = picture.transpose(2, 0, 1)[None] * (white / 255)
    return np.ascontiguousarray(scaled.astype(np.float32))


def _run(model: bytes | str, name: str, lr: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime  # it takes a while to import

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (sr,) = session.run(None, {name: lr})
    return np.asarray(sr, np.float32)


def _check_conversion(
    source: EngineSource, lr: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    port = source.interface.input
    before = _run(session_source(source.path), port.name, lr)
    difference = float(np.abs(before - reference).max()) / port.white
    allowed = _MAX_DIFFERENCE.get(source.file.precision, _MAX_DIFFERENCE_ROUNDED)
    if before.shape != reference.shape or not difference <= allowed:
        raise BuildError(
            f"{source.path} in the form for TensorRT 8.2 differs by {difference:.2g} of white from "
            f"the file itself; expected at most {allowed:g}. Export the network again with "
            "swise-export"
        )


def _write(
    out: Path,
    source: EngineSource,
    target: Target | None,
    *,
    form: WeakForm,
    pictures: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    lr, reference = pictures
    has_int8 = any(node.op_type == "QuantizeLinear" for node in form.model.graph.node)
    options = precision_options(form.precisions, has_int8=has_int8)
    if (out / DOCUMENT).exists():
        read_folder(out)  # nothing else is replaced
    elif out.exists():
        raise OutputError(f"{out} exists and is not a trtexec folder. Give another with --output")
    with staging(out) as temporary:
        folder = temporary / out.name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(form.model.SerializeToString())
        (folder / "input.raw").write_bytes(lr.tobytes())
        (folder / "reference.raw").write_bytes(reference.tobytes())
        port = source.interface.input
        (folder / "run.sh").write_text(run_script(port.name, options), encoding="utf-8")
        (folder / "run.sh").chmod(0o755)
        facts = TrtexecFolder(
            network=source.file.network,
            onnx_name=source.path.name,
            onnx_sha256=source.file.sha256,
            model_sha256=sha256_of(folder / "model.onnx"),
            input_sha256=hashlib.sha256(lr.tobytes()).hexdigest(),
            reference_sha256=hashlib.sha256(reference.tobytes()).hexdigest(),
            input_name=port.name,
            output_name=source.interface.output.name,
            width=lr.shape[3],
            height=lr.shape[2],
            channels=lr.shape[1],
            scale=source.file.scale,
            white=port.white,
            precision=source.file.precision,
            target="" if target is None else target.name,
        )
        write_document(folder / DOCUMENT, facts)
        title = "swise-deploy for trtexec" + (f" on {target.title}" if target else "")
        readme = README.format(
            title=f"{title}\n{'=' * len(title)}",
            network=facts.network or source.path.stem,
            precision=facts.precision or "as the file is",
            width=facts.width,
            height=facts.height,
            shape=tuple(lr.shape),
        )
        (folder / "README.txt").write_text(readme, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
