"""Inputs that are never negative: all 256 values, and the same picture in both forms."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import Pair
from swise_export.precision.half import half_from_fp32
from swise_export.precision.plan import PrecisionPlan
from swise_export.precision.quantised.qdq import (
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)
from swise_export.precision.quantised.unsigned import Inputs, find_unsigned, shifted
from swise_export.precision.recipe import QuantisationRecipe, calibrate_for_plan, quantised_model
from swise_export.precision.search.quantisation import QuantisationConfig, QuantisationSearch
from swise_export.verification.budget import DriftBudget
from tests.export.precision.quantised.test_equalisation import layers_of, network, pixels, run


def weights_of(model: onnx.ModelProto, layers):
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {x.name: rounded_to_nearest(stored[x.weight], x.channel_axis) for x in layers}


def both_forms(model: onnx.ModelProto, largest: float, unsigned: set[str] | None = None):
    """A model as CPUs read it and as TensorRT does."""
    layers = layers_of(model)
    unsigned = {x.name for x in layers} if unsigned is None else unsigned
    ranges, weights = dict.fromkeys((x.name for x in layers), largest), weights_of(model, layers)
    plain = quantised_from_fp32(model, layers, ranges=ranges, weights=weights, unsigned=unsigned)
    inputs = shifted(Inputs(model, layers, ranges), unsigned, weights)
    signed = quantised_from_fp32(inputs.model, inputs.layers, ranges=inputs.ranges, weights=weights)
    return plain, signed


def zero_points(model: onnx.ModelProto) -> list[np.ndarray]:
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return [stored[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]


def test_values_of_unsigned_int8_match_hand_arithmetic() -> None:
    model = network("sr = Conv(lr, w)", w=(4, 4, 1, 1))
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1), "w")
    )
    step = 2**-6
    lr = np.array([0.0, 19.2, 254.6, 300], np.float32).reshape(1, 4, 1, 1) * step
    # The weight 1.0 is 127 steps of its scale, which is the half nearest to 1/127.
    weight = 127 * float(np.float16(1 / 127))
    for form in both_forms(model, 255 * step):
        expected = np.array([0, 19, 255, 255]) * step * weight
        np.testing.assert_allclose(run(form, lr).ravel(), expected, rtol=1e-5, atol=1e-6)


SHARED = (
    "a = Conv<pads=[1,1,1,1]>(lr, u) b = Conv<pads=[1,1,1,1]>(lr, v) "
    "c = Conv(lr, w) sr = Sum(a, b, c)"
)


@pytest.mark.parametrize(
    ("body", "shapes", "num_rounded"),
    [
        ("sr = Conv<pads=[1,1,1,1]>(lr, w, b)", {"w": (4, 4, 3, 3), "b": (4,)}, 1),
        ("sr = Conv<pads=[0,1,2,3]>(lr, w)", {"w": (5, 4, 3, 3)}, 1),
        ("sr = Conv<pads=[2,2,2,2], dilations=[2,2], strides=[2,1], group=2>(lr, w)",
         {"w": (6, 2, 3, 3)}, 1),
        # Layers that read and pad alike share one rounding, a layer without padding has its own.
        (SHARED,
         {"u": (3, 4, 3, 3), "v": (3, 4, 3, 3), "w": (3, 4, 1, 1)}, 2),
    ],
)  # fmt: skip
def test_the_form_for_tensorrt_computes_the_same(
    body: str, shapes: dict[str, tuple[int, ...]], num_rounded: int
) -> None:
    model = network(body, **shapes)
    before = model.SerializeToString()
    plain, signed = both_forms(model, 3.0)
    assert model.SerializeToString() == before
    assert {str(z.dtype) for z in zero_points(plain)} == {"uint8"}
    assert {str(z.dtype) for z in zero_points(signed)} == {"int8"}
    assert len(zero_points(signed)) == num_rounded
    assert not any(z.any() for z in (*zero_points(plain), *zero_points(signed)))
    onnx.checker.check_model(signed, full_check=True)
    lr = np.abs(pixels())
    np.testing.assert_allclose(run(signed, lr), run(plain, lr), atol=1e-4)
    # Steps of half the size: the error is half as large as with a sign, not the same.
    layers = layers_of(model)
    ranges = dict.fromkeys((x.name for x in layers), 3.0)
    weights = weights_of(model, layers)
    symmetric = quantised_from_fp32(model, layers, ranges=ranges, weights=weights)
    assert np.abs(run(symmetric, lr) - run(plain, lr)).max() > 1e-3


def test_padding_stays_exact_in_half_precision() -> None:
    model = network("sr = Conv<pads=[1,1,1,1]>(lr, w, b)", w=(4, 4, 3, 3), b=(4,))
    model.opset_import[0].version, model.ir_version = 19, 9  # scales are in fp16 from here on
    plain, signed = both_forms(model, 2.7)
    half = half_from_fp32(signed, []).model
    # A black picture is nothing but zeros and padding: the bias is left.
    black = np.zeros((1, 4, 6, 7), np.float32)
    np.testing.assert_allclose(run(half, black), run(plain, black), atol=4e-3)


@pytest.mark.parametrize(
    ("body", "shapes", "found"),
    [
        ("y = Relu(lr) sr = Conv(y, w)", {"w": (3, 4, 1, 1)}, {"sr"}),
        ("y = Sigmoid(lr) z = DepthToSpace<blocksize=1>(y) sr = Conv(z, w)",
         {"w": (3, 4, 1, 1)}, {"sr"}),
        # A picture is never negative, what a layer makes of it may be.
        ("y = Conv(lr, v) sr = Conv(y, w)", {"v": (4, 4, 1, 1), "w": (3, 4, 1, 1)}, {"y"}),
        ("x = Conv(lr, v) y = LeakyRelu(x) sr = Conv(y, w)",
         {"v": (4, 4, 1, 1), "w": (3, 4, 1, 1)}, {"x"}),
        # What is not negative passes a LeakyReLU as it is.
        ("y = LeakyRelu(lr) z = Mul(y, lr) sr = Conv(z, w)", {"w": (3, 4, 1, 1)}, {"sr"}),
        ("y = Sub(lr, lr) sr = Conv(y, w)", {"w": (3, 4, 1, 1)}, set()),
        ("x = Conv(lr, v) y = Relu(x) z = Add(y, x) sr = Conv(z, w)",
         {"v": (4, 4, 1, 1), "w": (3, 4, 1, 1)}, {"x"}),
        ("x = Conv(lr, v) y = Relu(x) z = Add(y, lr) sr = Conv(z, w)",
         {"v": (4, 4, 1, 1), "w": (3, 4, 1, 1)}, {"x", "sr"}),
        ("x = Conv(lr, v) y = Relu(x) z = Concat<axis=1>(y, x) sr = Conv(z, w)",
         {"v": (2, 4, 1, 1), "w": (3, 4, 1, 1)}, {"x"}),
        ("x = Conv(lr, v) l = Constant<value = float {0.0}>() y = Clip(x, l) sr = Conv(y, w)",
         {"v": (4, 4, 1, 1), "w": (3, 4, 1, 1)}, {"x", "sr"}),
        ("x = Conv(lr, v) l = Constant<value = float {-1.0}>() y = Clip(x, l) sr = Conv(y, w)",
         {"v": (4, 4, 1, 1), "w": (3, 4, 1, 1)}, {"x"}),
        # A transposed convolution and a matrix product stay signed, and so do those beside them.
        ("y = Relu(lr) sr = ConvTranspose(y, w)", {"w": (4, 3, 2, 2)}, set()),
        ("y = Relu(lr) a = Conv(y, v) b = ConvTranspose(y, w) sr = Add(a, b)",
         {"v": (3, 4, 1, 1), "w": (4, 3, 1, 1)}, set()),
        ("y = Relu(lr) sr = Conv<auto_pad=\"SAME_UPPER\">(y, w)", {"w": (3, 4, 3, 3)}, set()),
    ],
)  # fmt: skip
def test_inputs_are_unsigned_where_the_operators_before_them_say_so(
    body: str, shapes: dict[str, tuple[int, ...]], found: set[str]
) -> None:
    model = network(body, **shapes)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    layers = layers_of(model)
    if found:
        assert find_unsigned(model, layers) == found
    else:
        assert find_unsigned(model, [x for x in layers if x.input != "lr"]) == set()


def relu_x2() -> onnx.ModelProto:
    """Nearest-neighbour upscaling through a ReLU."""
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nearest = np.repeat(np.eye(3, dtype=np.float32)[None], 4, axis=0).reshape(12, 3, 1, 1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "w0"], ["a"], name="first", kernel_shape=[1, 1]),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("Conv", ["b", "w1"], ["c"], name="second", kernel_shape=[1, 1]),
            helper.make_node("DepthToSpace", ["c"], ["sr"], name="shuffle", blocksize=2),
        ],
        "relu",
        [helper.make_tensor_value_info("lr", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("sr", onnx.TensorProto.FLOAT, ["n", 3, "h2", "w2"])],
        [numpy_helper.from_array(eye, "w0"), numpy_helper.from_array(nearest, "w1")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def smooth(seed: int) -> Pair:
    """A gradient, of which HR differs by at most 1: steps of 1/127 are seen, of 1/255 not."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 255, 64)[:, None, None] * np.ones((1, 64, 3))
    lr = np.clip(rows, 0, 255).astype(np.uint8)
    hr = np.kron(lr, np.ones((2, 2, 1), np.uint8)).astype(int) + rng.integers(-1, 2, (128, 128, 3))
    return Pair(str(seed), lr, np.clip(hr, 0, 255).astype(np.uint8))


