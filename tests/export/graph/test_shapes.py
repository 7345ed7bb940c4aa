import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_export.graph.shapes import shape_graph
from swise_export.graph.values import ValueType


def _model(
    nodes: list[onnx.NodeProto],
    initializers: dict[str, np.ndarray],
    *,
    dims: tuple[int | str, ...] = ("n", 3, "h", "w"),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _resize_by_arithmetic() -> onnx.ModelProto:
    """Output size computed as exporters do, through a float division that ONNX cannot follow."""
    node = helper.make_node
    return _model(
        [
            node("Shape", ["x"], ["shape"], start=2),
            node("Cast", ["shape"], ["shape_f"], to=TensorProto.FLOAT),
            node("Mul", ["shape_f", "ratio"], ["size_f"]),
            node("Floor", ["size_f"], ["size_floor"]),
            node("Cast", ["size_floor"], ["size"], to=TensorProto.INT64),
            node("Concat", ["nc", "size"], ["sizes"], axis=0),
            node("Resize", ["x", "", "", "sizes"], ["y"], mode="cubic"),
        ],
        {"ratio": np.array([1.5], np.float32), "nc": np.array([1, 3], np.int64)},
    )


@pytest.mark.parametrize("size", [(5, 7), (64, 33), (2, 2)])
def test_sizes_computed_in_the_graph_agree_with_a_real_run(size: tuple[int, int]) -> None:
    model = _resize_by_arithmetic()
    inferred = shape_graph(model, {"x": (1, 3, *size)}).types["y"].shape
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (run,) = session.run(None, {"x": np.zeros((1, 3, *size), np.float32)})
    assert inferred == run.shape


@pytest.mark.parametrize(("height", "expected"), [(4, (1, 3, 4, 6)), (5, (1, 3, 6, 6))])
def test_a_condition_on_the_size_takes_the_branch_that_runs(
    height: int, expected: tuple[int, ...]
) -> None:
    node = helper.make_node
    untouched = helper.make_graph(
        [node("Identity", ["x"], ["same"])],
        "then",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    padded = helper.make_graph(
        [node("Pad", ["x", "pads"], ["padded"])],
        "else",
        [],
        [helper.make_tensor_value_info("padded", TensorProto.FLOAT, None)],
    )
    model = _model(
        [
            node("Shape", ["x"], ["height"], start=2, end=3),
            node("Mod", ["height", "two"], ["odd"]),
            node("Equal", ["odd", "zero"], ["is_even"]),
            node("If", ["is_even"], ["y"], then_branch=untouched, else_branch=padded),
        ],
        {
            "two": np.array([2]),
            "zero": np.array([0]),
            "pads": np.array([0, 0, 0, 0, 0, 0, 1, 0]),
        },
    )
    assert shape_graph(model, {"x": (1, 3, height, 6)}).types["y"].shape == expected


def test_an_operator_without_a_rule_is_named_with_its_readers() -> None:
    node = helper.make_node
    model = _model(
        [
            node("Secret", ["x"], ["s"], name="secret", domain="nobody.knows"),
            node("Relu", ["s"], ["y"], name="after"),
        ],
        {},
    )
    model.opset_import.append(helper.make_opsetid("nobody.knows", 1))
    unknown = shape_graph(model, {"x": (1, 3, 4, 4)}).unknown
    assert set(unknown) == {"secret", "after"}


@pytest.mark.parametrize(
    ("dtype", "shape", "size_bytes"),
    [
        (TensorProto.FLOAT, (2, 3), 24),
        (TensorProto.FLOAT16, (2, 3), 12),
        (TensorProto.INT8, (), 1),
        (TensorProto.INT4, (5,), 3),
    ],
)
def test_bytes_follow_from_the_element_type(
    dtype: int, shape: tuple[int, ...], size_bytes: int
) -> None:
    assert ValueType(dtype, shape).size_bytes == size_bytes


def test_a_value_that_cannot_be_evaluated_keeps_its_shape() -> None:
    """Six elements do not go into four; ONNX's rule for the shape does not look."""
    model = _model(
        [
            helper.make_node("Reshape", ["six", "four"], ["sizes"]),
            helper.make_node("Resize", ["x", "", "", "sizes"], ["y"]),
        ],
        {"six": np.ones(6, np.int64), "four": np.array([4], np.int64)},
    )
    shaped = shape_graph(model, {"x": (1, 3, 4, 4)})
    assert shaped.types["sizes"].shape == (4,)
    assert "y" not in shaped.types
    assert any("depends on data" in reason for reason in shaped.unknown.values())
