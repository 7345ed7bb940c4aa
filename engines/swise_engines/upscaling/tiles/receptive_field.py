"""The receptive field of a network, measured by cutting a picture and comparing.

The layers of an artefact may be hidden (an engine) or fused (a rewritten graph), so the outputs are
compared instead. Two tiles of one noise picture, a few pixels apart and with different borders, are
upscaled. Outputs differ near the borders and agree further inside; tiles have to overlap by that
distance. The outputs of networks that average over the whole picture never agree.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.storage.documents import Count, Positive, read_cached, write_cached
from swise_engines.upscaling.tiles.tiling import Overlap, Planes

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 2
PROBE_SIZES = ((128, 128), (256, 256))
STEPS = (1, 2, 4, 8)
# In units of 1/255. Rounding to 8 bits hides anything under a half, and noise differs by far more
# than photographs.
_TOLERANCE_8BIT = 0.05
# Where the artefact itself rounds to 8 bits, the tolerance above makes this share of samples differ
# by one.
_TOLERANCE_SHARE = 0.02
_LEAST_AGREEMENT = 4


def measure_overlap(
    infer: Callable[[Planes], Planes],
    scale: int,
    *,
    rounds: bool,
    sizes: Sequence[tuple[int, int]] = PROBE_SIZES,
) -> Overlap | None:
    """Measure the overlap of tiles with which the result equals the full frame.

    Args:
        infer: (1, 3, h, w) to (1, 3, h*scale, w*scale), float32 in [0, 1].
        scale: Output size over input size.
        rounds: Whether `infer` rounds its output to k/255.
        sizes: (width, height) of the tiles to probe with, ascending; a receptive field of up to
            about half the shorter side is found.

    Returns:
        The overlap, without a fade; None where no overlap is enough.
    """
    for width, height in sizes:
        # A file of one small size leaves less room.
        frame = min(STEPS[-1], max(1, min(width, height) // 8))
        steps = [step for step in STEPS if step <= frame]
        probe = _probe(width + frame, height + frame)
        first = infer(probe[:, :, :height, :width])
        # The largest step agrees wherever a smaller one does, so it is tried first.
        radii: dict[int, int] = {}
        for step in reversed(steps):
            second = infer(_framed(probe[:, :, step : step + height, step : step + width], frame))
            difference = np.abs(
                _inside(first, (frame + step) * scale, (frame - step) * scale)
                - _inside(second, frame * scale, frame * scale)
            )
            radius = _receptive_field(difference, scale, rounds=rounds)
            if radius is None:
                break
            radii[step] = radius
        if radii:
            step = min(radii)
            logger.info("pixels %d away matter, at steps of %d", radii[step], step)
            return Overlap(radii[step], step=step)
    return None


def _probe(width: int, height: int) -> Planes:
    """Noise, which differs most across a cut: strong in the left half, faint in the right."""
    noise = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    noise[:, :, :, width // 2 :] = 0.4 + 0.2 * noise[:, :, :, width // 2 :]
    return noise


def _framed(tile: Planes, frame: int) -> Planes:
    """Paint a white frame around a tile, which changes the border and the average."""
    framed = np.ones_like(tile)
    inner = (slice(None), slice(None), slice(frame, -frame), slice(frame, -frame))
    framed[inner] = tile[inner]
    return framed


def _inside(sr: Planes, low: int, high: int) -> Planes:
    """Cut `low` pixels off the top and left, `high` off the bottom and right; clip."""
    height, width = sr.shape[2:]
    inside: Planes = np.clip(sr[:, :, low : height - high, low : width - high], 0, 1)
    return inside


def _receptive_field(difference: NDArray[np.float32], scale: int, *, rounds: bool) -> int | None:
    """Distance from the border, in input pixels, up to which results differ; None: everywhere."""
    height, width = (side // scale for side in difference.shape[2:])
    pixels = difference.reshape(3, height, scale, width, scale).max(axis=(0, 2, 4)) * 255
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in (height, width))
    distances = np.minimum(rows[:, None], columns[None])
    num_rings = int(distances.max()) + 1
    disturbed = np.zeros(num_rings, np.bool_)
    for distance in range(num_rings):
        ring = pixels[distances == distance]
        disturbed[distance] = (
            np.mean(ring > 0.5) > _TOLERANCE_SHARE if rounds else ring.max() > _TOLERANCE_8BIT
        )
    radius = int(disturbed.nonzero()[0].max(initial=-1)) + 1
    # Agreement over a few pixels only may be chance.
    return radius if radius <= num_rings - _LEAST_AGREEMENT else None


@dataclass(frozen=True, slots=True)
class _Measurement:
    """A receptive field in the cache; null where no overlap is enough."""

    margin: Count | None
    step: Positive
    schema_version: int = SCHEMA_VERSION


def cached_overlap(path: Path, measure: Callable[[], Overlap | None]) -> Overlap | None:
    """Read an earlier measurement at `path`, or measure and store the result there."""
    found = read_cached(path, _Measurement, schema_version=SCHEMA_VERSION)
    if found is not None:
        return None if found.margin is None else Overlap(found.margin, step=found.step)
    overlap = measure()
    measurement = (
        _Measurement(None, 1) if overlap is None else _Measurement(overlap.margin, overlap.step)
    )
    write_cached(path, measurement)
    return overlap
