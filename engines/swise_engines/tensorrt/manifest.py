"""The sidecar of an engine: what it was made from, for what it was built, what was found in it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, cast, get_args

from swise_deploy.errors import InputError
from swise_deploy.runner import PictureIO
from swise_deploy.storage.files import read_json, write_json
from swise_engines.targets.catalogue import Backend
from swise_engines.tensorrt.precision_table import Origin, PrecisionRow, PrecisionTable
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.manifest import manifest_path

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
"""File names of engines, with the names that other tools give them."""

SCHEMA_VERSION = 1
KIND = "engine"

Compatibility = Literal["none", "same_sm", "ampere_plus"]
"""Other GPUs that may run an engine: none, any of the same SM, any from SM 8.0 on."""


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """Everything that has to be known of an engine before it may be loaded.

    Attributes:
        engine_sha256: Hash of the engine file.
        engine_bytes: Its size.
        onnx_name: Name of the ONNX file that it was built from.
        onnx_sha256: Hash of that file.
        model: Name of the network; "" if the ONNX file does not say.
        scale: Output size over input size.
        io: How pictures enter and leave.
        input_name: Input tensor.
        output_name: Output tensor.
        precision_asked: "fp32", "fp16", "int8", "mixed"; "" if nothing was asked.
        precision_found: Layers by precision in the parsed network.
        precision_read_back: Layers by precision in the built engine, where it could be loaded.
        read_back_note: Why it could not.
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
        drift: What the engine costs in quality, where it was measured.
        drift_note: Why it was not.
        source: Other facts that the ONNX file carries, such as the hash of its weights.
        versions: Of the software that took part.
    """

    engine_sha256: str
    engine_bytes: int
    onnx_name: str
    onnx_sha256: str
    model: str
    scale: int
    io: PictureIO
    input_name: str
    output_name: str
    precision_asked: str
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
    workspace_mib: int | None
    optimization_level: int | None
    dla_core: int | None
    dla_fallback: tuple[str, ...]
    build_seconds: float
    drift: Mapping[str, object] | None
    drift_note: str
    source: Mapping[str, str]
    versions: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION
    kind: str = KIND

    def __post_init__(self) -> None:
        """Refuse what no engine can have."""
        if self.scale < 1 or not self.profiles or self.io not in get_args(PictureIO):
            raise InputError(
                f"no engine has scale {self.scale}, io {self.io!r}, {len(self.profiles)} profiles"
            )

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        document = asdict(self)
        document["profiles"] = [_list_from_profile(profile) for profile in self.profiles]
        return {"schema_version": document.pop("schema_version"), **document}

    def with_drift(self, drift: Mapping[str, object] | None, note: str = "") -> "EngineManifest":
        """The same engine with its quality measured, or with the reason why it was not."""
        return replace(self, drift=drift, drift_note=note)


def write_manifest(engine: Path, manifest: EngineManifest) -> None:
    """Write the manifest beside its engine."""
    write_json(manifest_path(engine), manifest.to_dict())


def read_manifest(engine: Path) -> EngineManifest | None:
    """The manifest of an engine; None where there is none.

    Raises:
        InputError: It is there, but it is no engine manifest of this version.
    """
    path = manifest_path(engine)
    if not path.exists():
        return None
    return manifest_from_dict(read_json(path, what="the manifest", advice=_BUILD_AGAIN), path)


_BUILD_AGAIN = "Build the engine again with swise-build"


def manifest_from_dict(document: Mapping[str, object], path: Path) -> EngineManifest:
    """Parse what `to_dict` gave; unknown and missing keys are refused.

    Raises:
        InputError: Names the file and the key.
    """
    known = {field.name for field in fields(EngineManifest)}
    if document.get("kind") != KIND:
        raise InputError(f"{path} is no engine manifest. {_BUILD_AGAIN}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"the manifest {path} has schema_version {document.get('schema_version')!r}, expected "
            f"{SCHEMA_VERSION}. {_BUILD_AGAIN}"
        )
    if strange := sorted(known ^ set(document)):
        raise InputError(
            f"the manifest {path} has missing or unknown keys: {', '.join(strange)}. {_BUILD_AGAIN}"
        )
    try:
        values = {
            **document,
            "profiles": tuple(map(_profile_from_list, cast("list[object]", document["profiles"]))),
            "precision_found": _table_from_dict(document["precision_found"]),
            "precision_read_back": document["precision_read_back"]
            and _table_from_dict(document["precision_read_back"]),
            "sms": tuple(cast("list[str]", document["sms"])),
            "dla_fallback": tuple(cast("list[str]", document["dla_fallback"])),
        }
        return EngineManifest(**values)  # type: ignore[arg-type]  # JSON; its keys were compared
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the manifest {path} is damaged: {error!r}. {_BUILD_AGAIN}") from error


def _list_from_profile(profile: Profile) -> list[list[int]]:
    return [[e.batch, e.width, e.height] for e in (profile.min, profile.opt, profile.max)]


def _profile_from_list(extents: object) -> Profile:
    least, typical, most = (Extent(*sides) for sides in cast("Sequence[Sequence[int]]", extents))
    return Profile(least, typical, most)


def _table_from_dict(document: object) -> PrecisionTable:
    table = cast("dict[str, object]", document)
    rows = cast("list[dict[str, object]]", table["rows"])
    return PrecisionTable(
        cast("Origin", table["origin"]),
        tuple(PrecisionRow(**row) for row in rows),  # type: ignore[arg-type]  # JSON
        float(cast("float", table["unattributed_share"])),
    )
