"""The manifest of an engine: its source, its target, and the precision found in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from swise_deploy.errors import InputError
from swise_deploy.precision import FilePrecision, Precision
from swise_deploy.runner import PictureIO
from swise_deploy.storage.documents import (
    Count,
    NonNegative,
    Sha256,
    document_from_value,
    read_document,
)
from swise_deploy.storage.files import write_json
from swise_engines.targets.catalogue import Backend
from swise_engines.tensorrt.precision_table import PrecisionTable
from swise_engines.tensorrt.profiles import Profile
from swise_export.interface.ports import Interface
from swise_export.manifest import manifest_path

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
"""File names of engines, with the names that other tools give them."""

SCHEMA_VERSION = 2
KIND: Literal["engine"] = "engine"

Compatibility = Literal["none", "same_sm", "ampere_plus"]
"""Other GPUs that may run an engine: none, any of the same SM, any from SM 8.0 on."""


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """The facts of an engine that are checked before it is loaded.

    Attributes:
        engine_sha256: Hash of the engine file.
        engine_bytes: Its size.
        onnx_name: Name of the ONNX file that it was built from.
        onnx_sha256: Hash of that file.
        model: Name of the network; "" if the ONNX file does not state it.
        interface: What it takes and gives.
        precision_asked: Precision that was requested; "" if none was.
        precision_found: Layers by precision in the parsed network.
        precision_compiled: Convolutions and matrix products by precision, in the program that the
            engine carries; None where it carries none.
        stores: Stores by precision in the text of the compiled kernels; empty where the engine
            carries none.
        precision_read_back: Layers by precision in the built engine, where it could be loaded.
        read_back_note: Why it could not be loaded.
        backend: Which TensorRT built it.
        backend_version: That TensorRT's version.
        sms: Compute capabilities that it was built for; none where it is portable.
        gpu: The GPU that it was built on; "" where it was built without one.
        compatibility: Which other GPUs may run it.
        version_compatible: Whether later TensorRT versions may run it.
        profiles: Sizes that it takes.
        workspace_mib: Limit for scratch memory while building; None is TensorRT's own.
        optimization_level: 0 to 5; None is TensorRT's own.
        dla_core: Deep-learning accelerator that it runs on, if any.
        dla_fallback: Layers that run on the GPU all the same.
        build_seconds: Wall time of the build.
        drift: Its loss of quality, where it was measured.
        drift_note: Why it was not measured.
        source: Other facts that the ONNX file carries, such as the hash of its weights.
        versions: Of the software that took part.
    """

    engine_sha256: Sha256 | Literal[""]
    engine_bytes: Count
    onnx_name: str
    onnx_sha256: Sha256
    model: str
    interface: Interface
    precision_asked: FilePrecision | Literal[""]
    precision_found: PrecisionTable
    precision_read_back: PrecisionTable | None
    read_back_note: str
    backend: Backend
    backend_version: str
    sms: tuple[str, ...]
    gpu: str
    compatibility: Compatibility
    version_compatible: bool
    profiles: tuple[Profile, ...]
    workspace_mib: Count | None
    optimization_level: Count | None
    dla_core: Count | None
    dla_fallback: tuple[str, ...]
    build_seconds: NonNegative
    drift: Mapping[str, object] | None
    drift_note: str
    source: Mapping[str, str]
    versions: Mapping[str, str]
    precision_compiled: PrecisionTable | None = None
    stores: Mapping[Precision, Count] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    kind: Literal["engine"] = KIND

    def __post_init__(self) -> None:
        """Refuse an engine without a profile."""
        if not self.profiles:
            raise InputError("the engine has no profile; expected at least one")

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.interface.scale

    @property
    def io(self) -> PictureIO:
        """Layout and type of the pictures that its runner takes."""
        return self.interface.io

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        document = document_from_value(self)
        return {"schema_version": document.pop("schema_version"), **document}

    def of_engine(self, sha256: str) -> "EngineManifest":
        """The same manifest for an engine file with that hash."""
        return replace(self, engine_sha256=sha256)

    def with_drift(self, drift: Mapping[str, object] | None, note: str = "") -> "EngineManifest":
        """The same engine with its quality measured, or with the reason why it was not."""
        return replace(self, drift=drift, drift_note=note)


def write_manifest(engine: Path, manifest: EngineManifest) -> None:
    """Write the manifest beside its engine."""
    write_json(manifest_path(engine), manifest.to_dict())


def read_manifest(engine: Path) -> EngineManifest | None:
    """Read the manifest of an engine; None where there is none.

    Raises:
        InputError: It is there, but it is not an engine manifest of this version.
    """
    path = manifest_path(engine)
    if not path.exists():
        return None
    return read_document(
        path,
        EngineManifest,
        what="the manifest",
        advice="Build the engine again with swise-build",
        schema_version=SCHEMA_VERSION,
        kind=KIND,
    )
