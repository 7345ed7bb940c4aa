import numpy as np
import onnx
import pytest

from swise_deploy.errors import InputError
from swise_engines.upscaling.artefacts import artefact_of
from swise_engines.upscaling.tiles import exact as exact_tiles
from swise_engines.upscaling.tiles.splitting import split_network
from swise_engines.upscaling.upscaler import Upscaler


def slope(height, width):
    """Light at one end and dark at the other: every tile has another mean."""
    rows = np.linspace(0, 200, height)[:, None, None]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return (rows + noise).astype(np.uint8)


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize(("height", "width"), [(130, 40), (97, 101)])
def test_exact_tiles_equal_the_full_frame(small_network, uint8, height, width):
    path = small_network(averages=True, radius=3, uint8=uint8)
    image = slope(height, width)
    with (
        Upscaler.open(path, runner="onnxruntime", tile=256) as whole,
        Upscaler.open(path, runner="onnxruntime", tile=48) as tiled,
        Upscaler.open(path, tile=48, exact=True) as exact,
    ):
        expected = whole(image).astype(int)
        assert np.abs(tiled(image) - expected).max() > 2
        assert np.abs(exact(image) - expected).max() <= (1 if uint8 else 0)
        assert exact.is_exact
        assert np.abs(exact(image[::-1]) - whole(image[::-1]).astype(int)).max() <= 1


def with_second_average(path):
    """Let the result depend on an average that depends on another: of a map of half the size.

    Its average is over [-2, -1] and keeps no axes. Odd sides leave a half pixel at the end of the
    map, which counts as much as the others in the full frame.
    """
    model = onnx.load(path)
    make = onnx.helper.make_node
    nodes = [
        make(
            "AveragePool", ["shifted"], ["half"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
        ),
        make("Mul", ["half", "half"], ["square"]),
        make("ReduceMean", ["square"], ["flat"], axes=[-2, -1], keepdims=0),
        make("Unsqueeze", ["flat", "last_axes"], ["second"]),
        make("Add", ["shifted", "second"], ["shifted_twice"]),
    ]
    axes = onnx.numpy_helper.from_array(np.array([2, 3], np.int64), "last_axes")
    model.graph.initializer.append(axes)
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "DepthToSpace")
    model.graph.node[place].input[0] = "shifted_twice"
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize(("height", "width"), [(130, 97), (97, 133), (64, 301)])
def test_averages_that_do_not_fit_the_memory_are_found_in_tiles(
    small_network, uint8, height, width
):
    path = with_second_average(small_network(averages=True, radius=3, uint8=uint8))
    image = slope(height, width) // 2
    with (
        Upscaler.open(path, runner="onnxruntime", tile=512) as whole,
        Upscaler.open(path, memory_mib=1) as tiled,
        Upscaler.open(path, memory_mib=1, exact=True) as exact,
    ):
        expected = whole(image).astype(int)
        assert np.abs(tiled(image) - expected).max() > 2
        shares: list[float] = []
        difference = np.abs(exact(image, report=shares.append) - expected)
        # fp32 in another order of sums: rounding to 8 bits may turn over.
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 0.01
        assert exact.is_exact
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert 0.5 in shares  # before the first tile of the result


def test_averages_that_never_settle_are_reported(small_network, caplog, monkeypatch):
    path = with_second_average(small_network(averages=True))
    monkeypatch.setattr(exact_tiles, "SETTLED_CHANGE", 0.0)  # nothing is below it
    with Upscaler.open(path, memory_mib=1, exact=True) as upscaler:
        upscaler(slope(130, 97))
    assert f"in pass {exact_tiles.MAX_PASSES}" in caplog.text


def test_a_picture_that_fits_into_the_memory_is_run_whole_by_the_file_itself(small_network):
    path = small_network(averages=True)
    with (
        Upscaler.open(path, runner="onnxruntime", tile=256) as whole,
        Upscaler.open(path, memory_mib=100, exact=True) as exact,
    ):
        for image in (slope(130, 40), slope(40, 130)):
            np.testing.assert_array_equal(exact(image), whole(image))


