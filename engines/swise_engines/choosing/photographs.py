"""Drift between two runners on the shipped photographs."""

import numpy as np

from swise_deploy.evaluation.metrics import quality
from swise_deploy.evaluation.pairs import Pair, pair_from_hr
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.runner import Runner, batch_from_images, check_finite, image_from_float
from swise_export.interface.onnx_file import OnnxFile
from swise_export.interface.probing import photograph

_LR_SIZE = (96, 96)


def drift_on_photographs(
    runner: Runner, reference: Runner, file: OnnxFile, *, num_photographs: int | None = None
) -> float:
    """Mean PSNR-Y of a runner minus that of another one, in dB; negative is worse.

    Args:
        runner: Active.
        reference: Active; of the same scale.
        file: The file that one of them runs, whose fixed size and batch are kept.
        num_photographs: Number of photographs; None for all.

    Raises:
        SwiseError: An output contains NaN or infinity.
    """
    width, height = (side * file.scale for side in file.interface.size or _LR_SIZE)
    drifts = []
    for number in range(num_photographs or len(sample_paths())):
        hr = photograph((width, height), number=number)
        pair = pair_from_hr(f"photograph {number}", hr, file.scale)
        expected, found = (
            _psnr_y_db(one, pair, batch=file.interface.batch or 1) for one in (reference, runner)
        )
        drifts.append(found - expected)
    return float(np.mean(drifts))


def _psnr_y_db(runner: Runner, pair: Pair, *, batch: int) -> float:
    pictures = batch_from_images(np.repeat(pair.lr[None], batch, axis=0), runner.io)
    sr = runner.infer(pictures)
    if runner.io == "float":
        check_finite(sr, runner.name)
    picture = np.asarray(sr[0], np.uint8) if runner.io == "uint8" else image_from_float(sr[:1])
    return quality(picture, pair.hr, border=runner.scale).finite().psnr_y_db
