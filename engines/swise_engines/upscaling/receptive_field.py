"""How far around a pixel a network looks, found by cutting pictures and comparing.

The layers of an artefact may be hidden (an engine) or fused away (a rewritten graph); what it does
to a picture is not. Two tiles of one probe, a few pixels apart and with other surroundings, are
upscaled: the distance from where they differ at which both agree is what tiles have to overlap by.
Networks that average over the whole picture never agree.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.errors import OutputError
from swise_deploy.storage.files import write_json
from swise_engines.upscaling.tiling import Overlap, Planes

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
PROBE_SIZES = ((128, 128), (256, 256))
STEPS = (1, 2, 4, 8)
# In levels of 8 bits. Rounding hides what is under half a level; what a probe shows at its worst is
# far more than photographs do.
_TOLERANCE_LEVELS = 0.05
# Where the artefact itself rounds to levels, a difference this small shows as that share of samples
# off by one.
_TOLERANCE_SHARE = 0.02
_LEAST_AGREEMENT = 4
_FRAME = STEPS[-1]


def measure_reach(
    infer: Callable[[Planes], Planes],
    scale: int,
    *,
    rounds: bool,
    sizes: Sequence[tuple[int, int]] = PROBE_SIZES,
) -> Overlap | None:
    """Measure how much tiles have to overlap for a result that equals the full frame.

    Args:
        infer: (1, 3, h, w) to (1, 3, h*scale, w*scale), float32 in [0, 1].
        scale: Output size over input size.
        rounds: Whether `infer` gives whole levels, k/255.
        sizes: (width, height) of the tiles to probe with, ascending; a reach of up to about half
            the shorter side can be found.

    Returns:
        The overlap, without a fade; None where no overlap is enough.
    """
    for width, height in sizes:
        probe = _probe(width + STEPS[-1], height + STEPS[-1])
        first = infer(probe[:, :, :height, :width])
        # The largest step agrees wherever a smaller one does: it says at once whether to go on.
        reaches: dict[int, int] = {}
        for step in reversed(STEPS):
            second = infer(_framed(probe[:, :, step : step + height, step : step + width]))
            difference = np.abs(
                _inside(first, (_FRAME + step) * scale, (_FRAME - step) * scale)
                - _inside(second, _FRAME * scale, _FRAME * scale)
            )
            reach = _reach_of(difference, scale, rounds=rounds)
            if reach is None:
                break
            reaches[step] = reach
        if reaches:
            step = min(reaches)
            logger.info("pixels %d away matter, at steps of %d", reaches[step], step)
            return Overlap(reaches[step], step=step)
    return None


def _probe(width: int, height: int) -> Planes:
    """Noise, which differs most across a cut: left half strong, right half faint."""
    noise = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    noise[:, :, :, width // 2 :] = 0.4 + 0.2 * noise[:, :, :, width // 2 :]
    return noise


def _framed(tile: Planes) -> Planes:
    """Whiten a frame around a tile: what lies beyond a cut differs, and so does the average."""
    framed = np.ones_like(tile)
    inner = (slice(None), slice(None), slice(_FRAME, -_FRAME), slice(_FRAME, -_FRAME))
    framed[inner] = tile[inner]
    return framed


def _inside(sr: Planes, low: int, high: int) -> Planes:
    """Cut `low` pixels off the top and left, `high` off the bottom and right; clip."""
    height, width = sr.shape[2:]
    inside: Planes = np.clip(sr[:, :, low : height - high, low : width - high], 0, 1)
    return inside


def _reach_of(difference: NDArray[np.float32], scale: int, *, rounds: bool) -> int | None:
    """How far from the border, in input pixels, two results differ; None for up to the middle."""
    height, width = (side // scale for side in difference.shape[2:])
    pixels = difference.reshape(3, height, scale, width, scale).max(axis=(0, 2, 4)) * 255
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in (height, width))
    distances = np.minimum(rows[:, None], columns[None])
    num_rings = int(distances.max()) + 1
    disturbed = np.zeros(num_rings, np.bool_)
    for distance in range(num_rings):
        ring = pixels[distances == distance]
        disturbed[distance] = (
            np.mean(ring > 0.5) > _TOLERANCE_SHARE if rounds else ring.max() > _TOLERANCE_LEVELS
        )
    reach = int(disturbed.nonzero()[0].max(initial=-1)) + 1
    # The middle has to agree over some width, or the agreement may be luck.
    return reach if reach <= num_rings - _LEAST_AGREEMENT else None


def cached_reach(path: Path, measure: Callable[[], Overlap | None]) -> Overlap | None:
    """Read what was measured before at `path`, or measure and keep it there."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema_version"] == SCHEMA_VERSION:
            margin = document["margin"]
            return None if margin is None else Overlap(margin, step=document["step"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.debug("no overlap kept at %s", path)
    overlap = measure()
    document = {
        "schema_version": SCHEMA_VERSION,
        "margin": None if overlap is None else overlap.margin,
        "step": None if overlap is None else overlap.step,
    }
    try:
        write_json(path, document)
    except OutputError as error:
        logger.warning("it will be measured again next time: %s", error)
    return overlap
