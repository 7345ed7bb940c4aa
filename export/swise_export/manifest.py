"""The manifest of an exported ONNX file: a JSON sidecar, and the same facts in its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swise_deploy.precision import FilePrecision
from swise_deploy.runner import PictureIO
from swise_deploy.storage.documents import (
    Count,
    NonNegative,
    Positive,
    Scale,
    Sha256,
    Share,
    read_document,
    write_document,
)

SCHEMA_VERSION = 1
METADATA_PREFIX = "swise."

Form = Literal["deploy", "plain"]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A graph input or output.

    Attributes:
        name: Tensor name.
        dtype: Element type, such as "float32".
        layout: "NCHW" or "NHWC".
        shape: Size of each axis, or the name of a dynamic one.
        value_range: Lowest and highest value of a picture.
    """

    name: str
    dtype: str
    layout: str
    shape: tuple[int | str, ...]
    value_range: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Drift:
    """Quality of the artefact minus that of the fp32 torch network: negative is worse.

    Attributes:
        images: Number of pictures.
        images_sha256: Hash of their pixels.
        psnr_y_db: Mean over the pictures.
        ssim_y: Mean over the pictures; None where all are smaller than SSIM's window.
        worst_image: Name of the picture with the largest loss of PSNR-Y.
        worst_psnr_y_db: PSNR-Y lost (negative) or gained on that picture.
        max_abs: Largest difference between the two outputs, as a share of white.
        output_psnr_db: PSNR between the two outputs.
        measured_in: Runtime, version and device of the artefact; "" where it was not stated.
    """

    images: Positive
    images_sha256: Sha256
    psnr_y_db: float
    ssim_y: float | None
    worst_image: str
    worst_psnr_y_db: float
    max_abs: NonNegative
    output_psnr_db: float
    measured_in: str = ""


@dataclass(frozen=True, slots=True)
class QuantisedFacts:
    """Placement of INT8 or FP8 in an artefact.

    Attributes:
        mult_adds_share: Share of the graph's Mult-Adds in it.
        layers: Number of layers in it.
        layers_fp16: Layers that can be quantised but are not.
        rest: Precision of the layers that are not quantised.
        calibration_images: Number of calibration crops.
        calibration_method: Method that chose the ranges.
        calibration_sha256: Hash of the calibration crops.
        held_out_drift_db: PSNR-Y lost (negative) or gained on held-out pictures.
    """

    mult_adds_share: Share
    layers: Count
    layers_fp16: tuple[str, ...]
    rest: str
    calibration_images: Count
    calibration_method: str
    calibration_sha256: Sha256
    held_out_drift_db: float


@dataclass(frozen=True, slots=True)
class AbsoluteQuality:
    """Quality against ground truth, on the pictures of the verification.

    Attributes:
        psnr_y_db: Mean PSNR-Y of the artefact.
        network_psnr_y_db: Of the fp32 torch network.
        bicubic_psnr_y_db: Of MATLAB's bicubic enlargement.
    """

    psnr_y_db: float
    network_psnr_y_db: float
    bicubic_psnr_y_db: float

    @property
    def is_below_bicubic(self) -> bool:
        """True where the network is worse than no network."""
        return self.network_psnr_y_db < self.bicubic_psnr_y_db


@dataclass(frozen=True, slots=True)
class Manifest:
    """NAME.json beside NAME.onnx.

    Attributes:
        sha256: Hash of the ONNX file.
        model: Key of the network registry, or the name of a foreign network.
        precision: Precision of the graph.
        form: "deploy" for the rewritten network, "plain" for a direct export.
        num_params: Number of parameters of the torch network.
        weights_sha256: Hash of the weights file.
        runtime: Runtime that the file was made for: a key of the runtimes table.
        max_drift_db: PSNR-Y that the file was allowed to lose; None where it was not stated.
        fp32_nodes: Nodes that compute in fp32 in a graph of lower precision.
        activations: Largest magnitude of each layer's output in fp32, by node, on pictures.
        parity: Largest difference between the traced fp32 graph and torch at several sizes, as a
            share of white; None where it was not compared.
        quality: Quality against ground truth; None where it was not measured.
        drift: None where it was not measured.
        int8: None where no layer is INT8.
        fp8: None where no layer is FP8.
        versions: Versions of the packages that made the file.
    """

    sha256: Sha256
    model: str
    scale: Scale
    precision: FilePrecision
    io: PictureIO
    form: Form
    input: TensorFacts
    output: TensorFacts
    num_params: Count
    opset: Positive
    weights: str
    weights_sha256: str
    runtime: str = "tensorrt"
    max_drift_db: float | None = None
    fp32_nodes: tuple[str, ...] = ()
    activations: Mapping[str, float] = field(default_factory=dict)
    parity: NonNegative | None = None
    quality: AbsoluteQuality | None = None
    drift: Drift | None = None
    int8: QuantisedFacts | None = None
    fp8: QuantisedFacts | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def manifest_path(artifact: Path) -> Path:
    """Path of an artefact's sidecar."""
    return artifact.with_suffix(".json")


def write_manifest(artifact: Path, manifest: Manifest) -> Path:
    """Write the sidecar and return its path."""
    path = manifest_path(artifact)
    write_document(path, manifest)
    return path


def read_manifest(artifact: Path) -> Manifest:
    """Read the sidecar of an artefact.

    Raises:
        InputError: The sidecar is missing or invalid.
    """
    return read_document(
        manifest_path(artifact),
        Manifest,
        what="the manifest",
        advice="Export the network again",
        schema_version=SCHEMA_VERSION,
    )


def facts_of_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata that swise-export wrote into an ONNX file, by key."""
    return {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in metadata.items()
        if key.startswith(METADATA_PREFIX)
    }


def metadata_from_manifest(manifest: Manifest) -> dict[str, str]:
    """Metadata for the ONNX file; it cannot contain the file's own hash or its drift."""
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
