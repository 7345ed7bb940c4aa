"""Counts of operators and of ways to store weights, against arithmetic by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.errors import InputError
from swise_export.counting import Counts, count_onnx
from swise_export.graph.foreign_shapes import _KEEP_FIRST
from swise_export.graph.operators import einsum_terms

WIDTH, HEIGHT = 8, 6
PIXELS = WIDTH * HEIGHT
node = helper.make_node
generator = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return generator.standard_normal(shape).astype(np.float32)


def counts(
    nodes: list[onnx.NodeProto],
    stored: dict[str, np.ndarray],
    *,
    opset: int = 17,
    fixed: bool = False,
    sparse: tuple[onnx.SparseTensorProto, ...] = (),
) -> Counts:
    """Counts of nodes that make "u" (N, 12, H, W) from "x" (N, 3, H, W)."""
    sides: list[int | str] = [1, 3, HEIGHT, WIDTH] if fixed else ["n", 3, "h", "w"]
    up = node("DepthToSpace", ["u"], ["y"], blocksize=2, mode="CRD")
    graph = helper.make_graph(
        [*nodes, up],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
        sparse_initializer=list(sparse),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return count_onnx(model, lr_size=(WIDTH, HEIGHT))


def convolution(weight: str, *more: str) -> onnx.NodeProto:
    return node("Conv", ["x", weight, *more], ["u"], pads=[1] * 4)


SCALES = {"s": np.full(12, 0.01, np.float32), "z": np.zeros(12, np.int8)}


@pytest.mark.parametrize(
    ("nodes", "stored", "params"),
    [
        pytest.param(
            [
                node("ReduceL2", ["v"], ["norm"], axes=[1, 2, 3]),
                node("Div", ["v", "norm"], ["direction"]),
                node("Mul", ["direction", "g"], ["w"]),
                convolution("w", "b"),
            ],
            {"v": floats(12, 3, 3, 3), "g": floats(12, 1, 1, 1), "b": floats(12)},
            324 + 12 + 12,
            id="weight normalisation",
        ),
        pytest.param(
            [
                node("QuantizeLinear", ["v", "s", "z"], ["q"], axis=0),
                node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),
                convolution("w"),
            ],
            {"v": floats(12, 3, 3, 3), **SCALES},
            324,
            id="fp32 weights before QuantizeLinear",
        ),
        pytest.param(
            [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0), convolution("w")],
            {"q": np.ones((12, 3, 3, 3), np.int8), **SCALES},
            324,
            id="stored int8 weights",
        ),
        pytest.param(
            [node("Concat", ["v1", "v2"], ["w"], axis=0), convolution("w")],
            {"v1": floats(6, 3, 3, 3), "v2": floats(6, 3, 3, 3)},
            324,
            id="a kernel joined of two",
        ),
        pytest.param(
            [node("Gather", ["table", "rows"], ["w"], axis=0), convolution("w")],
            {"table": floats(20, 3, 3, 3), "rows": np.arange(12)},
            540,
            id="rows of a table",
        ),
        pytest.param(
            [
                node("Conv", ["x", "w1"], ["f"], pads=[1] * 4),
                node("Conv", ["f", "w2"], ["g"], pads=[1] * 4),
                node("Conv", ["g", "w"], ["u"], pads=[1] * 4),
            ],
            {
                **dict.fromkeys(("w1", "w2"), floats(3, 3, 3, 3)),
                "w": floats(12, 3, 3, 3),
            },
            81 + 324,
            id="one kernel stored twice",
        ),
        pytest.param(
            [
                node("Conv", ["x", "w1", "b1"], ["f"], pads=[1] * 4),
                node("Conv", ["f", "w2", "b2"], ["g"], pads=[1] * 4),
                node("Conv", ["g", "w"], ["u"], pads=[1] * 4),
            ],
            {
                "w1": np.zeros((3, 3, 3, 3), np.float32),
                "w2": np.zeros((3, 3, 3, 3), np.float32),
                "b1": np.ones(3, np.float32),
                "b2": np.ones(3, np.float32),
                "w": floats(12, 3, 3, 3),
            },
            2 * (81 + 3) + 324,
            id="untrained layers of equal content",
        ),
        pytest.param(
            [
                node("Shape", ["x"], ["size"]),
                node("Cast", ["size"], ["sides"], to=TensorProto.FLOAT),
                node("Mul", ["sides", "factors"], ["wanted"]),
                node("Cast", ["wanted"], ["shape"], to=TensorProto.INT64),
                node("Resize", ["x", "", "", "shape"], ["r"]),
                node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
                node("Conv", ["p", "w"], ["u"], pads=[1] * 4),
            ],
            {"factors": np.array([1, 1, 2, 2], np.float32), "w": floats(12, 3, 3, 3)},
            324,
            id="arithmetic on sizes",
        ),
    ],
)
def test_weights_count_as_they_are_stored_before_the_graph_transforms_them(
    nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], params: int
) -> None:
    assert counts(nodes, stored).params == params


def test_a_sparse_weight_counts_its_stored_elements_and_multiplies_as_a_dense_one() -> None:
    values = numpy_helper.from_array(floats(50), "w")
    places = numpy_helper.from_array(np.arange(0, 300, 6, dtype=np.int64), "places")
    sparse = helper.make_sparse_tensor(values, places, [12, 3, 3, 3])
    found = counts([convolution("w")], {}, sparse=(sparse,))
    assert (found.params, found.mult_adds) == (50, 324 * PIXELS)


ROWS = [
    node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
    node("Reshape", ["t", "to_rows"], ["rows"]),
]
FROM_ROWS = [
    node("Reshape", ["found", "to_picture"], ["planes"]),
    node("Transpose", ["planes"], ["u"], perm=[0, 3, 1, 2]),
]
ROW_SHAPES = {
    "to_rows": np.array([HEIGHT, WIDTH, 3]),
    "to_picture": np.array([1, HEIGHT, WIDTH, 12]),
}


@pytest.mark.parametrize(
    ("nodes", "stored", "mult_adds"),
    [
        pytest.param(
            [
                *ROWS,
                node("GRU", ["rows", "W", "R"], ["found"], hidden_size=12),
                *FROM_ROWS,
            ],
            {"W": floats(1, 36, 3), "R": floats(1, 36, 12), **ROW_SHAPES},
            PIXELS * 36 * (3 + 12),
            id="GRU",
        ),
        pytest.param(
            [
                *ROWS,
                node(
                    "LSTM", ["rows", "W", "R"], ["found"], hidden_size=6, direction="bidirectional"
                ),
                *FROM_ROWS,
            ],
            {"W": floats(2, 24, 3), "R": floats(2, 24, 6), **ROW_SHAPES},
            2 * PIXELS * 24 * (3 + 6),
            id="LSTM in both directions",
        ),
        pytest.param(
            [
                node("Conv", ["x", "wo"], ["offsets"], pads=[1] * 4),
                node("DeformConv", ["x", "w", "offsets"], ["u"], pads=[1] * 4, kernel_shape=[3, 3]),
            ],
            {"wo": floats(18, 3, 3, 3), "w": floats(12, 3, 3, 3)},
            PIXELS * (18 + 12) * 27,
            id="DeformConv",
        ),
        pytest.param(
            [
                *ROWS,
                node("MatMul", ["rows", "up"], ["q"]),
                node("Attention", ["q", "q", "q"], ["found"], q_num_heads=4, kv_num_heads=4),
                *FROM_ROWS,
            ],
            {"up": floats(3, 12), **ROW_SHAPES},
            # Six batches of 8 rows: 3x12 each, then 4 heads of 8x8 scores of width 3, twice.
            PIXELS * 36 + HEIGHT * 4 * 8 * 8 * (3 + 3),
            id="Attention of rank 3",
        ),
        pytest.param(
            [node("Einsum", ["x", "w"], ["u"], equation="nc...,cd->nd...")],
            {"w": floats(3, 12)},
            PIXELS * 36,
            id="Einsum with an ellipsis",
        ),
        pytest.param(
            [node("Einsum", ["x", "a", "b"], ["u"], equation="nchw,cd,de->nehw")],
            {"a": floats(3, 5), "b": floats(5, 12)},
            PIXELS * (3 * 5 + 5 * 12),
            id="Einsum of three, two at a time",
        ),
        pytest.param(
            [
                node("FusedConv", ["x", "w"], ["u"], pads=[1] * 4, activation="Relu",
                     domain="com.microsoft")
            ],
            {"w": floats(12, 3, 3, 3)},
            PIXELS * 324,
            id="FusedConv of ONNX Runtime",
        ),
        pytest.param(
            [
                *ROWS,
                node("FusedMatMul", ["rows", "w"], ["found"], transB=1, domain="com.microsoft"),
                *FROM_ROWS,
            ],
            {"w": floats(12, 3), **ROW_SHAPES},
            PIXELS * 36,
            id="FusedMatMul of ONNX Runtime",
        ),
    ],
)  # fmt: skip
def test_every_operator_that_multiplies_counts(
    nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], mult_adds: int
) -> None:
    found = counts(nodes, stored, opset=23, fixed=True)
    assert (found.mult_adds, dict(found.unknown)) == (mult_adds, {})


def body(nodes: list[onnx.NodeProto], goes_on: str = "goes_on") -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [*nodes, node("Identity", [goes_on], ["goes_on_after"])],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("goes_on", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, None),
        ],
        [
            value("goes_on_after", TensorProto.BOOL, []),
            value("state_after", TensorProto.FLOAT, None),
        ],
    )


ROUND = body([node("Conv", ["state", "l"], ["state_after"], pads=[1] * 4)])
YES, FOUR = np.array(True), np.array(4)


def test_a_loop_of_stored_length_counts_every_iteration_and_its_weights_once() -> None:
    loops = [
        node("Loop", ["four", "yes", "x"], ["a"], body=ROUND),
        node("Loop", ["four", "", "a"], ["b"], body=ROUND),  # the same inner names again
    ]
    found = counts(
        [*loops, node("Conv", ["b", "w"], ["u"])],
        {"l": floats(3, 3, 3, 3), "w": floats(12, 3, 1, 1), "four": FOUR, "yes": YES},
    )
    assert found.mult_adds == PIXELS * (2 * 4 * 81 + 36)
    assert found.params == 81 + 36


def test_a_loop_whose_length_depends_on_the_picture_is_not_counted() -> None:
    early = body(
        [
            node("Conv", ["state", "l"], ["state_after"], pads=[1] * 4),
            node("ReduceMax", ["state_after"], ["most"], keepdims=0),
            node("Greater", ["most", "half"], ["bright"]),
        ],
        "bright",
    )
    stored = {"l": floats(3, 3, 3, 3), "w": floats(12, 3, 1, 1), "four": FOUR, "yes": YES}
    nodes = [
        node("Loop", ["four", "yes", "x"], ["a"], name="early", body=early),
        node("Conv", ["a", "w"], ["u"]),
    ]
    with pytest.raises(InputError, match="early"):
        counts(nodes, {**stored, "half": np.array(0.5, np.float32)})


def test_an_operator_in_no_table_is_unknown() -> None:
    found = counts(
        [
            node("Slice", ["x", "from", "to", "axes"], ["square"]),
            node("Det", ["square"], ["d"], name="det"),
            node("ReduceMean", ["d"], ["e"]),
            node("Conv", ["x", "w"], ["f"], pads=[1] * 4),
            node("Mul", ["f", "e"], ["u"]),
        ],
        {
            "w": floats(12, 3, 3, 3),
            "from": np.array([0, 0]),
            "to": np.array([3, 3]),
            "axes": np.array([2, 3]),
        },
    )
    assert found.mult_adds == PIXELS * 324
    assert set(found.unknown) == {"det"}
    assert "Det" in found.unknown["det"]
    assert "Det" not in found.uncounted


@pytest.mark.parametrize(
    ("equation", "ranks", "terms", "result"),
    [
        ("ij,jk->ik", [2, 2], ["ij", "jk"], "ik"),
        ("ij,jk", [2, 2], ["ij", "jk"], "ik"),
        ("b...i , ij", [4, 2], ["b01i", "ij"], "01bj"),
        ("...,...->...", [3, 1], ["012", "2"], "012"),
    ],
)
def test_an_einsum_equation_has_numpy_s_meaning(
    equation: str, ranks: list[int], terms: list[str], result: str
) -> None:
    def spelt(indices: list[str]) -> str:
        return "".join(index.replace("...", "") for index in indices)

    operands, output = einsum_terms(equation, ranks)
    assert ([spelt(term) for term in operands], spelt(output)) == (terms, result)


def test_identity_kernels_of_two_layers_are_two_weights() -> None:
    identity = np.eye(3, dtype=np.float32)[:, :, None, None]
    found = counts(
        [
            node("Conv", ["x", "subtract", "mean"], ["f"]),
            node("Conv", ["f", "add", "back"], ["g"]),
            node("Conv", ["g", "w"], ["u"], pads=[1] * 4),
        ],
        {
            "subtract": identity,
            "add": identity,
            "mean": -np.full(3, 0.4, np.float32),
            "back": np.full(3, 0.4, np.float32),
            "w": floats(12, 3, 3, 3),
        },
    )
    assert found.params == 2 * (9 + 3) + 324


@pytest.mark.parametrize(("rounds", "is_read"), [(4, True), (2**62, False), (None, False)])
def test_a_loop_is_accepted_where_the_file_stores_a_few_iterations(
    tmp_path: Path, rounds: int | None, is_read: bool
) -> None:
    stored = {"l": floats(3, 3, 3, 3), "w": floats(12, 3, 1, 1), "yes": YES}
    if rounds is not None:
        stored["rounds"] = np.array(rounds)
    graph = helper.make_graph(
        [
            node("Loop", ["" if rounds is None else "rounds", "yes", "x"], ["a"], body=ROUND),
            node("Conv", ["a", "w"], ["u"]),
            node("DepthToSpace", ["u"], ["y"], blocksize=2, mode="CRD"),
        ],
        "loop",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    path = tmp_path / "loop.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    if is_read:
        assert count_onnx(path, lr_size=(WIDTH, HEIGHT)).mult_adds == PIXELS * (4 * 81 + 36)
    else:
        with pytest.raises(InputError, match="Loop"):
            count_onnx(path, lr_size=(WIDTH, HEIGHT))


@pytest.mark.parametrize(
    ("norm", "stored", "params"),
    [
        (
            node("GroupNormalization", ["c", "gain", "offset"], ["u"], num_groups=3),
            {"gain": floats(12), "offset": floats(12)},
            24,
        ),
        (node("MeanVarianceNormalization", ["c"], ["u"]), {}, 0),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_a_normalisation_that_onnx_cannot_shape_is_counted(
    norm: onnx.NodeProto, stored: dict[str, np.ndarray], params: int
) -> None:
    conv = node("Conv", ["x", "w"], ["c"], pads=[1] * 4)
    found = counts([conv, norm], {"w": floats(12, 3, 3, 3), **stored}, opset=21)
    assert found.params == 12 * 27 + params
    assert found.mult_adds == PIXELS * 12 * 27
    assert not found.unknown


def test_every_standard_operator_has_a_shape_rule() -> None:
    """Those that ONNX cannot infer have one of ours."""
    latest = (s for s in onnx.defs.get_all_schemas() if not s.domain)
    without = {s.name for s in latest if not s.has_type_and_shape_inference_function}
    assert without <= _KEEP_FIRST
