import pytest

from swise_deploy.errors import InputError
from swise_engines.tensorrt.profiles import (
    Extent,
    Profile,
    choose_profile,
    default_profile,
    extent_of_shape,
    profile_from_sizes,
)
from swise_export.interface.ports import Port

FLOAT = Port("lr", "float32")
LUMA = Port("lr", "float32", channels=1)
UINT8 = Port("lr", "uint8", "NHWC", white=255.0)


@pytest.mark.parametrize(
    ("scale", "typical", "largest"),
    [
        (2, (640, 360), (960, 540)),
        (3, (426, 240), (640, 360)),
        (4, (320, 180), (480, 270)),
    ],
)
def test_defaults_reach_from_tiny_to_what_gives_full_hd(scale, typical, largest):
    profile = default_profile(scale, max_batch=3)
    assert (profile.min.width, profile.min.height) == (16, 16)
    assert (profile.opt.width, profile.opt.height) == typical
    assert (profile.max.width, profile.max.height) == largest
    assert (profile.min.batch, profile.opt.batch, profile.max.batch) == (1, 1, 3)


def test_one_size_is_taken_alone_and_three_are_a_range():
    fixed = profile_from_sizes([(320, 180)])
    assert fixed.is_fixed
    assert fixed.takes(Extent(1, 320, 180))
    assert not fixed.takes(Extent(1, 180, 320))
    ranged = profile_from_sizes([(8, 8), (64, 48), (100, 50)], max_batch=2)
    assert ranged.takes(Extent(2, 100, 50))
    assert not ranged.takes(Extent(3, 100, 50))


@pytest.mark.parametrize(
    "sizes", [[(8, 8), (9, 9)], [], [(64, 8), (9, 9), (80, 80)], [(8, 8), (9, 90), (80, 80)]]
)
def test_sizes_that_make_no_profile_are_refused(sizes):
    with pytest.raises(InputError, match="profile"):
        profile_from_sizes(sizes)


@pytest.mark.parametrize(
    ("shape", "port", "expected"),
    [
        ((2, 3, 5, 7), FLOAT, Extent(2, 7, 5)),
        ((2, 5, 7, 3), UINT8, Extent(2, 7, 5)),
        ((1, 3, 3, 3), FLOAT, Extent(1, 3, 3)),
        ((1, 1, 5, 7), LUMA, Extent(1, 7, 5)),
    ],
)
def test_extent_and_shape_are_inverse(shape, port, expected):
    assert extent_of_shape(shape, port) == expected
    assert expected.shape(port) == shape


@pytest.mark.parametrize(
    ("shape", "port"), [((1, 4, 5, 7), FLOAT), ((3, 5, 7), FLOAT), ((1, 3, 5, 7), UINT8)]
)
def test_what_is_no_rgb_batch_is_refused(shape, port):
    with pytest.raises(InputError, match="expected"):
        extent_of_shape(shape, port)


def test_the_profile_tuned_nearest_is_chosen():
    profiles = [
        Profile(Extent(1, 8, 8), Extent(1, 64, 64), Extent(1, 512, 512)),
        Profile(Extent(1, 8, 8), Extent(1, 400, 400), Extent(1, 512, 512)),
    ]
    assert choose_profile(profiles, Extent(1, 70, 60)) == 0
    assert choose_profile(profiles, Extent(1, 380, 380)) == 1


def test_an_input_outside_lists_the_sizes_that_fit():
    profiles = [profile_from_sizes([(8, 8), (16, 16), (32, 24)]), profile_from_sizes([(64, 64)])]
    with pytest.raises(InputError) as error:
        choose_profile(profiles, Extent(1, 48, 24))
    message = str(error.value)
    assert "48x24" in message
    assert "8x8 to 32x24" in message
    assert "64x64" in message
    assert "--size 48x24" in message


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        Extent(0, 8, 8)
