"""Low-resolution pictures written to a folder, as a degradation makes them of ground truths."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swise_deploy.evaluation.pairs import is_large_enough, pair_from_hr
from swise_deploy.pictures.files import read_readable, write_image
from swise_deploy.pictures.folders import find_images
from swise_deploy.training.data.degradation import Degradation, degrade, generator_of_name
from swise_deploy.training.data.picture_cache import Report


def write_lr_pictures(
    folders: Sequence[Path],
    out: Path,
    scale: int,
    *,
    degradation: Degradation | None,
    report: Report,
) -> int:
    """Write the LR picture of every ground truth, under the same path and name, as PNG.

    The draws depend on the picture's name alone, so that they are the same every time. Small and
    unreadable pictures are skipped with a warning.

    Args:
        folders: Of ground truths; those of several get a folder each, 0, 1, ...
        out: Where they are written.
        scale: HR side over LR side.
        degradation: The steps; None for MATLAB's bicubic.
        report: Receives the progress.

    Returns:
        The number of pictures.

    Raises:
        InputError: A folder is missing or holds no picture that can be read.
        OutputError: A picture cannot be written.
    """
    number = 0
    for position, folder in enumerate(folders):
        place = out / str(position) if len(folders) > 1 else out
        paths = find_images(folder)
        for done, path in enumerate(paths):
            name = path.relative_to(folder)
            hr = read_readable([path])[path]
            report("making LR pictures", done + 1, len(paths))
            if is_large_enough(path, hr, scale):
                pair = pair_from_hr(name.as_posix(), hr, scale)
                lr = pair.lr
                if degradation is not None:
                    rng = generator_of_name(pair.name)
                    lr = degrade(pair.hr, scale, degradation, rng)
                write_image((place / name).with_suffix(".png"), np.ascontiguousarray(lr))
                number += 1
    return number