def test_the_next_frame_takes_the_averages_of_the_one_before_and_another_scene_its_own(
    small_network,
):
    path = small_network(averages=True)
    first = slope(130, 97) // 2
    panned = np.roll(first, 4, axis=1)
    dimmed = np.rint(first * 0.9).astype(np.uint8)
    other_scene = (255 - slope(130, 97)) // 2
    with (
        Upscaler.open(path, runner="onnxruntime", tile=512) as whole,
        Upscaler.open(path, memory_mib=1, exact=True) as exact,
    ):
        exact(first)

        def deviation(frame):
            return np.abs(exact(frame, continues=True) - whole(frame).astype(int)).max()

        assert deviation(panned) <= 1
        # The mean of about 60 falls by 6: of that a quarter is added to every pixel.
        assert 1 < deviation(dimmed) <= 0.25 * exact_tiles.CUT_CHANGE * 255 + 1
        assert deviation(dimmed) <= 1  # the frame after it has its averages
        assert deviation(other_scene) <= 1
        assert np.abs(whole(other_scene).astype(int) - whole(dimmed)).max() > 60
        assert deviation(first[:, :90]) <= 1  # another size has no frame before


@pytest.mark.parametrize("batch", [None, 2])
def test_every_tile_of_a_batch_counts_once(small_network, batch):
    path = small_network(averages=True, batch=batch)
    image = slope(130, 97)
    with (
        Upscaler.open(small_network(averages=True), runner="onnxruntime", tile=512) as whole,
        Upscaler.open(path, memory_mib=1, exact=True) as exact,
    ):
        expected = whole(image).astype(int)
        for continues in (False, True):
            assert np.abs(exact(image, continues=continues) - expected).max() <= 1


@pytest.mark.slow
def test_swisenet_whose_averages_are_found_in_tiles_is_close_to_the_full_frame():
    """docs/upscaling.md states what was measured on photographs."""
    path = artefact_of("auto", scale=2)
    image = slope(104, 136)
    with (
        Upscaler.open(path, runner="onnxruntime", tile=256) as whole,
        Upscaler.open(path, runner="onnxruntime", tile=96) as tiled,
        Upscaler.open(path, memory_mib=96, exact=True) as exact,
    ):
        expected = whole(image).astype(int)
        assert exact.limits.most == (80, 80)
        deviation = np.abs(exact(image) - expected)
        assert deviation.max() <= 1
        assert np.mean(deviation > 0) < 0.1 * np.mean(np.abs(tiled(image) - expected) > 0)


@pytest.mark.slow
def test_swisenet_in_exact_tiles_is_swisenet_on_the_full_frame():
    path = artefact_of("auto", scale=2)
    image = slope(104, 72)
    with (
        Upscaler.open(path, runner="onnxruntime", tile=256) as whole,
        Upscaler.open(path, runner="onnxruntime", tile=64) as tiled,
        Upscaler.open(path, tile=64, exact=True) as exact,
    ):
        expected = whole(image).astype(int)
        assert np.abs(tiled(image) - expected).max() > 2
        difference = np.abs(exact(image) - expected)
        # fp32 in another order of sums: rounding to 8 bits may turn over.
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 0.01


def test_a_network_without_averages_needs_no_splitting(small_network):
    assert split_network(small_network()) is None
    with Upscaler.open(small_network(), tile=32, exact=True) as upscaler:
        assert upscaler(slope(64, 40)).shape == (128, 80, 3)
        assert upscaler.is_exact


def test_a_network_that_sees_everything_in_another_way_is_refused(small_network):
    """The largest value over the picture is no average, and is not split off."""
    path = small_network(averages=True)
    model = onnx.load(path)
    nodes = [
        onnx.helper.make_node("GlobalMaxPool", ["wide"], ["peak_value"]),
        onnx.helper.make_node("Add", ["mean", "peak_value"], ["both"]),
    ]
    place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Mul")
    model.graph.node[place].input[0] = "both"
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)
    onnx.save(model, path)
    with (
        Upscaler.open(path, tile=48, exact=True) as upscaler,
        pytest.raises(InputError, match="no tiles are exact"),
    ):
        upscaler(slope(130, 40))


def test_exact_tiles_run_in_onnx_runtime_only(small_network):
    with pytest.raises(InputError, match="openvino"):
        Upscaler.open(small_network(averages=True), exact=True, runner="openvino")


def test_a_file_of_one_size_and_an_engine_are_refused(small_network, engine):
    with pytest.raises(InputError, match="one size"):
        Upscaler.open(small_network(averages=True, size=(48, 32)), exact=True)
    with pytest.raises(InputError, match="engine"):
        Upscaler.open(engine, exact=True)
