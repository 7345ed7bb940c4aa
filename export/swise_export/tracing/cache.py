"""Networks as ONNX files, exported once for their weights, their form and the code that exports."""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from swise_deploy.command.dependencies import installed_version
from swise_deploy.errors import InputError
from swise_deploy.storage.ownership import reason_not_own
from swise_export.graph.loading import sha256_of_onnx
from swise_export.manifest import Form, manifest_path, read_manifest, write_manifest

if TYPE_CHECKING:
    from swise_deploy.checkpoints.load import LoadedNetwork

logger = logging.getLogger(__name__)

# All code that a graph can depend on: networks and what they compute with (imresize's kernels
# among it), checkpoints, and the export itself.
_SOURCES = ("swise_deploy", "swise_export")


def find_export(
    folder: Path, name: str, scale: int, *, weights_sha256: str, form: Form = "deploy"
) -> Path | None:
    """Find an earlier fp32 export of a network, checked against its manifest; needs no torch.

    Args:
        folder: Where exports are kept.
        name: Key of the network registry.
        scale: Output size over input size.
        weights_sha256: Hash of the weights file.
        form: Of the graph.
    """
    stem = _stem(name, scale, weights_sha256, form)
    found = sorted(folder.glob(f"{stem}_torch{_torch_version() or '*'}.onnx"))
    whole = (
        p for p in found if _is_whole(p, name, scale, weights_sha256=weights_sha256, form=form)
    )
    return next(whole, None)


def _is_whole(path: Path, name: str, scale: int, *, weights_sha256: str, form: Form) -> bool:
    """True where a kept file is the one that its manifest describes, and that is wanted."""
    reason = next(filter(None, map(reason_not_own, (path.parent, path, manifest_path(path)))), "")
    try:
        manifest = read_manifest(path)
        is_right = (
            manifest.sha256 == sha256_of_onnx(path)
            and (manifest.model, manifest.scale, manifest.form) == (name, scale, form)
            and manifest.weights_sha256 == weights_sha256
        )
        reason = reason or ("" if is_right else "it is not the file that was kept")
    except InputError as error:
        reason = str(error)
    if reason:
        logger.warning("the kept export %s is exported again: %s", path.name, reason)
    return not reason


def export_once(
    network: "LoadedNetwork", folder: Path, *, form: Form = "deploy", say: Callable[[str], None]
) -> Path:
    """The network as an fp32 ONNX file that takes any size; needs torch where there is none yet.

    Args:
        network: What to export.
        folder: Where exports are kept.
        form: Of the graph.
        say: Takes a line where it has to be exported.

    Raises:
        ExportError: The network cannot be exported.
        OutputError: The file cannot be written.
    """
    sha256 = network.weights_sha256
    found = find_export(folder, network.name, network.scale, weights_sha256=sha256, form=form)
    if found is not None:
        return found
    from swise_export.tracing.trace import export_onnx

    stem = _stem(network.name, network.scale, sha256, form)
    path = folder / f"{stem}_torch{_torch_version()}.onnx"
    say(f"exporting {network.name} x{network.scale}, {form} form, to {path}")
    write_manifest(path, export_onnx(network, path, form=form))
    return path


def _stem(name: str, scale: int, weights_sha256: str, form: Form) -> str:
    return f"{name}_x{scale}_{form}_{weights_sha256[:12]}_{_code_hash()[:8]}"


@functools.cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for source in _sources():
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for package in _SOURCES:
        yield from sorted(Path(str(resources.files(package))).rglob("*.py"))


def _torch_version() -> str | None:
    return installed_version("torch")
