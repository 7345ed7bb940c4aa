"""The pictures and facts of an ONNX file of a super-resolution network, read once.

`read_onnx_file` is the only reader of these facts; runtimes, engine builds, upscaling and
benchmarks use its result. `stated` reads what the graph states. `probing` runs the graph once to
measure what it does not state: the range of its values, and the multiple that its sides have to be.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from swise_deploy.errors import InputError
from swise_deploy.precision import FilePrecision, Precision
from swise_deploy.runner import PictureIO
from swise_export.graph.loading import (
    facts_of_model,
    files_of,
    load_onnx,
    sha256_of_onnx,
    translated_damage,
)
from swise_export.graph.number_formats import narrow_formats
from swise_export.interface.ports import Interface
from swise_export.interface.probing import probe_interface
from swise_export.interface.stated import interface_of_model


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file that takes pictures and gives larger ones.

    Attributes:
        path: The file.
        sha256: Result of `sha256_of_onnx`.
        interface: Pictures that it takes and gives.
        facts: Metadata that swise-export wrote, by key; empty for other files.
        opset: Version of the default operator set.
        formats: Result of `narrow_formats`.
    """

    path: Path
    sha256: str
    interface: Interface
    facts: Mapping[str, str] = field(hash=False)
    opset: int
    formats: frozenset[Precision]

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.interface.scale

    @property
    def io(self) -> PictureIO:
        """Layout and type of the pictures that a runner of the file takes."""
        return self.interface.io

    @property
    def network(self) -> str:
        """Name of the network; "" where the file does not state it."""
        return self.facts.get("model", "")

    @property
    def precision(self) -> FilePrecision | Literal[""]:
        """Precision that the file states; "" where it states none."""
        stated = self.facts.get("precision", "")
        return cast("FilePrecision", stated) if stated in get_args(FilePrecision) else ""

    @property
    def form(self) -> str:
        """Form of the graph that the file states: "deploy", "plain" or ""."""
        return self.facts.get("form", "")

    @property
    def is_ours(self) -> bool:
        """True where swise-export made it."""
        return "schema_version" in self.facts


def read_onnx_file(path: Path) -> OnnxFile:
    """Read the pictures and facts of an ONNX file.

    Results are cached in the process; a changed file is read again.

    Raises:
        InputError: The file is missing, damaged, beyond the limits, or not a picture network. The
            message names the file, its inputs or outputs, and a solution.
    """
    with translated_damage(path):
        return _read_cached(path, _identity(path))


@functools.lru_cache(maxsize=32)
def _read_cached(path: Path, identity: object) -> OnnxFile:
    del identity
    model = load_onnx(path, external_data=False)
    facts = facts_of_model(model)
    sha256 = sha256_of_onnx(path, model)
    interface = interface_of_model(model, path)
    if interface is None or "schema_version" not in facts:
        interface = probe_interface(path, sha256, model, interface)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return OnnxFile(path, sha256, interface, facts, opset, narrow_formats(model))


def _identity(path: Path) -> tuple[object, ...]:
    """A key that changes when the file or its external data changes."""
    found = []
    for file in files_of(path):
        try:
            status = file.stat()
        except OSError as error:
            raise InputError(
                f"{path} stores weights in {file.name!r}, which cannot be read: "
                f"{error.strerror or error}. Copy it beside the file, or save the model in one file"
            ) from error
        found.append((str(file), status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
