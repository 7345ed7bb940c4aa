"""Test sets: scored once, at the end of a run, having chosen nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from swise_deploy.checkpoints.foreign import open_any
from swise_deploy.evaluation.pairs import Pair
from swise_deploy.networks.parts.matlab_bicubic import CubicUpscale
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.training.run.validation import ValidationScores, pairs_from_folder, validate
from swise_deploy.training.state import TrainResult


@dataclass(frozen=True, slots=True)
class TestScores:
    """Mean scores on a test set.

    Attributes:
        psnr_y_db: PSNR on luma.
        ssim_y: SSIM on luma.
        psnr_rgb_db: PSNR on RGB.
        bicubic_psnr_y_db: PSNR on luma of bicubic interpolation of the same LR pictures.
        own_lr: The LR pictures are the set's own, not MATLAB's bicubic.
    """

    __test__ = False  # no test class of pytest

    psnr_y_db: float
    ssim_y: float
    psnr_rgb_db: float
    bicubic_psnr_y_db: float
    own_lr: bool


def test_scores(result: TrainResult) -> dict[str, TestScores]:
    """Score the weights of a run on its test folders.

    Raises:
        InputError: A folder cannot be used.
    """
    config = result.config
    model = None if config.model in NETWORKS else config.model
    scale = config.scale if model is None else None
    network = open_any(model, scale=scale, weights=result.weights).module
    bicubic = CubicUpscale(config.scale).eval() if config.scale > 1 else nn.Identity()
    found: dict[str, TestScores] = {}
    for position, folder in enumerate(config.test):
        lr_folder = config.test_lr[position] if config.test_lr else None
        pairs = pairs_from_folder(folder, config.scale, lr_folder=lr_folder)
        scores, baseline = (_scores(n, pairs, config.scale) for n in (network, bicubic))
        name = _set_name(folder)
        found[name if name not in found else f"{name} ({position + 1})"] = TestScores(
            psnr_y_db=scores.mean.psnr_y_db,
            ssim_y=scores.mean.ssim_y,
            psnr_rgb_db=scores.psnr_rgb_db,
            bicubic_psnr_y_db=baseline.mean.psnr_y_db,
            own_lr=lr_folder is not None,
        )
    return found


test_scores.__test__ = False  # type: ignore[attr-defined]  # no test of pytest


def _scores(network: nn.Module, pairs: Sequence[Pair], scale: int) -> ValidationScores:
    scores = validate(network, pairs, scale, device=torch.device("cpu"))
    assert scores is not None, "nothing stops it"
    return scores


def _set_name(folder: Path) -> str:
    """The name of a test set; its pictures often lie in a subfolder HR."""
    return folder.parent.name if folder.name.upper() in ("HR", "GT") else folder.name
