"""Single pictures through a file that takes a fixed number of them."""

from functools import partial

import numpy as np

from swise_deploy.pictures.files import RgbImage
from swise_deploy.runner import (
    Runner,
    check_finite,
    float_from_image,
    image_from_float,
    upscale,
)


def upscale_single(runner: Runner, image: RgbImage, *, batch: int | None) -> RgbImage:
    """Upscale one picture; the batch is filled up by repeating it.

    Args:
        runner: Activated.
        image: (H, W, 3) uint8.
        batch: Pictures that the runner takes in a call; None for any.

    Raises:
        SwiseError: The output contains NaN or infinity.
    """
    if batch in (None, 1):
        return upscale(runner, image)
    repeat = partial(np.repeat, repeats=batch, axis=0)
    if runner.io == "uint8":
        return np.asarray(runner.infer(repeat(image[None]))[0], np.uint8)
    sr = runner.infer(repeat(float_from_image(image)))
    check_finite(sr, runner.name)
    return image_from_float(sr)
