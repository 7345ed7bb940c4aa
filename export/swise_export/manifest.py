"""The facts about an exported ONNX file: a JSON sidecar, and the same in the file's metadata."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from swise_deploy.errors import InputError
from swise_deploy.runner import PictureIO
from swise_deploy.storage.files import read_json, write_json

if TYPE_CHECKING:
    import onnx

SCHEMA_VERSION = 1
METADATA_PREFIX = "swise."

Precision = Literal["fp32", "fp16", "int8", "mixed"]
Form = Literal["deploy", "plain"]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A graph input or output.

    Attributes:
        name: Tensor name.
        dtype: "float32" or "uint8".
        layout: "NCHW" or "NHWC".
        shape: A number, or the name of a dynamic dimension, for each axis.
        value_range: Lowest and highest value of a picture.
    """

    name: str
    dtype: str
    layout: str
    shape: tuple[int | str, ...]
    value_range: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Drift:
    """What the artefact lost against the fp32 torch network, on which pictures.

    psnr_y_db and ssim_y are artefact minus torch, averaged over the pictures: negative is worse.
    The worst picture is the one that lost most PSNR.
    """

    images: int
    images_sha256: str
    psnr_y_db: float
    ssim_y: float
    worst_image: str
    worst_psnr_y_db: float
    max_abs: float
    output_psnr_db: float


@dataclass(frozen=True, slots=True)
class Int8Facts:
    """How INT8 was placed in an artefact.

    Attributes:
        mult_adds_share: Of the graph's Mult-Adds, in INT8.
        layers: How many are.
        layers_fp16: Layers that could be and are not.
        rest: What everything else computes in.
        calibration_images: Crops that the ranges were measured on.
        calibration_method: How the ranges were chosen.
        calibration_sha256: Hash of the crops.
        held_out_drift_db: What the placement lost on pictures that were not calibrated on.
    """

    mult_adds_share: float
    layers: int
    layers_fp16: tuple[str, ...]
    rest: str
    calibration_images: int
    calibration_method: str
    calibration_sha256: str
    held_out_drift_db: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """NAME.json beside NAME.onnx.

    Attributes:
        sha256: Hash of the ONNX file.
        model: Key of the network registry, or the name of a foreign network.
        precision: What was asked for and is in the graph.
        form: "deploy" for the rewritten network, "plain" for a direct export.
        num_params: Parameters of the torch network.
        weights_sha256: Hash of the weights file.
        fp32_nodes: Nodes that compute in fp32 in a graph of lower precision.
        activations: Largest magnitude that each layer reached in fp32, by node, on pictures.
        drift: None where it was not measured.
        int8: None where nothing is INT8.
        versions: Versions of what made the file.
    """

    sha256: str
    model: str
    scale: int
    precision: Precision
    io: PictureIO
    form: Form
    input: TensorFacts
    output: TensorFacts
    num_params: int
    opset: int
    weights: str
    weights_sha256: str
    fp32_nodes: tuple[str, ...] = ()
    activations: Mapping[str, float] = field(default_factory=dict)
    drift: Drift | None = None
    int8: Int8Facts | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, object]:
        """The manifest as JSON types."""
        return cast("dict[str, object]", json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> "Manifest":
        """Read what `to_dict` gave.

        Raises:
            InputError: Another schema version, or an unknown or missing key.
        """
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"manifest has schema_version {version!r}; this version reads {SCHEMA_VERSION}. "
                "Export the network again"
            )
        values = dict(document)
        try:
            for name in ("input", "output"):
                facts = dict(cast("Mapping[str, Any]", values[name]))
                facts["shape"] = tuple(facts["shape"])
                facts["value_range"] = tuple(facts["value_range"])
                values[name] = TensorFacts(**facts)
            if values.get("drift") is not None:
                drift = dict(cast("dict[str, Any]", values["drift"]))
                # NaN where every picture is smaller than SSIM's window; JSON has null for it.
                drift["ssim_y"] = math.nan if drift["ssim_y"] is None else drift["ssim_y"]
                values["drift"] = Drift(**drift)
            if values.get("int8") is not None:
                facts = dict(cast("dict[str, Any]", values["int8"]))
                facts["layers_fp16"] = tuple(facts["layers_fp16"])
                values["int8"] = Int8Facts(**facts)
            values["fp32_nodes"] = tuple(cast("list[str]", values.get("fp32_nodes", ())))
            return cls(**cast("dict[str, Any]", values))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"manifest cannot be read: {error}. Export the network again"
            ) from error


def manifest_path(artifact: Path) -> Path:
    """Where the sidecar of an artefact lies."""
    return artifact.with_suffix(".json")


def write_manifest(artifact: Path, manifest: Manifest) -> Path:
    """Write the sidecar; returns its path."""
    path = manifest_path(artifact)
    write_json(path, manifest.to_dict())
    return path


def read_manifest(artifact: Path) -> Manifest:
    """Read the sidecar of an artefact.

    Raises:
        InputError: It is missing or cannot be read.
    """
    path = manifest_path(artifact)
    return Manifest.from_dict(read_json(path, what="the manifest", advice="Export it again"))


def facts_of_onnx(model: "onnx.ModelProto") -> dict[str, str]:
    """What an ONNX file of this project says of itself, by key; of another, what little it has."""
    return facts_of_metadata({entry.key: entry.value for entry in model.metadata_props})


def facts_of_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The part of an ONNX file's metadata that this project wrote, by key."""
    return {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in metadata.items()
        if key.startswith(METADATA_PREFIX)
    }


def scale_from_facts(facts: Mapping[str, str], path: Path) -> int:
    """Output size over input size that an ONNX file states; 0 where it states none.

    Raises:
        InputError: What it states is no whole number.
    """
    stated = facts.get("scale", "0")
    if not stated.isdecimal():
        raise InputError(
            f"{path} says that its scale is {stated!r}; expected a whole number from 1 up in its "
            f"metadata {METADATA_PREFIX}scale"
        )
    return int(stated)


def metadata_from_manifest(manifest: Manifest) -> dict[str, str]:
    """What travels inside the ONNX file; the file's own hash and the drift cannot."""
    return {
        f"{METADATA_PREFIX}{key}": str(value)
        for key, value in {
            "schema_version": manifest.schema_version,
            "model": manifest.model,
            "scale": manifest.scale,
            "precision": manifest.precision,
            "io": manifest.io,
            "form": manifest.form,
            "num_params": manifest.num_params,
            "weights_sha256": manifest.weights_sha256,
        }.items()
    }
