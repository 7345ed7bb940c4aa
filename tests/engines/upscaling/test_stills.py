import io

import numpy as np
import pytest
from PIL import Image

from swise_engines.upscaling.pictures.codecs import Picture, decode_picture
from swise_engines.upscaling.pictures.metadata import Metadata
from swise_engines.upscaling.stills import spread_colour, upscale_bytes, upscale_picture
from swise_engines.upscaling.upscaler import Upscaler


def test_transparency_is_upscaled_like_a_picture(small_network):
    alpha = np.tile(np.array([0, 0, 255, 255], np.uint8), (4, 1))
    picture = Picture(np.full((4, 4, 3), 200, np.uint8), alpha, Metadata())
    with Upscaler.open(small_network(radius=0)) as upscaler:
        result = upscale_picture(upscaler, picture)
    np.testing.assert_array_equal(result.alpha, alpha.repeat(2, 0).repeat(2, 1))


def test_an_opaque_alpha_channel_stays_opaque_whatever_the_network_does(small_network):
    picture = Picture(
        np.full((6, 6, 3), 9, np.uint16), np.full((6, 6), 65_535, np.uint16), Metadata()
    )
    with Upscaler.open(small_network(radius=2)) as upscaler:  # darkens edges by zero padding
        alpha = upscale_picture(upscaler, picture).alpha
    assert alpha is not None
    assert (alpha == 65_535).all()


def test_black_under_transparent_pixels_does_not_bleed_into_the_edge(small_network):
    colour = np.zeros((32, 32, 3), np.uint8)
    alpha = np.zeros((32, 32), np.uint8)
    colour[:, 16:] = 200
    alpha[:, 16:] = 255
    with Upscaler.open(small_network(radius=2)) as upscaler:
        result = upscale_picture(upscaler, Picture(colour, alpha, Metadata()))
        bled = upscaler(colour)
    edge = (slice(10, -10), 32)  # first visible column, away from the zero padding
    assert bled[edge].max() < 195
    assert result.colour[edge].min() == 200


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_spreads_from_the_nearest_visible_block(dtype):
    colour = np.zeros((4, 4), dtype)
    alpha = np.zeros((4, 4), dtype)
    colour[0, 0], alpha[0, 0] = 100, 7
    colour[3, 3], alpha[3, 3] = 200, 7
    spread = spread_colour(colour, alpha)
    assert (spread[:2, :2] == 100).all()
    assert (spread[2:, 2:] == 200).all()
    assert (spread[:2, 2:] == 150).all()  # no visible pixel in its block: the mean of all
    np.testing.assert_array_equal(spread_colour(colour, np.zeros_like(alpha)), colour)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (33, 20)])
def test_odd_sizes_spread_without_touching_what_is_visible(shape):
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (*shape, 3), np.uint8)
    alpha = rng.integers(0, 2, shape, np.uint8) * 255
    spread = spread_colour(colour, alpha)
    np.testing.assert_array_equal(spread[alpha > 0], colour[alpha > 0])


def test_encoded_picture_in_encoded_picture_out(small_network):
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (10, 20, 30)).save(file, "WEBP", lossless=True)
    with Upscaler.open(small_network(radius=0)) as upscaler:
        data = upscale_bytes(upscaler, file.getvalue(), "png")
    assert decode_picture(data).colour.tolist() == [[[10, 20, 30]] * 10] * 8
