"""The sizes of pictures and tiles that the memory, or the profiles of an engine, allow."""

import logging
from collections.abc import Sequence
from pathlib import Path

from swise_deploy.command.memory import free_memory_bytes
from swise_deploy.errors import InputError
from swise_deploy.runner import Runner
from swise_engines.tensorrt.profiles import Profile
from swise_engines.upscaling.tiles.memory import bytes_per_pixel, tile_side
from swise_engines.upscaling.tiles.receptive_field import PROBE_SIZES
from swise_engines.upscaling.tiles.tiling import TileLimits

logger = logging.getLogger(__name__)

DEFAULT_MEMORY_MIB = 1024
"""Budget of tiles, and of whole pictures where the free memory is not known."""

SHARE_OF_FREE_MEMORY = 0.5
# On a CPU a larger tile wins nothing: little is computed twice, and rows still fit the caches.
MAX_DEFAULT_TILE = 512


def whole_picture_bytes(memory_mib: int | None) -> int:
    """Memory for a whole picture on the CPU: as asked for, else half of what is free."""
    if memory_mib is not None:
        return memory_mib << 20
    free = free_memory_bytes()
    return DEFAULT_MEMORY_MIB << 20 if free is None else int(free * SHARE_OF_FREE_MEMORY)


def affordable_limits(
    path: Path, runner: Runner, batch: int, *, tile: int | None, memory_mib: int | None
) -> TileLimits:
    """Whole pictures where they fit into the budget, tiles beyond; tiles alone where asked for."""
    if tile is not None:
        return TileLimits(most=(tile, tile), least_batch=batch, most_batch=batch)
    cost = batch * bytes_per_pixel(path)
    default_bytes = DEFAULT_MEMORY_MIB << 20
    on_cpu = runner.device == "cpu" or memory_mib is not None
    whole_bytes = whole_picture_bytes(memory_mib) if on_cpu else default_bytes
    if memory_mib is not None:
        side = tile_side(whole_bytes, cost)
    else:
        side = min(tile_side(min(default_bytes, whole_bytes), cost), MAX_DEFAULT_TILE)
    whole_pixels = int(whole_bytes / cost)
    logger.debug(
        "%.0f bytes a pixel: whole up to %d pixels, else tiles of %d", cost, whole_pixels, side
    )
    return TileLimits(
        most=(side, side), least_batch=batch, most_batch=batch, whole_pixels=whole_pixels
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


def probe_sizes(least: tuple[int, int], most: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes to probe with, (W, H), brought into the range that a runner takes."""
    return sorted(
        {
            (max(least[0], min(width, most[0])), max(least[1], min(height, most[1])))
            for width, height in PROBE_SIZES
        }
    )
