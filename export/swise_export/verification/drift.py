"""Drift: quality of an artefact minus that of the fp32 torch network, on real pictures."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from swise_deploy.errors import InputError, QualityGateError
from swise_deploy.evaluation.metrics import EXACT_PSNR_DB, Quality, quality
from swise_deploy.evaluation.pairs import Pair, mean_quality
from swise_deploy.runner import Runner, float_from_image, image_from_float, upscale
from swise_export.manifest import Drift
from swise_export.verification.budget import DriftBudget


@dataclass(frozen=True, slots=True)
class PictureDrift:
    """One picture through artefact and reference.

    Attributes:
        name: The picture.
        reference: Quality of the reference against the ground truth.
        artefact: Quality of the artefact.
        max_abs: Largest difference between the two outputs, of white; between 8-bit pictures where
            one of them has uint8 io.
        squared_error: Mean squared difference on the same scale.
    """

    name: str
    reference: Quality
    artefact: Quality
    max_abs: float
    squared_error: float

    @property
    def psnr_y_db(self) -> float:
        """PSNR-Y lost (negative) or gained (positive)."""
        return self.artefact.psnr_y_db - self.reference.psnr_y_db


def measure_drift(
    artefact: Runner,
    reference: Runner,
    pairs: Sequence[Pair],
    *,
    on_picture: Callable[[str], None] | None = None,
) -> tuple[Drift, list[PictureDrift]]:
    """Run both on every picture and compare.

    Args:
        artefact: The deployed file or engine; active, float or uint8 io.
        reference: The fp32 network, or the file that an engine was built from; active, same scale.
        pairs: LR pictures with their ground truth.
        on_picture: Called with a picture's name before it runs.

    Raises:
        InputError: There is no picture.
        QualityGateError: The output of the artefact contains NaN or infinity.
    """
    if not pairs:
        raise InputError("no picture to measure drift on: all were too small or unreadable")
    pictures = []
    for pair in pairs:
        if on_picture is not None:
            on_picture(pair.name)
        pictures.append(_compare(artefact, reference, pair))
    worst = min(pictures, key=lambda p: p.psnr_y_db)
    before = mean_quality({p.name: p.reference for p in pictures})
    after = mean_quality({p.name: p.artefact for p in pictures})
    error = float(np.mean([p.squared_error for p in pictures]))
    drift = Drift(
        images=len(pictures),
        images_sha256=_hash_pairs(pairs),
        psnr_y_db=after.psnr_y_db - before.psnr_y_db,
        ssim_y=None if math.isnan(after.ssim_y) else after.ssim_y - before.ssim_y,
        worst_image=worst.name,
        worst_psnr_y_db=worst.psnr_y_db,
        max_abs=max(p.max_abs for p in pictures),
        measured_in=artefact.name,
        output_psnr_db=min(EXACT_PSNR_DB, -10 * math.log10(error)) if error else EXACT_PSNR_DB,
    )
    return drift, pictures


def check_gate(drift: Drift, budget: DriftBudget) -> None:
    """Refuse an artefact that lost too much.

    Raises:
        QualityGateError: It lost more than `budget` allows, or its output is not finite.
    """
    if not budget.allows(drift.psnr_y_db, drift.worst_psnr_y_db):
        flag = "--max-drift" if budget.allows_worst(drift.worst_psnr_y_db) else "--max-worst"
        raise QualityGateError(
            f"the artefact lost {-drift.psnr_y_db:.4f} dB of PSNR-Y on {drift.images} pictures "
            f"(worst: {drift.worst_image}, {-drift.worst_psnr_y_db:.4f} dB); allowed: {budget}. "
            f"Nothing was kept. Allow more with {flag}, or use a higher precision"
        )


def _compare(artefact: Runner, reference: Runner, pair: Pair) -> PictureDrift:
    if "uint8" in (artefact.io, reference.io):
        expected_picture, picture = (upscale(runner, pair.lr) for runner in (reference, artefact))
        difference = (picture.astype(np.float64) - expected_picture) / 255
    else:
        lr = float_from_image(pair.lr)
        expected, sr = reference.infer(lr), artefact.infer(lr)
        if not np.isfinite(sr).all():
            raise QualityGateError(
                f"the output of the artefact on {pair.name} contains NaN or infinity: a layer "
                "overflows. Nothing was kept. Export with --fp32, or with --images like this one, "
                "so that activation ranges are measured on them"
            )
        expected_picture, picture = image_from_float(expected), image_from_float(sr)
        difference = sr.astype(np.float64) - expected.astype(np.float64)
    return PictureDrift(
        pair.name,
        quality(expected_picture, pair.hr, border=artefact.scale).finite(),
        quality(picture, pair.hr, border=artefact.scale).finite(),
        float(np.abs(difference).max()),
        float(np.mean(difference**2)),
    )


def _hash_pairs(pairs: Sequence[Pair]) -> str:
    digest = hashlib.sha256()
    for pair in sorted(pairs, key=lambda p: p.name):
        digest.update(f"{pair.name} {pair.hr.shape}".encode())
        digest.update(pair.hr.tobytes())
    return digest.hexdigest()
