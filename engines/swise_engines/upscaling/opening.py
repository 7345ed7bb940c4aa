"""From a file or the name of a network to a runner and the tiles that suit it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.checkpoints.shipped import (
    WEIGHTS_SUFFIXES,
    parse_named,
    shipped_onnx,
    shipped_weights,
)
from swise_deploy.command.console import choose
from swise_deploy.command.dependencies import require
from swise_deploy.command.memory import free_memory_bytes
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.runner import Runner
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import sha256_of
from swise_engines.choosing.candidates import Candidate, RunnerName, candidates_for
from swise_engines.choosing.fastest import FIRST_RUN_LIMIT_S, choose_fastest
from swise_engines.tensorrt.manifest import ENGINE_SUFFIXES, read_manifest
from swise_engines.tensorrt.profiles import Profile
from swise_engines.upscaling.exact import ExactRunner, SplitNetwork, split_network
from swise_engines.upscaling.receptive_field import PROBE_SIZES, cached_overlap, measure_overlap
from swise_engines.upscaling.tile_memory import bytes_per_pixel, tile_side
from swise_engines.upscaling.tiling import Overlap, Planes, TileLimits
from swise_export.graph.loading import load_onnx, sha256_of_onnx
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.manifest import Form
from swise_export.runtimes.table import RUNTIMES
from swise_export.tracing.cache import export_once, find_export

logger = logging.getLogger(__name__)

FindOverlap = Callable[[Callable[[Planes], Planes]], Overlap | None]

DEFAULT_MEMORY_MIB = 1024
"""Budget of tiles, and of whole pictures where the free memory is not known."""

SHARE_OF_FREE_MEMORY = 0.5
# On a CPU a larger tile wins nothing: little is computed twice, and rows still fit the caches.
MAX_DEFAULT_TILE = 512
# Networks that average over the whole picture, known without a measurement. The receptive field of
# their convolutions ends 8 pixels away; the rest is the averages (docs/upscaling.md).
GLOBAL_NETWORKS = {
    "swisenet": Overlap(margin=12, fade=8, step=2),
    "swisenet_no_sum": Overlap(margin=12, fade=8, step=2),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A network that can be opened.

    Attributes:
        runner: Runs it; not yet activated.
        limits: The input sizes of one call.
        find_overlap: Finds the overlap of tiles, given the network: with a fade where no overlap is
            exact, None where nothing better is known.
        reason: Comparison with other runners, where several were possible.
        prepare: Takes every whole picture before its tiles.
    """

    runner: Runner
    limits: TileLimits
    find_overlap: FindOverlap
    reason: str = ""
    prepare: Callable[[NDArray[np.generic]], None] | None = None


def open_source(
    source: str | Path,
    *,
    weights: Path | None = None,
    scale: int | None = None,
    runner: RunnerName = "auto",
    tile: int | None = None,
    memory_mib: int | None = None,
    threads: int | None = None,
    remeasure: bool = False,
    exact: bool = False,
) -> Source:
    """Choose the runner for a file, a network's name, or "auto".

    Raises:
        InputError: There is no such file or name, or it does not serve that scale.
        BackendMissingError: What runs it is not installed.
    """
    source, scale = _named_source(source, scale)
    path = artefact_of(source, weights=weights, scale=scale)
    if path.suffix.lower() in ENGINE_SUFFIXES:
        if runner != "auto":
            raise InputError(f"{path} is an engine, which {runner} cannot run. Leave --runner out")
        if exact:
            raise InputError(f"{path} is an engine, and --exact splits ONNX files. Give the file")
        return _engine_source(path, scale, tile)
    _refuse_other_scale(path, scale_of(path) or scale, scale)
    if exact and (split := split_network(path)) is not None:
        if runner not in ("auto", "onnxruntime"):
            raise InputError(f"--exact runs in ONNX Runtime, not in {runner}. Leave --runner out")
        return _exact_source(path, split, tile=tile, memory_mib=memory_mib, threads=threads)
    candidates = candidates_for(path, runner, threads=threads)
    if runner == "auto" and path != Path(source) and len(candidates) > 1:
        candidates += _plain_candidates(source, path, scale, weights, threads, may_export=remeasure)
    choice = choose_fastest(
        candidates,
        cache=cache_folder("fastest"),
        threads=threads,
        limit_s=None if remeasure else FIRST_RUN_LIMIT_S,
        remeasure=remeasure,
    )
    chosen = choice.candidate
    if RUNTIMES[chosen.runtime].takes == "engine":
        opened = _engine_source(chosen.path, scale, tile)
    else:
        opened = _onnx_source(chosen, scale, tile, memory_mib)
    return replace(opened, reason=choice.reason if runner == "auto" else "")


