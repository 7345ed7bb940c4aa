import threading
from functools import partial

import numpy as np
import onnx
import pytest

from swise_deploy.errors import InputError, SwiseError
from swise_deploy.runner import upscale as runner_upscale
from swise_engines.running.runner import EngineRunner
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_engines.upscaling.opening import open_source
from swise_engines.upscaling.tiles import budget
from swise_engines.upscaling.tiles.budget import limits_of_profiles, probe_sizes
from swise_engines.upscaling.tiles.tiling import TileLimits
from swise_engines.upscaling.upscaler import Upscaler
from swise_export.runtimes.onnxruntime import OnnxRunner


def noise(shape, dtype=np.uint8, seed=0):
    if dtype == np.float32:
        return np.random.default_rng(seed).random(shape, np.float32)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 9, 3), (9, 5), (40, 33, 3)])
def test_an_enlargement_by_repetition_repeats_every_pixel(small_network, dtype, shape):
    image = noise(shape, dtype)
    with Upscaler.open(small_network(radius=0), tile=32) as upscaler:
        sr = upscaler(image)
    expected = image.repeat(2, axis=0).repeat(2, axis=1)
    assert sr.dtype == dtype
    # Greyscale goes through RGB and back: float32 weights that add up to 1 but for rounding.
    tolerance = 1e-6 if dtype == np.float32 else 0
    np.testing.assert_allclose(sr, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize(("height", "width"), [(33, 97), (100, 31), (64, 64)])
def test_tiles_equal_the_full_frame_within_1_of_255(small_network, uint8, height, width):
    path = small_network(radius=4, uint8=uint8)
    image = noise((height, width, 3))
    with Upscaler.open(path, tile=32) as tiled, Upscaler.open(path, tile=512) as whole:
        assert len(tiled._plan(width, height)[1]) * len(tiled._plan(width, height)[0]) > 1
        difference = tiled(image).astype(int) - whole(image)
        assert tiled.is_exact
    assert np.abs(difference).max() <= 1


def test_averages_over_the_picture_are_reported(small_network, caplog):
    image = np.linspace(0, 150, 128 * 128 * 3).reshape(128, 128, 3).astype(np.uint8)
    with Upscaler.open(small_network(averages=True), tile=96) as upscaler:
        sr = upscaler(image)
        assert not upscaler.is_exact
    assert "averages over the whole picture" in caplog.text
    # Brightness rises by 150 of 255 over 128 lines, a quarter of the mean is added, tiles of 96
    # lines see means that are up to 19 of 255 from the picture's; faded over 16 lines that is no
    # step between two lines.
    inside = sr[8:-8, 8:-8, 0].astype(int)  # the picture's own edges darken: zero padding
    steps = np.abs(np.diff(inside, axis=0))
    assert steps.max() <= 3


@pytest.mark.parametrize(("height", "width"), [(40, 200), (200, 40), (96, 96)])
def test_a_picture_that_fits_into_the_memory_is_upscaled_at_once(small_network, height, width):
    """The mean over the whole picture is that of the full frame only if it is not cut."""
    path = small_network(averages=True)
    image = np.linspace(0, 150, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    opened = partial(Upscaler.open, path, runner="onnxruntime")
    with opened(tile=256) as whole, opened(tile=32) as tiled:
        expected, cut = whole(image), tiled(image)
        assert not tiled.is_exact
        find = tiled._find_overlap
        assert np.abs(cut.astype(int) - expected).max() > 1
    limits = TileLimits(most=(32, 32), whole_pixels=height * width)
    with Upscaler(OnnxRunner(path), limits, find_overlap=find) as upscaler:
        np.testing.assert_array_equal(upscaler(image), expected)
        assert upscaler.is_exact
        taller = np.concatenate([image, image[:1]])
        upscaler(taller)
        assert not upscaler.is_exact


@pytest.mark.parametrize(("height", "width", "num_tiles"), [(20, 20, 1), (20, 70, 3), (70, 70, 9)])
def test_the_share_that_is_done_is_reported_after_each_tile(
    small_network, height, width, num_tiles
):
    shares: list[float] = []
    with Upscaler.open(small_network(radius=0), runner="onnxruntime", tile=32) as upscaler:
        upscaler(noise((height, width, 3)), report=shares.append)
    assert shares == pytest.approx([i / num_tiles for i in range(1, num_tiles + 1)])


def test_half_of_the_free_memory_is_for_whole_pictures(small_network, monkeypatch):
    """4 float32 channels would be 16 bytes; this network's layers hold 12 channels and more."""
    path = small_network(radius=0)
    with Upscaler.open(path, runner="onnxruntime", memory_mib=64) as upscaler:
        by_memory = upscaler.limits.whole_pixels
    monkeypatch.setattr(budget, "free_memory_bytes", lambda: 128 << 20)
    with Upscaler.open(path, runner="onnxruntime") as upscaler:
        assert upscaler.limits.whole_pixels == by_memory
        assert upscaler.limits.most[0] ** 2 <= by_memory
    with Upscaler.open(path, runner="onnxruntime", tile=32) as upscaler:
        assert upscaler.limits.whole_pixels == 0
    monkeypatch.setattr(budget, "free_memory_bytes", lambda: None)
    with Upscaler.open(path, runner="onnxruntime") as upscaler:
        assert upscaler.limits.whole_pixels == pytest.approx(16 * by_memory, rel=0.01)


def test_a_fixed_size_is_met_by_padding_and_tiling(small_network):
    path = small_network(size=(48, 32), batch=2)
    image = noise((20, 130, 3))
    with Upscaler.open(path) as fixed, Upscaler.open(small_network()) as free:
        assert fixed.limits == TileLimits((48, 32), (48, 32), 2, 2)
        difference = np.abs(fixed(image).astype(int) - free(image))
    assert difference[:32].max() <= 1  # away from the padded lower edge


@pytest.mark.parametrize(("height", "width"), [(32, 131), (71, 48), (73, 130)])
def test_a_fixed_size_serves_any_size_of_a_network_whose_tiles_start_at_even_places(
    small_network, height, width
):
    path = small_network(radius=1, size=(48, 32))
    model = onnx.load(path)
    model.metadata_props.add(key="swise.model", value="swisenet")
    onnx.save(model, path)
    image = noise((height, width, 3))
    with Upscaler.open(path) as fixed, Upscaler.open(small_network(radius=1)) as free:
        sr = fixed(image)
        difference = np.abs(sr.astype(int) - free(image))
    assert sr.shape == (2 * height, 2 * width, 3)
    assert difference[: 2 * height - 4, : 2 * width - 4].max() <= 1  # what was added is mirrored


def test_depth_is_not_dropped_silently(small_network):
    with (
        Upscaler.open(small_network(uint8=True)) as upscaler,
        pytest.raises(InputError, match=r"depth would be lost.*--io float"),
    ):
        upscaler(noise((4, 4, 3), np.uint16))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "not empty"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
    ],
)
def test_what_is_no_picture_is_refused(small_network, image, message):
    with Upscaler.open(small_network()) as upscaler, pytest.raises(InputError, match=message):
        upscaler(image)


