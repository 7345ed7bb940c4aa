"""How far around a pixel a network looks, found by cutting pictures and comparing.

The layers of an artefact may be hidden (an engine) or fused away (a rewritten graph); what it does
to a picture is not. A probe is upscaled whole and with its borders cut off: the distance from a cut
at which both agree again is what tiles have to overlap by. Networks that average over the whole
picture never agree.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swise_deploy.files import write_json
from swise_engines.tiling import Overlap, Planes

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
PROBE_SIDES = (128, 256)
STEPS = (1, 2, 4, 8)
# In levels of 8 bits. Rounding hides what is under half a level; what a probe shows at its worst is
# far more than photographs do.
_TOLERANCE_LEVELS = 0.05
# Where the artefact itself rounds to levels, a difference this small shows as that share of samples
# off by one.
_TOLERANCE_SHARE = 0.01


def measure_reach(infer: Callable[[Planes], Planes], scale: int, *, rounds: bool) -> Overlap | None:
    """Measure how much tiles have to overlap for a result that equals the full frame.

    Args:
        infer: (1, 3, h, w) to (1, 3, h*scale, w*scale), float32 in [0, 1].
        scale: Output size over input size.
        rounds: Whether `infer` gives whole levels, k/255.

    Returns:
        The overlap, without a fade; None where no overlap is enough.
    """
    for side in PROBE_SIDES:
        probe = _probe(side)
        whole = infer(probe)
        # The largest step agrees wherever a smaller one does: it says at once whether to go on.
        reaches: dict[int, int] = {}
        for step in reversed(STEPS):
            reach = _reach_at_step(infer, probe, whole, scale=scale, step=step, rounds=rounds)
            if reach is None:
                break
            reaches[step] = reach
        if reaches:
            step = min(reaches)
            logger.info("pixels %d away matter, at steps of %d", reaches[step], step)
            return Overlap(reaches[step], step=step)
    return None


def _probe(side: int) -> Planes:
    """Noise, which differs most across a cut: left half strong, right half faint."""
    noise = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    noise[:, :, :, side // 2 :] = 0.4 + 0.2 * noise[:, :, :, side // 2 :]
    return noise


def _reach_at_step(
    infer: Callable[[Planes], Planes],
    probe: Planes,
    whole: Planes,
    *,
    scale: int,
    step: int,
    rounds: bool,
) -> int | None:
    side = probe.shape[2]
    cut = 16 + step  # a multiple of the step, but not of twice the step
    inner = side - 2 * cut
    part = infer(np.ascontiguousarray(probe[:, :, cut : cut + inner, cut : cut + inner]))
    expected = whole[:, :, cut * scale : (cut + inner) * scale, cut * scale : (cut + inner) * scale]
    disturbed = _disturbed_rings(
        np.abs(np.clip(part, 0, 1) - np.clip(expected, 0, 1)), scale, rounds=rounds
    )
    reach = int(disturbed.nonzero()[0].max(initial=-1)) + 1
    # The middle has to agree over some width, or the agreement may be luck.
    return reach if reach <= inner // 2 - 8 else None


def _disturbed_rings(
    difference: NDArray[np.float32], scale: int, *, rounds: bool
) -> NDArray[np.bool_]:
    """Say for each distance from the border, in input pixels, whether the results differ."""
    side = difference.shape[2] // scale
    pixels = (
        difference.reshape(3, side, scale, side, scale)
        .transpose(1, 3, 0, 2, 4)
        .reshape(side, side, -1)
    )
    line = np.minimum(np.arange(side), np.arange(side)[::-1])
    ring = np.minimum(line[:, None], line[None])
    worst = [pixels[ring == distance] * 255 for distance in range(side // 2)]
    if rounds:
        return np.array([np.mean(levels > 0.5) > _TOLERANCE_SHARE for levels in worst])
    return np.array([levels.max() > _TOLERANCE_LEVELS for levels in worst])


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
    write_json(path, document)
    return overlap
