from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.errors import InputError
from swise_export.counting import count_onnx, lr_size_for_hr
from swise_export.graph.number_formats import tensor_from_values


def _model(
    nodes: list[onnx.NodeProto],
    initializers: dict[str, np.ndarray],
    *,
    dims: tuple[int | str, ...] = ("n", 3, "h", "w"),
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("lr", dtype, dims)],
        [helper.make_tensor_value_info("sr", dtype, None)],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _subpixel(scale: int) -> onnx.ModelProto:
    return _model(
        [
            helper.make_node("Conv", ["lr", "w", "b"], ["f"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("DepthToSpace", ["f"], ["sr"], name="up", blocksize=scale, mode="CRD"),
        ],
        {
            "w": np.zeros((3 * scale**2, 3, 3, 3), np.float32),
            "b": np.zeros(3 * scale**2, np.float32),
        },
    )


def test_counts_of_one_convolution_match_hand_arithmetic() -> None:
    counts = count_onnx(_subpixel(2), lr_size=(10, 6))
    # 12 output channels, 3x3 kernel over 3 input channels, at 10x6 pixels.
    assert counts.mult_adds == 12 * 27 * 60
    assert counts.params == 12 * 27 + 12
    assert counts.activations == 12 * 60
    assert counts.num_convolutions == 1
    conv = counts.layers[0]
    # read lr, w, b; write f; 4 bytes each.
    assert conv.traffic_bytes == 4 * (3 * 60 + 12 * 27 + 12 + 12 * 60)
    assert counts.sr_size == (20, 12)


@pytest.mark.parametrize(
    ("scale", "lr_size"), [(1, (1280, 720)), (2, (640, 360)), (3, (426, 240)), (4, (320, 180))]
)
def test_the_default_input_size_gives_a_1280x720_output_rounded_down(
    scale: int, lr_size: tuple[int, int]
) -> None:
    assert lr_size_for_hr(scale) == lr_size
    assert count_onnx(_subpixel(scale)).lr_size == lr_size


@pytest.mark.parametrize(
    ("op_type", "attributes", "weight", "expected"),
    [
        ("Conv", {"group": 3, "pads": [1, 1, 1, 1]}, (6, 1, 3, 3), 6 * 9 * 20),
        ("Conv", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (8, 3, 3, 3), 8 * 27 * 2 * 3),
        ("Conv", {"dilations": [2, 2], "pads": [2, 2, 2, 2]}, (4, 3, 3, 3), 4 * 27 * 20),
        ("ConvTranspose", {"strides": [2, 2]}, (3, 5, 2, 2), 3 * 20 * 5 * 4),
        ("ConvTranspose", {"strides": [2, 2], "group": 3}, (3, 1, 4, 4), 3 * 20 * 16),
    ],
)
def test_counts_of_groups_strides_and_transposition_match_hand_arithmetic(
    op_type: str, attributes: dict[str, Any], weight: tuple[int, ...], expected: int
) -> None:
    node = helper.make_node(op_type, ["lr", "w"], ["sr"], **attributes)
    model = _model([node], {"w": np.zeros(weight, np.float32)})
    assert count_onnx(model, lr_size=(5, 4)).mult_adds == expected


def test_matrix_products_count_their_inner_dimension() -> None:
    node = helper.make_node
    model = _model(
        [
            node("Transpose", ["lr"], ["pixels"], perm=[0, 2, 3, 1]),
            node("MatMul", ["pixels", "w"], ["mixed"]),
            node("Transpose", ["mixed"], ["planes"], perm=[0, 3, 1, 2]),
            node("Einsum", ["planes", "mix"], ["sr"], equation="bchw,cd->bdhw"),
        ],
        {"w": np.zeros((3, 7), np.float32), "mix": np.zeros((7, 3), np.float32)},
    )
    counts = count_onnx(model, lr_size=(5, 4))
    assert counts.mult_adds == 20 * 3 * 7 + 20 * 7 * 3
    assert counts.params == 42


def test_operators_that_compute_without_being_counted_are_listed() -> None:
    node = helper.make_node
    model = _model(
        [
            node("Relu", ["lr"], ["a"]),
            node("Mul", ["a", "half"], ["b"]),
            node("Resize", ["b", "", "scales"], ["sr"], mode="cubic"),
        ],
        {"half": np.array(0.5, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)},
    )
    counts = count_onnx(model, lr_size=(8, 8))
    assert counts.uncounted == {"Relu": 1, "Mul": 1, "Resize": 1}
    assert counts.mult_adds == 0
    assert counts.params == 0  # a literal and the factors of a resize are no weights


def test_an_unknown_operator_is_reported_with_its_name() -> None:
    nodes = [
        helper.make_node("Secret", ["lr"], ["side"], name="secret", domain="nobody.knows"),
        helper.make_node("Relu", ["lr"], ["sr"]),
    ]
    model = _model(nodes, {})
    model.opset_import.append(helper.make_opsetid("nobody.knows", 1))
    assert set(count_onnx(model, lr_size=(8, 8)).unknown) == {"secret"}


def test_pictures_with_channels_last_are_measured_along_the_right_axes() -> None:
    node = helper.make_node
    model = _model(
        [
            node("Cast", ["lr"], ["float"], to=TensorProto.FLOAT),
            node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
            node("Conv", ["planes", "w"], ["f"], pads=[1, 1, 1, 1]),
            node("DepthToSpace", ["f"], ["up"], blocksize=2),
            node("Transpose", ["up"], ["pixels"], perm=[0, 2, 3, 1]),
            node("Cast", ["pixels"], ["sr"], to=TensorProto.UINT8),
        ],
        {"w": np.zeros((12, 3, 3, 3), np.float32)},
        dims=("n", "h", "w", 3),
        dtype=TensorProto.UINT8,
    )
    counts = count_onnx(model, lr_size=(9, 5))
    assert counts.sr_size == (18, 10)
    assert counts.mult_adds == 12 * 27 * 45


def _quantised() -> onnx.ModelProto:
    node = helper.make_node
    return _model(
        [
            node("QuantizeLinear", ["lr", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["x"]),
            node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0),
            node("Conv", ["x", "w", "b"], ["sr"], name="conv", pads=[1, 1, 1, 1]),
        ],
        {
            "s": np.array(0.01, np.float32),
            "z": np.array(0, np.int8),
            "wq": np.zeros((3, 3, 3, 3), np.int8),
            "ws": np.ones(3, np.float32),
            "wz": np.zeros(3, np.int8),
            "b": np.zeros(3, np.float32),
        },
    )


def test_quantised_weights_are_parameters_and_their_scales_are_not() -> None:
    counts = count_onnx(_quantised(), lr_size=(8, 8))
    assert counts.params == 81 + 3
    assert counts.layers[-1].precision == "int8"


def test_weights_in_fp8_are_counted_as_such() -> None:
    model = _quantised()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            values = np.zeros(tuple(tensor.dims), np.float32)
            tensor.CopyFrom(tensor_from_values(values, "fp8", tensor.name))
    model.opset_import[0].version = 19
    counts = count_onnx(model, lr_size=(8, 8))
    assert counts.params == 81 + 3
    assert counts.mult_adds == 81 * 64
    assert counts.precision_shares == {"fp8": 1.0}


def test_half_precision_behind_casts_counts_the_same() -> None:
    node = helper.make_node
    model = _model(
        [
            node("Cast", ["lr"], ["half"], to=TensorProto.FLOAT16),
            node("Cast", ["w32"], ["w"], to=TensorProto.FLOAT16),
            node("Conv", ["half", "w"], ["f"], name="conv"),
            node("Cast", ["f"], ["sr"], to=TensorProto.FLOAT),
        ],
        {"w32": np.zeros((3, 3, 1, 1), np.float32)},
    )
    counts = count_onnx(model, lr_size=(8, 8))
    conv = next(layer for layer in counts.layers if layer.name == "conv")
    assert (counts.params, counts.mult_adds, conv.precision) == (9, 9 * 64, "fp16")


def test_a_weight_that_two_nodes_read_is_one_weight() -> None:
    node = helper.make_node
    nodes = [node("Conv", ["lr", "w"], ["a"]), node("Conv", ["a", "w"], ["sr"])]
    model = _model(nodes, {"w": np.zeros((3, 3, 1, 1), np.float32)})
    counts = count_onnx(model, lr_size=(4, 4))
    assert (counts.params, counts.mult_adds) == (9, 2 * 9 * 16)


def test_a_file_of_fixed_size_is_counted_at_its_own() -> None:
    model = _model([helper.make_node("Relu", ["lr"], ["sr"])], {}, dims=(1, 3, 20, 30))
    assert count_onnx(model, lr_size=(640, 360)).lr_size == (30, 20)


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not an onnx file")
    with pytest.raises(InputError, match="Expected a whole ONNX file"):
        count_onnx(path)


def test_a_network_without_a_picture_input_is_refused() -> None:
    model = _model([helper.make_node("Relu", ["lr"], ["sr"])], {}, dims=("n", 10))
    with pytest.raises(InputError, match=r"lr float \(n, 10\); expected one picture"):
        count_onnx(model)