def artefact_of(
    source: str | Path, *, weights: Path | None = None, scale: int | None = None
) -> Path:
    """The engine or ONNX file behind a source; weights and names are exported once.

    Raises:
        InputError: There is no such file or name, or it does not serve that scale.
        BackendMissingError: An export is needed, and torch is not installed.
    """
    source, scale = _named_source(source, scale)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (*ENGINE_SUFFIXES, ".onnx"):
        return _existing(path)
    return _exported(*_network_of(source, weights), scale)


def _named_source(source: str | Path, scale: int | None) -> tuple[str | Path, int | None]:
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


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"no file at {path}. Check the path")
    return path


def _exported(
    name: str | None, weights: Path | None, scale: int | None, form: Form = "deploy"
) -> Path:
    """The network as an ONNX file; shipped ones that were exported before need no torch."""
    folder = cache_folder("exported")
    shipped = shipped_weights(name, scale or 2) if name is not None and weights is None else None
    if name is not None and shipped is not None:
        sha256 = sha256_of(shipped)
        kept = find_export(folder, name, scale or 2, weights_sha256=sha256, form=form)
        if kept is not None:
            return kept
    ready = shipped_onnx(name, scale or 2) if name is not None and shipped is not None else None
    purpose = f"turning {name or weights} into ONNX"
    try:
        checkpoint = require("swise_deploy.checkpoints.load", extra="export", purpose=purpose)
    except BackendMissingError:
        if form != "deploy" or ready is None:
            raise
        logger.info("without torch, %s of the package runs, in fp16", ready.name)
        return ready
    network = checkpoint.open_network(name, scale=scale, weights=weights)
    return export_once(network, folder, form=form, say=logger.info)