def test_pixels_that_are_no_numbers_are_an_error_and_no_black_picture(small_network):
    """The square root of x - 1: a number for white alone."""
    path = small_network(radius=0)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "picture"
    model.graph.node.append(onnx.helper.make_node("Sub", ["picture", "one"], ["below"]))
    model.graph.node.append(onnx.helper.make_node("Sqrt", ["below"], ["sr"]))
    onnx.save(model, path)
    white = np.full((8, 6, 3), 255, np.uint8)
    with Upscaler.open(path, runner="onnxruntime") as upscale:
        assert (upscale(white) == 0).all()
        with pytest.raises(SwiseError, match=r"contains NaN or infinity.*swise-export"):
            upscale(white - 1)
    with OnnxRunner(path) as runner, pytest.raises(SwiseError, match="contains NaN or infinity"):
        runner_upscale(runner, white - 1)


def test_calls_from_many_threads_give_what_one_thread_gives(small_network):
    images = [noise((30 + i, 40, 3), seed=i) for i in range(8)]
    with Upscaler.open(small_network(), tile=32) as upscaler:
        expected = [upscaler(image) for image in images]
        results: dict[int, np.ndarray] = {}
        threads = [
            threading.Thread(target=lambda i=i: results.update({i: upscaler(images[i])}))
            for i in range(len(images))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, image in enumerate(expected):
        np.testing.assert_array_equal(results[i], image)


def test_a_tile_too_small_for_the_network_is_refused_with_one_that_is_enough(small_network):
    path = small_network(radius=10)
    opened = partial(Upscaler.open, path, runner="onnxruntime")
    with opened(tile=16) as upscaler, pytest.raises(InputError, match="--tile 21"):
        upscaler(noise((64, 64, 3)))
    with opened(tile=21) as upscaler:
        assert upscaler(noise((64, 64, 3))).shape == (128, 128, 3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.onnx", "no file at"),
        ("swisnet", "Did you mean 'swisenet'"),
        ("a.engine", "no file"),
    ],
)
def test_a_source_that_is_none_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        Upscaler.open(source)


def test_another_scale_than_the_file_has_is_refused(small_network):
    with pytest.raises(InputError, match="upscales x2, not x4"):
        Upscaler.open(small_network(), scale=4)


def test_tiles_of_an_engine_follow_from_its_largest_profile():
    small = Profile(Extent(1, 16, 16), Extent(1, 64, 64), Extent(1, 128, 128))
    large = Profile(Extent(2, 32, 16), Extent(4, 320, 180), Extent(8, 640, 360))
    assert limits_of_profiles([small, large], None) == TileLimits((32, 16), (640, 360), 2, 8)
    assert limits_of_profiles([small, large], 64) == TileLimits((32, 16), (64, 64), 2, 8)
    with pytest.raises(InputError, match="do not fit the engine"):
        limits_of_profiles([small], 256)


@pytest.mark.parametrize(
    ("least", "most", "sizes"),
    [
        ((1, 1), (64, 48), [(64, 48)]),
        ((1, 1), (640, 200), [(128, 128), (256, 200)]),
        ((300, 16), (640, 360), [(300, 128), (300, 256)]),
    ],
)
def test_an_engine_is_probed_within_its_profile(least, most, sizes):
    assert probe_sizes(least, most) == sizes


def test_an_engine_is_tiled_by_the_profile_in_its_manifest(engine):
    source = open_source(engine)
    assert isinstance(source.runner, EngineRunner)
    assert (source.runner.scale, source.runner.io) == (2, "float")
    assert source.limits == TileLimits((8, 8), (32, 24), 1, 2)


@pytest.mark.gpu
def test_an_engine_in_tiles_repeats_every_pixel(build_here, make_onnx):
    profile = Profile(Extent(1, 8, 8), Extent(1, 64, 64), Extent(2, 96, 96))
    image = noise((150, 170, 3))
    with Upscaler.open(build_here(make_onnx("fp16"), profile)) as upscaler:
        sr = upscaler(image)
        assert upscaler.is_exact
    difference = np.abs(sr.astype(int) - image.repeat(2, axis=0).repeat(2, axis=1))
    assert difference.max() <= 1  # fp16


def test_an_engine_without_its_manifest_is_refused(engine):
    engine.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"no manifest .*\.json.*build it again with swise-build"):
        open_source(engine)
