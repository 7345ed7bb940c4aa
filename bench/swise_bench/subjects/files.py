"""Facts of the files behind subjects: hash, origin, batch."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from swise_deploy.errors import InputError
from swise_deploy.storage.files import sha256_of
from swise_engines.tensorrt.manifest import read_manifest
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.interface.ports import Interface


def facts_of(path: Path | None) -> Mapping[str, str]:
    """Origin that a file states: swise-export's metadata, also through an engine."""
    if path is None:
        return {}
    if path.suffix != ".onnx":
        manifest = read_manifest(path)
        return {} if manifest is None else {**manifest.source, "model": manifest.model}
    return read_onnx_file(path).facts


def content_hash(path: Path) -> str:
    """Hash of a file, external data included."""
    return read_onnx_file(path).sha256 if path.suffix == ".onnx" else sha256_of(path)


def fixed_batch(path: Path | None) -> int | None:
    """The only number of pictures that a file takes in a call; None for any."""
    interface = interface_of(path)
    return None if interface is None else interface.batch


def fixed_size(path: Path | None) -> tuple[int, int] | None:
    """The only (width, height) that a file takes; None for any."""
    interface = interface_of(path)
    return None if interface is None else interface.size


def interface_of(path: Path | None) -> Interface | None:
    """The pictures that an ONNX file takes; None for others and for files that cannot be read."""
    if path is None or path.suffix != ".onnx":
        return None
    with suppress(InputError):  # opening it states the reason
        return read_onnx_file(path).interface
    return None
