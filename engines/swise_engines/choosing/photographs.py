"""Drift between two runners on the shipped photographs."""

from functools import partial

import numpy as np

from swise_deploy.evaluation.pairs import evaluate, pair_from_hr
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.runner import Runner, upscale
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
    numbers = range(num_photographs or len(sample_paths()))
    pairs = [
        pair_from_hr(f"photograph {number}", photograph((width, height), number=number), file.scale)
        for number in numbers
    ]
    expected, found = (
        evaluate(partial(upscale, one, batch=file.interface.batch), pairs, file.scale)
        for one in (reference, runner)
    )
    return float(
        np.mean(
            [
                found[name].finite().psnr_y_db - expected[name].finite().psnr_y_db
                for name in expected
            ]
        )
    )