def _plain_candidates(
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
    try:
        name, file = _network_of(source, weights)
        plain = _exported(name, file, scale, "plain") if may_export else _kept(name, file, scale)
    except BackendMissingError as error:
        logger.info("the plain form is not compared: %s", error)
        return []
    if plain is None or load_onnx(plain).graph == load_onnx(deploy).graph:
        return []
    return candidates_for(plain, threads=threads, form="plain")


def _kept(name: str | None, weights: Path | None, scale: int | None) -> Path | None:
    """The plain form of a network with shipped weights, if it was exported before."""
    shipped = shipped_weights(name, scale or 2) if name is not None and weights is None else None
    if name is None or shipped is None:
        return None
    sha256 = sha256_of(shipped)
    folder = cache_folder("exported")
    return find_export(folder, name, scale or 2, weights_sha256=sha256, form="plain")


def _onnx_source(
    candidate: Candidate, scale: int | None, tile: int | None, memory_mib: int | None
) -> Source:
    path, runner = candidate.path, candidate.open()
    _refuse_other_scale(path, runner.scale, scale)
    file = read_onnx_file(path)
    size, batch = file.interface.size, file.interface.batch or 1
    sizes: Sequence[tuple[int, int]] = PROBE_SIZES
    if size is not None:
        limits = TileLimits(size, size, batch, batch)
        sizes = [size]
        if tile is not None:
            raise InputError(f"{path} takes pictures of {size[0]}x{size[1]} only. Leave --tile out")
    else:
        limits = _affordable_limits(path, runner, batch, tile=tile, memory_mib=memory_mib)
    return Source(runner, limits, _overlap_finder(path, file.network, runner, sizes))


def _exact_source(
    path: Path,
    split: SplitNetwork,
    *,
    tile: int | None,
    memory_mib: int | None,
    threads: int | None,
) -> Source:
    """Tiles that are fed the averages of the whole picture.

    Raises:
        InputError: The file takes one size only.
    """
    file = read_onnx_file(path)
    if file.interface.size is not None:
        raise InputError(f"{path} takes pictures of one size only. Leave --exact out")
    free = free_memory_bytes()
    budget = (memory_mib or DEFAULT_MEMORY_MIB) << 20
    if memory_mib is None and free is not None:
        budget = int(free * SHARE_OF_FREE_MEMORY)
    runner = ExactRunner(path, split, threads=threads, budget_bytes=budget)
    limits = _affordable_limits(
        path, runner, file.interface.batch or 1, tile=tile, memory_mib=memory_mib
    )
    kept = cache_folder("receptive_fields") / f"{sha256_of_onnx(path)}_exact.json"

    def find(infer: Callable[[Planes], Planes]) -> Overlap | None:
        overlap = cached_overlap(
            kept,
            lambda: measure_overlap(
                infer, runner.scale, rounds=runner.io == "uint8", sizes=PROBE_SIZES
            ),
        )
        if overlap is None:
            raise InputError(
                f"{path} sees the whole picture by more than its averages, so that no tiles are "
                "exact. Leave --exact out"
            )
        return overlap

    return Source(runner, limits, find, prepare=runner.prepare)


def _affordable_limits(
    path: Path, runner: Runner, batch: int, *, tile: int | None, memory_mib: int | None
) -> TileLimits:
    """Whole pictures where they fit into the budget, tiles beyond; tiles alone where asked for."""
    if tile is not None:
        return TileLimits(most=(tile, tile), least_batch=batch, most_batch=batch)
    cost = batch * bytes_per_pixel(path)
    default_bytes = DEFAULT_MEMORY_MIB << 20
    if memory_mib is not None:
        whole_bytes = tile_bytes = memory_mib << 20
        most_side = None
    else:
        free = free_memory_bytes() if runner.device == "cpu" else None
        whole_bytes = default_bytes if free is None else int(free * SHARE_OF_FREE_MEMORY)
        tile_bytes = min(default_bytes, whole_bytes)
        most_side = MAX_DEFAULT_TILE
    side = tile_side(tile_bytes, cost)
    side = side if most_side is None else min(side, most_side)
    whole_pixels = int(whole_bytes / cost)
    logger.debug(
        "%.0f bytes a pixel: whole up to %d pixels, else tiles of %d", cost, whole_pixels, side
    )
    return TileLimits(
        most=(side, side), least_batch=batch, most_batch=batch, whole_pixels=whole_pixels
    )


def _engine_source(path: Path, scale: int | None, tile: int | None) -> Source:
    runner_module = require("swise_engines.running.runner", extra="rtx", purpose=f"running {path}")
    manifest = read_manifest(path)
    runner: Runner = runner_module.EngineRunner(path)
    _refuse_other_scale(path, runner.scale, scale)
    if manifest is None:
        raise InputError(f"no manifest beside {path}. Build it with swise-build, which writes one")
    whole = limits_of_profiles(manifest.profiles, None)
    return Source(
        runner,
        limits_of_profiles(manifest.profiles, tile),
        _overlap_finder(path, manifest.model, runner, _probe_sizes(whole.least, whole.most)),
    )


def limits_of_profiles(profiles: Sequence[Profile], tile: int | None) -> TileLimits:
    """Tiles for an engine: as large as its largest profile, or as asked for.

    Raises:
        InputError: The asked tile is outside the profile.
    """
    widest = max(profiles, key=lambda profile: profile.max.width * profile.max.height)
    most = widest.max.width, widest.max.height
    least = widest.min.width, widest.min.height
    if tile is not None:
        if not (max(least) <= tile <= min(most)):
            raise InputError(f"tiles of {tile} pixels do not fit the engine, which takes {widest}")
        most = tile, tile
    return TileLimits(least, most, widest.min.batch, widest.max.batch)


def _refuse_other_scale(path: Path, found: int | None, asked: int | None) -> None:
    if asked is not None and found != asked:
        raise InputError(
            f"{path} upscales x{found}, not x{asked}. Use --scale {found} or another file"
        )


def _overlap_finder(
    path: Path, network: str, runner: Runner, sizes: Sequence[tuple[int, int]]
) -> FindOverlap:
    """Give what finds the overlap of tiles, with test pictures of `sizes`, (W, H)."""
    if network in GLOBAL_NETWORKS:
        return lambda _: GLOBAL_NETWORKS[network]
    # Hashed now: the file of a worker in a cluster is gone once it is loaded.
    kept = cache_folder("receptive_fields") / f"{_content_hash(path)}.json"

    def find(infer: Callable[[Planes], Planes]) -> Overlap | None:
        return cached_overlap(
            kept,
            lambda: measure_overlap(infer, runner.scale, rounds=runner.io == "uint8", sizes=sizes),
        )

    return find


def _content_hash(path: Path) -> str:
    """Hash of an artefact, an ONNX file's external data included."""
    return sha256_of_onnx(path) if path.suffix.lower() == ".onnx" else sha256_of(path)


def _probe_sizes(least: tuple[int, int], most: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes to probe with, (W, H), brought into the range that a runner takes."""
    return sorted(
        {
            (max(least[0], min(width, most[0])), max(least[1], min(height, most[1])))
            for width, height in PROBE_SIZES
        }
    )
