"""Channels of one range: the same network, and less of it lost by rounding."""

import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from swise_deploy.errors import InputError
from swise_export.precision.quantised.equalisation import equalised, factors_of, folded
from swise_export.precision.quantised.qdq import (
    Layer,
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)

FACTORS = (1.0, 0.25, 0.02, 0.7)
HEAD = """
<ir_version: 8, opset_import: ["": 17]>
network (float[n, 4, h, w] lr) => (float[n, c, h, w] sr)
"""


def network(body: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A graph with random weights of the given shapes; nodes are named by their outputs."""
    model = parser.parse_model(HEAD + "{" + body + "}")
    rng = np.random.default_rng(0)
    for node in model.graph.node:
        node.name = node.output[0]
    for name, shape in weights.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def run(model: onnx.ModelProto, lr: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"lr": lr})[0])


def pixels() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, 4, 6, 7)).astype(np.float32)


def layers_of(model: onnx.ModelProto) -> tuple[Layer, ...]:
    return find_layers(model, min_share=0)[0]


def test_factors_follow_the_largest_values_of_the_channels() -> None:
    largest = np.array([4, 2, 0.01, 1], np.float32)
    # 0.5 ** 0.85 and 0.25 ** 0.85; 0.01 counts as 0.02 of the largest.
    assert factors_of(largest) == pytest.approx((1.0, 0.5548, 0.0360, 0.3078), rel=2e-3)


@pytest.mark.parametrize("largest", [[1, 0.95, 0.9], [0, 0, 0], [3]])
def test_channels_that_are_alike_are_left_alone(largest: list[float]) -> None:
    assert factors_of(np.array(largest, np.float32)) == ()


CHAIN = "x = Conv<pads=[1,1,1,1]>(lr, w1, b1) y = {act} sr = Conv(y, w2)"
SHAPES = {"w1": (4, 4, 3, 3), "b1": (4,), "w2": (3, 4, 1, 1)}


@pytest.mark.parametrize(
    ("body", "shapes", "num_left"),
    [
        (CHAIN.format(act="Relu(x)"), SHAPES, 0),
        (CHAIN.format(act="LeakyRelu<alpha=0.1>(x)"), SHAPES, 0),
        (CHAIN.format(act="PRelu(x, slope)"), {**SHAPES, "slope": (4, 1, 1)}, 0),
        (CHAIN.format(act="Sigmoid(x)"), SHAPES, 1),
        # The skip reads the activation too.
        ("x = Conv(lr, w1) t = Relu(x) y = Conv(t, w2) sr = Add(y, t)",
         {"w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1)}, 1),
        ("x = Conv(lr, w1) y = Conv(lr, w3) t = Concat<axis=1>(x, y) sr = Conv(t, w2)",
         {"w1": (1, 4, 1, 1), "w3": (3, 4, 1, 1), "w2": (5, 4, 1, 1)}, 0),
        ("x = Conv(lr, w1) t = Concat<axis=1>(x, x) sr = Conv(t, w2)",
         {"w1": (2, 4, 1, 1), "w2": (5, 4, 1, 1)}, 1),
        ("x = ConvTranspose<strides=[2,2]>(lr, w1, b1) sr = ConvTranspose(x, w2)",
         {"w1": (4, 4, 2, 2), "b1": (4,), "w2": (4, 3, 3, 3)}, 0),
        ("x = ConvTranspose<group=2>(lr, w1) sr = Conv<group=2>(x, w2)",
         {"w1": (4, 2, 2, 2), "w2": (6, 2, 1, 1)}, 1),
        ("x = Conv<group=4>(lr, w1) sr = Conv<group=2>(x, w2)",
         {"w1": (4, 1, 2, 2), "w2": (6, 2, 1, 1)}, 0),
        ("x = Transpose<perm=[0,2,3,1]>(lr) y = MatMul(x, w1) sr = Transpose<perm=[0,3,1,2]>(y)",
         {"w1": (4, 5)}, 1),
    ],
)  # fmt: skip
def test_an_equalised_network_computes_the_same(
    body: str, shapes: dict[str, tuple[int, ...]], num_left: int
) -> None:
    model = network(body, **shapes)
    before = copy.deepcopy(model)
    last = layers_of(model)[-1:]
    equal = equalised(model, last, {last[0].name: FACTORS})
    assert model == before
    assert len(equal.divisions) == 1
    np.testing.assert_allclose(run(equal.model, pixels()), run(model, pixels()), atol=2e-5)
    short, _ = folded(equal, {})
    assert len(short.divisions) == num_left
    onnx.checker.check_model(short.model)
    np.testing.assert_allclose(run(short.model, pixels()), run(model, pixels()), atol=2e-5)


@pytest.mark.parametrize(
    ("pads", "fill", "num_left"), [("ring", 0.0, 0), ("ring", 0.5, 1), ("channels", 0.0, 1)]
)
def test_a_division_passes_a_pad_with_zeros_alone(pads: str, fill: float, num_left: int) -> None:
    model = network("x = Conv(lr, w1) y = Pad(x, pads, fill) sr = Conv(y, w2)",
                    w1=(3 if pads == "channels" else 4, 4, 1, 1), w2=(3, 4, 3, 3))  # fmt: skip
    ring = [0, 1, 0, 0, 0, 0, 0, 0] if pads == "channels" else [0, 0, 1, 1, 0, 0, 1, 1]
    model.graph.initializer.append(numpy_helper.from_array(np.array(ring, np.int64), "pads"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(fill, np.float32), "fill"))
    last = layers_of(model)[-1]
    short, _ = folded(equalised(model, [last], {last.name: FACTORS}), {})
    assert len(short.divisions) == num_left
    np.testing.assert_allclose(run(short.model, pixels()), run(model, pixels()), atol=2e-5)


def test_what_is_an_output_of_the_network_is_not_divided() -> None:
    model = network("x = Conv(lr, w1) sr = Conv(x, w2)", w1=(4, 4, 1, 1), w2=(4, 4, 1, 1))
    model.graph.output.add().CopyFrom(model.graph.output[0])
    model.graph.output[1].name = "x"
    last = layers_of(model)[-1]
    short, _ = folded(equalised(model, [last], {last.name: FACTORS}), {})
    assert len(short.divisions) == 1


def test_layers_that_share_an_input_share_its_division() -> None:
    model = network("x = Conv(lr, w1) y = Conv(lr, w2) sr = Add(x, y)",
                    w1=(3, 4, 1, 1), w2=(3, 4, 1, 1))  # fmt: skip
    layers = layers_of(model)
    equal = equalised(model, layers, {layers[0].name: FACTORS, layers[1].name: FACTORS})
    assert len(equal.divisions) == 1
    assert equal.layers[0].input == equal.layers[1].input
    np.testing.assert_allclose(run(equal.model, pixels()), run(model, pixels()), atol=1e-5)


def test_quantised_weights_keep_their_values_and_divide_their_scales() -> None:
    model = network(CHAIN.format(act="Relu(x)"), **SHAPES)
    layers = layers_of(model)
    equal = equalised(model, layers, {layers[1].name: FACTORS})
    stored = {t.name: numpy_helper.to_array(t) for t in equal.model.graph.initializer}
    weights = {x.name: rounded_to_nearest(stored[x.weight], x.channel_axis) for x in equal.layers}
    short, found = folded(equal, weights)
    first = layers[0].name
    np.testing.assert_array_equal(found[first].values, weights[first].values)
    np.testing.assert_allclose(
        found[first].scales, weights[first].scales / np.array(FACTORS), rtol=1e-3
    )
    np.testing.assert_array_equal(found[first].scales, found[first].scales.astype(np.float16))
    ranges = {layer.name: 8.0 for layer in layers}
    whole, short_one = (
        run(quantised_from_fp32(e.model, e.layers, ranges=ranges, weights=w), pixels())
        for e, w in ((equal, weights), (short, found))
    )
    # The scales of the first layer differ by half a unit of fp16.
    assert float(np.mean((short_one - whole) ** 2)) < 1e-4 * float(np.var(whole))


def test_another_number_of_channels_is_refused() -> None:
    model = network("sr = Conv(lr, w1)", w1=(3, 4, 1, 1))
    layers = layers_of(model)
    with pytest.raises(InputError, match=r"has 2 factors .* expected 4"):
        equalised(model, layers, {layers[0].name: (1.0, 0.5)})


def test_small_channels_keep_their_values() -> None:
    # Channels of 1 and 0.01: one step for both is 1/127, and the small one is rounded to 0 or one
    # step; its own step is 0.02/127.
    model = network("sr = Conv(lr, w1)", w1=(1, 4, 1, 1))
    weights = np.array([0, 0, 1, 0], np.float32).reshape(1, 4, 1, 1)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w1"))
    lr = np.zeros((1, 4, 1, 5), np.float32)
    lr[0, 0], lr[0, 2, 0] = 1, np.array([0.01, 0.005, -0.003, 0.0021, 0])
    layers = layers_of(model)

    def error(factors: tuple[float, ...]) -> float:
        equal = equalised(model, layers, {layers[0].name: factors})
        stored = {t.name: numpy_helper.to_array(t) for t in equal.model.graph.initializer}
        quantised = quantised_from_fp32(
            equal.model,
            equal.layers,
            ranges={layers[0].name: 1.0},
            weights={layers[0].name: rounded_to_nearest(stored[equal.layers[0].weight], 0)},
        )
        return float(np.abs(run(quantised, lr) - lr[:, 2:3]).max())

    assert error(()) > 0.002
    assert error(FACTORS) <= 0.5 * 0.02 / 127 * 1.1
