import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_engines.upscaling.tiles.memory import peak_live_bytes, tile_side
from swise_export.graph.shapes import shape_graph


def test_the_peak_counts_what_is_alive_at_once():
    # At the sum three values of 12 channels are alive: both terms and the result.
    kernels = [
        numpy_helper.from_array(np.zeros((12, 3, 1, 1), np.float32), "grow"),
        numpy_helper.from_array(np.zeros((3, 12, 1, 1), np.float32), "shrink"),
    ]
    nodes = [
        helper.make_node("Conv", ["lr", "grow"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Conv", ["c", "shrink"], ["sr"]),
    ]
    shape = (1, 3, 8, 8)
    graph = helper.make_graph(
        nodes,
        "four nodes",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, shape)],
        kernels,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    shaped = shape_graph(model, {"lr": shape})
    assert peak_live_bytes(shaped, {"sr"}) == 3 * 12 * 64 * 4


@pytest.mark.parametrize(
    ("budget_mib", "cost", "side"),
    [(1, 1, 1024), (1024, 16_384, 256), (100, 20_000, 64), (1, 1e9, 32)],
)
def test_the_largest_square_tile_that_fits(budget_mib, cost, side):
    assert tile_side(budget_mib << 20, cost) == side
