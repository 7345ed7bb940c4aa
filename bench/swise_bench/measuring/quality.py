"""PSNR and SSIM of a runner over a folder of ground truth, remembered by content.

A score is found again by what was run and on which picture, not by file names: a run that was
interrupted goes on where it stopped, and a changed weight, runtime or picture is measured anew.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swise_bench.results.document import PictureScore, QualityResult
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import Quality, quality
from swise_deploy.evaluation.pairs import LEAST_LR_SIDE, is_large_enough, mean_quality, pair_from_hr
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.folders import picture_names
from swise_deploy.storage.files import append_json_line, read_json_lines, sha256_of

logger = logging.getLogger(__name__)

Upscale = Callable[[RgbImage], RgbImage]

# Part of every key; raised when the protocol changes what a score means.
PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores by picture name, and how many of them were already known."""

    scores: Mapping[str, Quality]
    num_known: int


def score_pictures(
    upscale: Upscale, paths: Sequence[Path], scale: int, *, identity: str, cache: Path | None
) -> Scored:
    """Score every picture; small and unreadable ones are left out.

    Args:
        upscale: LR to SR.
        paths: Ground truths.
        scale: Output size over input size.
        identity: What is scored: hash of the weights or the file, runner and version.
        cache: Folder with the scores of earlier runs; None neither reads nor writes.

    Raises:
        InputError: Not one picture can be read.
    """
    store = _store_path(cache, identity, scale) if cache else None
    known = _read_store(store)
    scores: dict[str, Quality] = {}
    num_known = 0
    for path, name in picture_names(paths).items():
        key = sha256_of(path)
        if key in known:
            scores[name] = known[key]
            num_known += 1
            continue
        hr = _read(path, scale)
        if hr is not None:
            pair = pair_from_hr(name, hr, scale)
            scores[name] = quality(upscale(pair.lr), pair.hr, border=scale)
            _append(store, key, scores[name])
    if not scores:
        raise InputError(
            f"none of {len(paths)} pictures can be scored at x{scale}. "
            f"Expected readable pictures with sides of at least {LEAST_LR_SIDE * scale}"
        )
    return Scored(scores, num_known)


def _read(path: Path, scale: int) -> RgbImage | None:
    try:
        image = read_rgb(path)
    except InputError as error:
        logger.warning("left out: %s", error)
        return None
    return image if is_large_enough(path, image, scale) else None


def result_from_scores(
    images: str, scores: Mapping[str, Quality], reference: Mapping[str, Quality] | None
) -> QualityResult:
    """Means, and losses against `reference`: the fp32 torch network on the same pictures."""
    pictures = tuple(
        PictureScore(
            name,
            score.psnr_y_db,
            score.ssim_y,
            _loss(score.psnr_y_db, reference[name].psnr_y_db) if reference else None,
            _loss(score.ssim_y, reference[name].ssim_y) if reference else None,
        )
        for name, score in scores.items()
    )
    mean = mean_quality(scores)
    base = mean_quality(reference) if reference else None
    return QualityResult(
        images,
        mean.psnr_y_db,
        mean.ssim_y,
        _loss(mean.psnr_y_db, base.psnr_y_db) if base else None,
        _loss(mean.ssim_y, base.ssim_y) if base else None,
        pictures,
    )


def _loss(score: float, reference: float) -> float:
    """Difference of two scores; none where both are equal, infinite ones included."""
    return 0.0 if score == reference else score - reference


def _store_path(cache: Path, identity: str, scale: int) -> Path:
    key = hashlib.sha256(f"{PROTOCOL_VERSION} x{scale} {identity}".encode()).hexdigest()
    return cache / "scores" / f"{key[:32]}.jsonl"


def _read_store(store: Path | None) -> dict[str, Quality]:
    return {
        key: Quality({"psnr_y_db": psnr_y_db, "ssim_y": math.nan if ssim_y is None else ssim_y})
        for key, psnr_y_db, ssim_y in (read_json_lines(store) if store is not None else [])
    }


def _append(store: Path | None, key: str, score: Quality) -> None:
    if store is None:
        return
    ssim_y = None if math.isnan(score.ssim_y) else score.ssim_y
    append_json_line(store, [key, score.psnr_y_db, ssim_y])
