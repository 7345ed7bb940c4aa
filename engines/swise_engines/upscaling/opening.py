"""From a file or the name of a network to a runner and the tiles that suit it."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swise_deploy.command.dependencies import require
from swise_deploy.errors import InputError
from swise_deploy.runner import Runner
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import sha256_of
from swise_engines.choosing.agreement import check_agreement
from swise_engines.choosing.candidates import Candidate, RunnerName, candidates_for
from swise_engines.choosing.fastest import FIRST_RUN_LIMIT_S, choose_fastest
from swise_engines.tensorrt.manifest import ENGINE_SUFFIXES, read_manifest
from swise_engines.upscaling.artefacts import (
    artefact_of,
    named_source,
    plain_candidates,
    scale_of,
)
from swise_engines.upscaling.tiles.budget import (
    affordable_limits,
    limits_of_profiles,
    probe_sizes,
    whole_picture_bytes,
)
from swise_engines.upscaling.tiles.exact import ExactRunner
from swise_engines.upscaling.tiles.receptive_field import (
    PROBE_SIZES,
    cached_overlap,
    measure_overlap,
)
from swise_engines.upscaling.tiles.splitting import SplitNetwork, split_network
from swise_engines.upscaling.tiles.tiling import Overlap, Planes, TileLimits
from swise_export.graph.loading import sha256_of_onnx
from swise_export.interface.onnx_file import read_onnx_file
from swise_export.runtimes.table import RUNTIMES

logger = logging.getLogger(__name__)

FindOverlap = Callable[[Callable[[Planes], Planes]], Overlap | None]

# Networks that average over the whole picture, known without a measurement. The receptive field of
# their convolutions ends 8 pixels away; the rest is the averages (docs/upscaling.md).
GLOBAL_NETWORKS = {
    "swisenet": Overlap(margin=12, fade=8, step=2),
    "swisenet_no_sum": Overlap(margin=12, fade=8, step=2),
}


LEAST_PROBE_SIDE = 64
"""Side of the smallest test picture: finds receptive fields of up to 20 pixels."""


@dataclass(frozen=True, slots=True)
class Source:
    """A network that can be opened.

    Attributes:
        runner: Runs it; not yet activated.
        limits: The input sizes of one call.
        find_overlap: Finds the overlap of tiles, given the network: with a fade where no overlap is
            exact, None where nothing better is known.
        reason: Comparison with other runners, where several were possible.
        exact: The runner, where its tiles are to equal the full frame.
    """

    runner: Runner
    limits: TileLimits
    find_overlap: FindOverlap
    reason: str = ""
    exact: ExactRunner | None = None


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
    max_drift_db: float | None = None,
) -> Source:
    """Choose the runner for a file, a network's name, or "auto".

    Raises:
        InputError: There is no such file or name, or it does not serve that scale.
        BackendMissingError: What runs it is not installed.
        QualityGateError: The named runner computes another function than a quantised file states.
    """
    source, scale = named_source(source, scale)
    path = artefact_of(source, weights=weights, scale=scale)
    if path.suffix.lower() in ENGINE_SUFFIXES:
        if runner != "auto":
            raise InputError(f"{path} is an engine, which {runner} cannot run. Leave --runner out")
        if exact:
            raise InputError(
                f"{path} is an engine, and --exact splits ONNX files. Give the ONNX file that it "
                "was built from, or leave --exact out"
            )
        return _engine_source(path, scale, tile)
    _refuse_other_scale(path, scale_of(path) or scale, scale)
    if exact and (split := split_network(path)) is not None:
        if runner not in ("auto", "onnxruntime"):
            raise InputError(f"--exact runs in ONNX Runtime, not in {runner}. Leave --runner out")
        return _exact_source(path, split, tile=tile, memory_mib=memory_mib, threads=threads)
    if max_drift_db is not None and runner != "auto":
        raise InputError(
            f"a drift of {max_drift_db:g} dB is allowed for the choice of a runner, but {runner} "
            "is named. Leave --runner or --max-drift out"
        )
    candidates = candidates_for(
        path, runner, threads=threads, within_budget=max_drift_db is not None
    )
    if runner != "auto":
        check_agreement(candidates[0], cache=cache_folder("runtime_checks"), threads=threads)
    if runner == "auto" and path != Path(source) and len(candidates) > 1:
        candidates += plain_candidates(source, path, scale, weights, threads, may_export=remeasure)
    choice = choose_fastest(
        candidates,
        cache=cache_folder("fastest"),
        threads=threads,
        limit_s=None if remeasure else FIRST_RUN_LIMIT_S,
        remeasure=remeasure,
        max_drift_db=max_drift_db,
    )
    chosen = choice.candidate
    if RUNTIMES[chosen.runtime].takes == "engine":
        opened = _engine_source(chosen.path, scale, tile)
    else:
        opened = _onnx_source(chosen, scale, tile, memory_mib)
    return replace(opened, reason=choice.reason if runner == "auto" else "")


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
        limits = affordable_limits(path, runner, batch, tile=tile, memory_mib=memory_mib)
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
    budget_bytes = whole_picture_bytes(memory_mib)
    runner = ExactRunner(path, split, threads=threads, budget_bytes=budget_bytes)
    limits = affordable_limits(
        path, runner, file.interface.batch or 1, tile=tile, memory_mib=memory_mib
    )
    # As large as the memory allows; what a smaller one does not find may be found by a larger one.
    sizes = [(side, side) for side, _ in PROBE_SIZES if side <= max(limits.most)]
    sizes = sizes or [(max(limits.most[0], LEAST_PROBE_SIDE),) * 2]
    name = f"{sha256_of_onnx(path)}_exact_{sizes[-1][0]}.json"
    kept = cache_folder("receptive_fields") / name

    def measure(infer: Callable[[Planes], Planes]) -> Overlap | None:
        runner.start_noise(sizes[0][0])
        return measure_overlap(infer, runner.scale, rounds=runner.io == "uint8", sizes=sizes)

    def find(infer: Callable[[Planes], Planes]) -> Overlap | None:
        overlap = cached_overlap(kept, lambda: measure(infer))
        if overlap is None:
            raise InputError(
                f"{path} sees the whole picture by more than its averages, so that no tiles are "
                "exact. Leave --exact out"
            )
        step = math.lcm(overlap.step, split.step)  # maps are cut between their pixels too
        margin = overlap.margin
        if file.network in GLOBAL_NETWORKS:  # beyond the tolerance of the measurement
            margin = max(margin, GLOBAL_NETWORKS[file.network].margin)
        return Overlap(-(-margin // step) * step, step=step)

    return Source(runner, limits, find, exact=runner)


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
        _overlap_finder(path, manifest.model, runner, probe_sizes(whole.least, whole.most)),
    )


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
