"""Still pictures through a network: colour, greyscale and transparency."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from swise_deploy.pictures.formats import Format
from swise_deploy.pictures.samples import Samples
from swise_engines.upscaling.pictures.codecs import (
    Picture,
    decode_picture,
    encode_picture,
    refuse_unwritable,
)
from swise_engines.upscaling.upscaler import Upscaler


def upscale_picture(
    upscaler: Upscaler, picture: Picture, *, report: Callable[[float], None] = lambda _: None
) -> Picture:
    """Upscale a picture with its transparency; metadata stay, but for sizes that they state.

    Transparency goes through the network as a greyscale picture. Colour under fully transparent
    pixels, which is arbitrary and often black, is first replaced by that of the visible pixels near
    by: it would bleed into edges.

    Args:
        upscaler: The network.
        picture: Upright, as decoded.
        report: Called with the share of the picture that is done, 0 to 1.
    """
    alpha = picture.alpha
    if alpha is None:
        return dataclasses.replace(picture, colour=upscaler(picture.colour, report=report))
    return dataclasses.replace(
        picture,
        colour=upscaler(
            spread_colour(picture.colour, alpha), report=lambda share: report(share / 2)
        ),
        alpha=_upscale_alpha(upscaler, alpha, lambda share: report(0.5 + share / 2)),
    )


def upscale_bytes(
    upscaler: Upscaler,
    data: bytes,
    file_format: Format,
    *,
    quality: int | None = None,
    report: Callable[[float], None] = lambda _: None,
) -> bytes:
    """Upscale an encoded picture, as read from a file, to an encoded picture.

    Raises:
        InputError: It is no picture, or the format cannot hold the result.
    """
    picture = decode_picture(data)
    refuse_unwritable(picture, file_format, upscaler.scale)
    upscaled = upscale_picture(upscaler, picture, report=report)
    return encode_picture(upscaled, file_format, quality=quality)


def _upscale_alpha(upscaler: Upscaler, alpha: Samples, report: Callable[[float], None]) -> Samples:
    if alpha.min() == alpha.max():
        height, width = (side * upscaler.scale for side in alpha.shape)
        return np.full((height, width), alpha.flat[0], alpha.dtype)
    return upscaler(alpha, report=report)


def spread_colour(colour: Samples, alpha: Samples) -> Samples:
    """Give fully transparent pixels the colour of the visible ones around them.

    Visible colours are averaged over ever larger blocks until each block has some, then handed down
    again.

    Args:
        colour: (H, W, 3) or (H, W), uint8, uint16 or float32.
        alpha: (H, W), same dtype.

    Returns:
        Like `colour`; unchanged where alpha is above 0, and where nothing is visible at all.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colour
    weight = alpha.astype(np.float32)[..., None]
    values = np.asarray(colour.reshape(*alpha.shape, -1) * weight, np.float32)
    filled = _fill(values, weight)
    spread = colour.copy()
    visible = filled[hidden] if colour.dtype == np.float32 else np.rint(filled[hidden])
    spread.reshape(*alpha.shape, -1)[hidden] = visible.astype(colour.dtype)
    return spread


def _fill(values: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted means by pixel, (H, W, C); where the weight is 0, that of the block around it."""
    means = np.asarray(values / np.maximum(weight, np.float32(1e-9)), np.float32)
    if (weight > 0).all() or weight.shape[:2] == (1, 1):
        return means
    coarse = _fill(_sum_blocks(values), _sum_blocks(weight))
    height, width = weight.shape[:2]
    wide = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(weight > 0, means, wide)


def _sum_blocks(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum over blocks of 2x2; an odd edge counts alone."""
    height, width, channels = x.shape
    even = np.pad(x, ((0, height % 2), (0, width % 2), (0, 0)))
    blocks: NDArray[np.float32] = even.reshape(
        (height + 1) // 2, 2, (width + 1) // 2, 2, channels
    ).sum(axis=(1, 3))
    return blocks