def plan_of(search: QuantisationSearch, max_drift_db: float) -> PrecisionPlan:
    return search.plan(
        DriftBudget(max_drift_db),
        model_name="own",
        scale=2,
        form="deploy",
        weights_sha256="0" * 64,
    )


def test_layers_that_do_not_fit_are_tried_unsigned() -> None:
    model, pairs = relu_x2(), [smooth(0), smooth(1)]
    reported: list[str] = []
    search = QuantisationSearch(
        model, pairs, scale=2, config=QuantisationConfig(rounding="nearest"), report=reported.append
    )
    everything = plan_of(search, 5.0)
    assert not any(layer.unsigned for layer in everything.quantised_layers)
    assert not any("unsigned" in line for line in reported)
    # A picture in steps of 1/127 loses 3.2 dB, in steps of 1/255 nothing.
    plan = plan_of(search, 0.3)
    assert "trying unsigned inputs" in "\n".join(reported)
    assert [layer.unsigned for layer in plan.quantised_layers] == [True, True]
    assert plan.mult_adds_share == 1

    weights = calibrate_for_plan(model, plan, pairs, scale=2, cache=None)
    own = quantised_model(model, QuantisationRecipe(plan, weights), []).model
    cpu = dataclasses.replace(plan, runtime="openvino", rest="fp32")
    # For a CPU they cost nothing, so that every one of them is unsigned.
    config = QuantisationConfig(rounding="nearest", rest="fp32", runtime="openvino")
    for_cpu = QuantisationSearch(model, pairs, scale=2, config=config, report=reported.append)
    assert plan_of(for_cpu, 5.0).layers == cpu.layers
    other = quantised_model(model, QuantisationRecipe(cpu, weights), []).model
    lr = (pairs[0].lr.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    # The first one's other layers are in fp16.
    np.testing.assert_allclose(run(own, lr), run(other, lr), atol=2e-3)
    assert {str(z.dtype) for z in zero_points(other)} == {"uint8"}


def test_a_plan_with_an_unsigned_input_that_can_be_negative_is_refused() -> None:
    model = network("y = Neg(lr) sr = Conv(y, w)", w=(3, 4, 1, 1))
    search = QuantisationSearch(
        relu_x2(),
        [smooth(0), smooth(1)],
        scale=2,
        config=QuantisationConfig(),
        report=lambda _: None,
    )
    plan = plan_of(search, 9.0)
    layer = dataclasses.replace(plan.layers[0], name="sr", unsigned=True)
    wrong = dataclasses.replace(plan, layers=(layer,), rounding="nearest")
    weights = weights_of(model, find_layers(model)[0])
    with pytest.raises(InputError, match="layer sr is unsigned, but its values can be negative"):
        quantised_model(model, QuantisationRecipe(wrong, weights), [])
