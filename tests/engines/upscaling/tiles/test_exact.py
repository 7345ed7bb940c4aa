import numpy as np
import onnx
import pytest

from swise_deploy.errors import InputError
from swise_engines.upscaling.artefacts import artefact_of
from swise_engines.upscaling.tiles.exact import split_network
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


@pytest.mark.parametrize(
    ("options", "message"),
    [({"runner": "openvino"}, "openvino"), ({"memory_mib": 1}, "--exact")],
)
def test_what_exact_tiles_cannot_do_is_refused(small_network, options, message):
    path = small_network(averages=True)
    with pytest.raises(InputError, match=message):  # noqa: SIM117
        with Upscaler.open(path, exact=True, **options) as upscaler:
            upscaler(np.zeros((1500, 1500, 3), np.uint8))


def test_a_file_of_one_size_and_an_engine_are_refused(small_network, engine):
    with pytest.raises(InputError, match="one size"):
        Upscaler.open(small_network(averages=True, size=(48, 32)), exact=True)
    with pytest.raises(InputError, match="engine"):
        Upscaler.open(engine, exact=True)
