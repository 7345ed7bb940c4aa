"""Stages of small graphs whose Mult-Adds are stated by hand."""

import onnx
import pytest
from onnx import TensorProto, helper

from swise_export.graph.stages import Stage, find_stages


def _node(op_type: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], name=output)


def _model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, "h", "w"))
        for name in ("lr", "sr")
    ]
    return helper.make_model(helper.make_graph(nodes, "graph", infos[:1], infos[1:]))


def _network_on_a_picture() -> onnx.ModelProto:
    return _model(
        _node("Conv", ["lr", "a"], "head"),
        _node("Relu", ["head"], "relu"),
        _node("Conv", ["relu", "b"], "body"),
        _node("Conv", ["body", "c"], "residual"),
        _node("Conv", ["lr", "d"], "bicubic"),
        _node("DepthToSpace", ["bicubic"], "picture"),
        _node("DepthToSpace", ["residual"], "wide"),
        _node("Add", ["wide", "picture"], "sr"),
    )


def test_the_network_lies_between_the_layers_that_read_and_those_that_add_pictures() -> None:
    mult_adds = {"head": 200, "body": 9600, "residual": 100, "bicubic": 100}
    assert find_stages(_network_on_a_picture(), mult_adds) == (
        Stage(("lr",), ("relu", "bicubic"), is_outer=True),
        Stage(("relu",), ("residual",), is_outer=False),
        Stage(("bicubic", "residual"), ("sr",), is_outer=True),
    )


@pytest.mark.parametrize(
    ("head", "bicubic", "first_outputs"),
    [
        (300, 200, ("relu", "bicubic")),
        # Together they exceed 5%; the picture comes first.
        (301, 200, ("bicubic",)),
        (200, 501, ("relu",)),
    ],
)
def test_outer_layers_have_at_most_five_percent_of_the_mult_adds(
    head: int, bicubic: int, first_outputs: tuple[str, ...]
) -> None:
    mult_adds = {"head": head, "body": 10_000 - head - bicubic, "bicubic": bicubic}
    first = find_stages(_network_on_a_picture(), mult_adds)[0]
    assert first.outputs == first_outputs


def test_a_network_that_adds_no_picture_keeps_its_last_layer() -> None:
    model = _model(
        _node("Conv", ["lr", "a"], "body"),
        _node("Conv", ["body", "b"], "last"),
        _node("DepthToSpace", ["last"], "wide"),
        _node("Add", ["wide", "mean"], "sr"),
    )
    assert find_stages(model, {"body": 960, "last": 40}) == (
        Stage(("lr",), ("body",), is_outer=False),
        Stage(("body",), ("sr",), is_outer=True),
    )
    # Arithmetic alone is no stage.
    assert find_stages(model, {"body": 600, "last": 400}) == (
        Stage(("lr",), ("sr",), is_outer=False),
    )


def test_conversions_around_a_network_are_not_its_outer_layers() -> None:
    model = _model(
        _node("Conv", ["lr", "luma"], "y"),
        _node("Conv", ["y", "a"], "first"),
        _node("Conv", ["first", "b"], "body"),
        _node("Conv", ["body", "c"], "last"),
        _node("Conv", ["last", "rgb"], "sr"),
    )
    mult_adds = {"y": 3, "first": 200, "body": 99_600, "last": 185, "sr": 9}
    assert find_stages(model, mult_adds) == (
        Stage(("lr",), ("first",), is_outer=True),
        Stage(("first",), ("body",), is_outer=False),
        Stage(("body",), ("sr",), is_outer=True),
    )


def test_a_picture_that_the_network_reads_and_adds_is_computed_once() -> None:
    # VDSR: the network reads the interpolated picture.
    model = _model(
        _node("Conv", ["lr", "a"], "bicubic"),
        _node("Conv", ["bicubic", "b"], "body"),
        _node("Conv", ["body", "c"], "residual"),
        _node("Add", ["residual", "bicubic"], "sr"),
    )
    mult_adds = {"bicubic": 10, "body": 9000, "residual": 990}
    assert find_stages(model, mult_adds) == (
        Stage(("lr",), ("bicubic",), is_outer=True),
        Stage(("bicubic",), ("residual",), is_outer=False),
        Stage(("bicubic", "residual"), ("sr",), is_outer=True),
    )


def test_arithmetic_on_shapes_belongs_to_the_stage_that_needs_it() -> None:
    model = _model(
        _node("Conv", ["lr", "a"], "head"),
        _node("Conv", ["head", "b"], "body"),
        _node("Shape", ["head"], "size"),
        _node("Mul", ["size", "two"], "double"),
        _node("Conv", ["lr", "c"], "picture"),
        _node("Resize", ["picture", "", "", "double"], "resized"),
        _node("Add", ["body", "resized"], "sr"),
    )
    mult_adds = {"head": 20, "body": 970, "picture": 10}
    assert find_stages(model, mult_adds)[-1] == Stage(
        ("body", "head", "picture"), ("sr",), is_outer=True
    )


def test_what_a_branch_of_an_if_takes_from_outside_is_read() -> None:
    inner = helper.make_graph(
        [_node("Add", ["body", "lr"], "inside")],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    model = _model(
        _node("Conv", ["lr", "a"], "body"),
        helper.make_node("If", ["condition"], ["sr"], then_branch=inner, else_branch=inner),
    )
    assert find_stages(model, {"body": 100}) == (
        Stage(("lr",), ("body",), is_outer=False),
        Stage(("body", "lr"), ("sr",), is_outer=True),
    )
