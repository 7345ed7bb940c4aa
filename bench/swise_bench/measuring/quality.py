"""Quality of a runner over a folder of ground truth, kept by content.

A score is found again by what ran and on which picture, not by file names: an interrupted run goes
on where it stopped, and a changed weight, runtime or picture is scored again.
"""

import functools
import hashlib
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swise_bench.results.values import PictureScore, QualityResult, Values
from swise_deploy.errors import InputError, first_line
from swise_deploy.evaluation.metrics import METRICS, MetricName, Quality, quality
from swise_deploy.evaluation.pairs import (
    LEAST_LR_SIDE,
    is_large_enough,
    mean_quality,
    pair_from_files,
)
from swise_deploy.pictures.files import RgbImage
from swise_deploy.pictures.folders import picture_names
from swise_deploy.storage.documents import read_cached_lines
from swise_deploy.storage.files import append_json_line, sha256_of

logger = logging.getLogger(__name__)

Upscale = Callable[[RgbImage], RgbImage]

PROTOCOL_VERSION = 2
"""Part of every key; raised when the protocol changes what a score means."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a folder.

    Attributes:
        scores: By picture.
        num_known: Pictures whose scores an earlier run kept.
        skipped: Pictures without a score, and why.
    """

    scores: Mapping[str, Quality]
    num_known: int
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _KeptScore:
    """A line of the cache; None stands for a metric that is not defined, a large number for exact.

    Attributes:
        picture_sha256: The ground truth.
        values: By metric; a line without one of today's metrics is not used.
        exact: True where the pictures are equal.
    """

    picture_sha256: str
    values: Mapping[str, float | None]
    exact: bool = False


def score_pictures(
    upscale: Upscale,
    paths: Sequence[Path],
    scale: int,
    *,
    identity: str,
    cache: Path | None,
    lr: Mapping[Path, Path] | None = None,
) -> Scored:
    """Score every picture; one that is small, cannot be read or fails is skipped and named.

    Args:
        upscale: LR to SR.
        paths: Ground truths.
        scale: Output size over input size.
        identity: What is scored: hash of the weights or the file, runner and version.
        cache: Folder with the scores of earlier runs; None neither reads nor writes.
        lr: The LR picture of each ground truth; None makes them by MATLAB's bicubic.

    Raises:
        InputError: Not one picture can be scored.
    """
    store = _store_path(cache, identity, scale) if cache else None
    known = _read_store(store)
    scores: dict[str, Quality] = {}
    skipped: dict[str, str] = {}
    num_known = 0
    for path, name in picture_names(paths).items():
        partner = None if lr is None else lr.get(path)
        if lr is not None and partner is None:
            skipped[name] = "no LR picture of the same name"
            continue
        key = sha256_of(path) + ("" if partner is None else f" {sha256_of(partner)}")
        if key in known:
            scores[name] = known[key]
            num_known += 1
            continue
        try:
            pair = pair_from_files(name, path, partner, scale)
            if not is_large_enough(path, pair.hr, scale):
                skipped[name] = f"smaller than {LEAST_LR_SIDE * scale} pixels"
                continue
            scores[name] = quality(upscale(pair.lr), pair.hr, border=scale)
        except Exception as error:  # noqa: BLE001  # a runtime's errors have no base class
            skipped[name] = first_line(error)
            logger.warning("skipped: %s: %s", name, first_line(error))
            continue
        _append(store, key, scores[name])
    if not scores:
        reason = next(iter(skipped.values()), "the folder is empty")
        raise InputError(
            f"none of {len(paths)} pictures can be scored at x{scale}: {reason}. "
            f"Expected readable pictures with sides of at least {LEAST_LR_SIDE * scale}"
        )
    return Scored(scores, num_known, skipped)


def result_from_scores(
    images: str,
    scored: Scored,
    reference: Mapping[str, Quality] | None,
    *,
    exact: Collection[str] = (),
    common: Collection[str] | None = None,
) -> QualityResult:
    """Means, and differences to `reference`: the fp32 torch network on the same pictures.

    Args:
        images: Name of the folder.
        scored: Scores of the subject.
        reference: Scores of its fp32 torch network; None where that is unknown.
        exact: Pictures that the means of PSNR leave out, since another subject reproduces them
            exactly; those of this subject are left out besides.
        common: Pictures of the means; None for all that were scored. A subject that fails on some
            is not compared with others on different pictures.
    """
    scores = scored.scores
    exact = {*exact, *(name for name, score in scores.items() if score.is_exact)}
    if reference:
        exact |= {name for name, score in reference.items() if score.is_exact}
    wanted = [name for name in scores if common is None or name in common] or list(scores)
    mean = _mean({name: scores[name] for name in wanted}, exact)
    drift: Values = {}
    if reference:
        base = _mean({name: reference[name] for name in wanted if name in reference}, exact)
        drift = {name: _difference(mean[name], base[name]) for name in METRICS}
    pictures = tuple(
        PictureScore(name, _values(score), _drift(score, (reference or {}).get(name)))
        for name, score in scores.items()
    )
    left_out = {n: "another subject has no score" for n in scores if n not in wanted}
    return QualityResult(
        images,
        mean,
        drift,
        pictures,
        {**scored.skipped, **left_out},
        tuple(name for name in scores if name in exact),
    )


def _mean(scores: Mapping[str, Quality], exact: Collection[str]) -> Values:
    """Means; a metric that is infinite for equal pictures leaves the exact ones out."""
    rest = {name: score for name, score in scores.items() if name not in exact}
    all_of, rest_of = mean_quality(scores), mean_quality(rest or scores)
    return {name: _number((rest_of if _is_unbounded(name) else all_of)[name]) for name in METRICS}


@functools.cache
def _is_unbounded(name: MetricName) -> bool:
    """Tell whether a metric is infinite for equal pictures."""
    plane = np.zeros((32, 32))
    return math.isinf(METRICS[name].score(plane, plane))


def _values(score: Quality) -> Values:
    finite = score.finite()
    return {name: _number(finite[name]) for name in METRICS}


def _drift(score: Quality, reference: Quality | None) -> Values:
    if reference is None:
        return {}
    now, before = _values(score), _values(reference)
    return {name: _difference(now[name], before[name]) for name in METRICS}


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _store_path(cache: Path, identity: str, scale: int) -> Path:
    key = hashlib.sha256(f"{PROTOCOL_VERSION} x{scale} {identity}".encode()).hexdigest()
    return cache / "scores" / f"{key[:32]}.jsonl"


def _read_store(store: Path | None) -> dict[str, Quality]:
    """Scores by the hash of the picture; damaged lines are skipped."""
    found = {}
    for kept in read_cached_lines(store, _KeptScore) if store is not None else []:
        if kept.values.keys() >= METRICS.keys():
            found[kept.picture_sha256] = _quality(kept)
    return found


def _quality(kept: _KeptScore) -> Quality:
    values: dict[MetricName, float] = {}
    for name in METRICS:
        value = kept.values[name]
        is_infinite = kept.exact and _is_unbounded(name)
        values[name] = math.inf if is_infinite else math.nan if value is None else value
    return Quality(values)


def _append(store: Path | None, key: str, score: Quality) -> None:
    if store is not None:
        line = {"picture_sha256": key, "values": _values(score), "exact": score.is_exact}
        append_json_line(store, line)
