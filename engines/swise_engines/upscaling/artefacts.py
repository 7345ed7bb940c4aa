"""From a file, weights or the name of a network to the ONNX file or engine that is opened."""

import logging
from pathlib import Path

from swise_deploy.checkpoints.shipped import (
    WEIGHTS_SUFFIXES,
    parse_named,
    shipped_onnx,
    shipped_weights,
)
from swise_deploy.command.console import choose
from swise_deploy.command.dependencies import require
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import sha256_of
from swise_engines.choosing.candidates import Candidate, candidates_for
from swise_engines.tensorrt.manifest import ENGINE_SUFFIXES, read_manifest
from swise_export.graph.loading import load_onnx
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.manifest import Form
from swise_export.tracing.cache import export_once, find_export

logger = logging.getLogger(__name__)

DEFAULT_SCALE = 2
"""Of a network that is given by name alone."""


def artefact_of(
    source: str | Path, *, weights: Path | None = None, scale: int | None = None
) -> Path:
    """The engine or ONNX file behind a source; weights and names are exported once.

    Raises:
        InputError: There is no such file or name, or it does not serve that scale.
        BackendMissingError: An export is needed, and torch is not installed.
    """
    source, scale = named_source(source, scale)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (*ENGINE_SUFFIXES, ".onnx"):
        return _existing(path)
    return _exported(*_network_of(source, weights), scale)


def named_source(source: str | Path, scale: int | None) -> tuple[str | Path, int | None]:
    """Name and scale of "swisenet:2"; other sources unchanged."""
    named = parse_named(str(source))
    if named is None:
        return source, scale
    if scale not in (None, named[1]):
        raise InputError(f"{source} is of scale {named[1]}, not {scale}. Leave --scale out")
    return named


def _network_of(source: str | Path, weights: Path | None) -> tuple[str | None, Path | None]:
    """Name and weights of a source that is no artefact yet; None where the other decides."""
    path = Path(source)
    if path.suffix.lower() in WEIGHTS_SUFFIXES:
        return None, _existing(path)
    name = "swisenet" if str(source) == "auto" else str(source)
    choose(name, NETWORKS, what="model or file")
    return name, weights


def scale_of(artefact: Path) -> int:
    """Output size over input size of an ONNX file or an engine; 0 where that is not stated."""
    if artefact.suffix.lower() in ENGINE_SUFFIXES:
        manifest = read_manifest(artefact)
        return 0 if manifest is None else manifest.scale
    return read_onnx_file(artefact).scale


def stated_scale(source: str | Path, scale: int | None) -> int | None:
    """Output size over input size, where it is known before weights are exported."""
    source, scale = named_source(source, scale)
    suffix = Path(source).suffix.lower()
    if suffix in (*ENGINE_SUFFIXES, ".onnx"):
        return scale_of(_existing(Path(source))) or scale
    return scale if suffix in WEIGHTS_SUFFIXES else scale or DEFAULT_SCALE


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"no file at {path}. Check the path")
    return path


def _exported(
    name: str | None, weights: Path | None, scale: int | None, form: Form = "deploy"
) -> Path:
    """The network as an ONNX file; that of a shipped one ships, and needs neither time nor torch.

    The shipped file is what an export gives, so that a picture has one result, with torch or
    without, in the first run and later.
    """
    if name is not None and weights is None:
        kept = (
            shipped_onnx(name, scale or DEFAULT_SCALE, precision="fp32")
            if form == "deploy"
            else None
        )
        kept = kept or _kept(name, scale or DEFAULT_SCALE, form)
        if kept is not None:
            return kept
    purpose = f"turning {name or weights} into ONNX"
    checkpoint = require("swise_deploy.checkpoints.load", extra="export", purpose=purpose)
    network = checkpoint.open_network(name, scale=scale, weights=weights)
    return export_once(network, cache_folder("exported"), form=form, say=logger.info)


def _kept(name: str, scale: int, form: Form) -> Path | None:
    """A network with shipped weights, if it was exported before."""
    shipped = shipped_weights(name, scale)
    if shipped is None:
        return None
    sha256 = sha256_of(shipped)
    return find_export(cache_folder("exported"), name, scale, weights_sha256=sha256, form=form)


def plain_candidates(
    source: str | Path,
    deploy: Path,
    scale: int | None,
    weights: Path | None,
    threads: int | None,
    *,
    may_export: bool,
) -> list[Candidate]:
    """The network as it is written, where its graph is another one than `deploy`.

    An export takes many seconds, so that a first run does not make it.
    """
    name, file = _network_of(source, weights)
    try:
        if may_export:
            plain: Path | None = _exported(name, file, scale, "plain")
        else:
            plain = (
                None
                if name is None or file is not None
                else _kept(name, scale or DEFAULT_SCALE, "plain")
            )
    except BackendMissingError as error:
        logger.info("the plain form is not compared: %s", error)
        return []
    if plain is None or load_onnx(plain).graph == load_onnx(deploy).graph:
        return []
    return candidates_for(plain, threads=threads, form="plain")
