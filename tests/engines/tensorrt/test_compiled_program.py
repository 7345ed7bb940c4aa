"""Products of compiled engines: of a text by hand, and of engines built here."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.errors import BuildError
from swise_engines.building.builder_config import CompileOptions
from swise_engines.building.compiler import compile_engine
from swise_engines.building.progress import BuildProgress
from swise_engines.tensorrt.compiled_program import check_compiled, products_from_plan
from swise_engines.tensorrt.onnx_source import read_source
from swise_engines.tensorrt.precision_table import PrecisionRow, PrecisionTable
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.precision.quantised.qdq import (
    find_layers,
    quantised_from_fp32,
    rounded_to_nearest,
)
from swise_export.precision.quantised.unsigned import Inputs, find_unsigned, shifted

SMALL = Profile(Extent(1, 8, 8), Extent(1, 16, 12), Extent(2, 32, 24))

# The lines of an engine, shortened; a sum of two convolutions' results is no product.
PROGRAM = b"""\x00\x01descriptors {
  tensor={ alignment=32 dims={ 1 16 64 64 } mem_prop=0 name="x.1" strides={ 64 1 } type=fp8_e4m3 }
  tensor={ alignment=128 dims={ 16 16 3 3 } name="w" offset=3 strides={ 3 1 } type=fp8_e4m3 }
  tensor={ alignment=128 dims={ 16 16 3 3 } name="h" offset=3 strides={ 3 1 } type=half }
  tensor={ alignment=128 dims={ 1 16 64 64 } name="y.1" strides={ 64 1 } type=float }
main {
 label bb1:
  function={ name=__myl_Cast args={ "x.1" } layers="[ONNX Layer: cast]" }
  corrltn={ name="a_U12" output={"y.1" } input={"x.1" "w" "b" } layers="[ONNX Layer: /a/Conv]
[ONNX Layer: node_of_d]" }
  deconvolution={ name="up" output={"h" } input={"h" "h" "bias" } lpadding={ 4 4 } alpha=3F800000 }
  corrltn={ name="a_U12" output={"y.1" } input={"x.1" "w" "b" } layers="[ONNX Layer: /a/Conv]" }
  add={ name="sum" output={"y.1" } input={"y.1" "y.1" } }
\x00\xff"""


@pytest.fixture
def compile_for(rtx, make_onnx, report):
    del rtx

    def run(kind, sm):
        options = CompileOptions("tensorrt_rtx", sm, (SMALL,), "")
        return compile_engine(read_source(make_onnx(kind)), options, BuildProgress(report))

    return run


def test_products_have_the_types_of_their_operands():
    conv, up = products_from_plan(PROGRAM)
    assert (conv.kind, conv.precision, conv.weights, conv.inputs, conv.outputs) == (
        "CONVOLUTION", "fp8", "fp8", ("fp8", "fp8"), ("fp32",),
    )  # fmt: skip
    assert conv.nodes == ("/a/Conv", "d")
    assert (up.kind, up.precision, up.nodes) == ("DECONVOLUTION", "fp16", ("up",))
    assert products_from_plan(b"an engine of another TensorRT") == ()


@pytest.mark.parametrize(
    ("kind", "sm", "shares"),
    [
        ("fp32", "8.6", {"fp32": 1.0}),
        ("bf16", "8.6", {"bf16": 1.0}),
        ("int8", "7.5", {"fp32": 1.0}),
        ("int8", "8.6", {"int8": 1.0}),
        ("fp8", "8.9", {"fp8": 1.0}),
        ("fp8", "12.0", {"fp8": 1.0}),
        # 9 MACs a pixel in the first convolution, 27 * 12 in the second.
        ("mixed", "8.6", {"fp32": 9 / 333, "fp16": 324 / 333}),
    ],
)
def test_engines_multiply_in_what_their_program_states(compile_for, kind, sm, shares):
    compiled = compile_for(kind, sm).compiled
    assert compiled is not None
    found = {row.precision: row.mult_adds_share for row in compiled.rows}
    assert set(found) == set(shares)
    for precision, share in shares.items():
        assert found[precision] == pytest.approx(share, abs=0.05)


def test_unsigned_inputs_leave_convolutions_in_int8(rtx, tmp_path, report):
    del rtx
    rng = np.random.default_rng(0)
    stored = {
        "w1": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((3, 16, 3, 3)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "w1"], ["x"], name="first", pads=[1] * 4),
            helper.make_node("Relu", ["x"], ["y"], name="relu"),
            helper.make_node("Conv", ["y", "w2"], ["sr"], name="second", pads=[1] * 4),
        ],
        "two convolutions",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    layers, _ = find_layers(model)
    unsigned = find_unsigned(model, layers)
    assert unsigned == {"first", "second"}
    ranges, weights = (
        {"first": 1.0, "second": 9.0},
        {x.name: rounded_to_nearest(stored[x.weight], x.channel_axis) for x in layers},
    )
    inputs = shifted(Inputs(model, layers, ranges), unsigned, weights)
    quantised = quantised_from_fp32(
        inputs.model, inputs.layers, ranges=inputs.ranges, weights=weights
    )
    onnx.save(quantised, tmp_path / "unsigned.onnx")
    options = CompileOptions("tensorrt_rtx", "8.6", (SMALL,), "")
    source = read_source(tmp_path / "unsigned.onnx")
    compiled = compile_engine(source, options, BuildProgress(report)).compiled
    assert compiled is not None
    assert {row.precision: row.mult_adds_share for row in compiled.rows} == {"int8": 1.0}


def test_a_deconvolution_in_int8_is_compiled_to_floats(rtx, tmp_path, report):
    """TensorRT for RTX 1.7.1 dequantises its operands, and says nothing."""
    del rtx
    weights = np.random.default_rng(0).integers(-127, 128, (16, 3, 9, 9)).astype(np.int8)
    head = np.random.default_rng(1).standard_normal((16, 3, 3, 3)).astype(np.float32)
    stored: dict[str, np.ndarray] = {
        "w": weights, "head": head,
        "s": np.array(0.01, np.float32), "z": np.array(0, np.int8),
        "ws": np.full(3, 0.01, np.float32), "wz": np.zeros(3, np.int8),
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "head"], ["x"], name="head", pads=[1] * 4),
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="wd", axis=1),
            helper.make_node(
                "ConvTranspose",
                ["d", "wd"],
                ["sr"],
                name="up",
                pads=[4] * 4,
                strides=[2, 2],
                output_padding=[1, 1],
            ),
        ],
        "deconvolution",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "h2", "w2"])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "up.onnx")
    options = CompileOptions("tensorrt_rtx", "8.6", (SMALL,), "")
    compiled = compile_engine(read_source(tmp_path / "up.onnx"), options, BuildProgress(report))
    assert compiled.table.share("int8") > 0.8
    assert compiled.compiled is not None
    assert compiled.compiled.share("int8") == 0
    with pytest.raises(BuildError, match=r"parsed as int8, but the compiled engine multiplies in"):
        check_compiled("int8", compiled.table, compiled.compiled)


def test_an_engine_without_a_program_is_not_refused():
    parsed = PrecisionTable("parsed network", (PrecisionRow("fp8", 2, 1.0, {}),), 0.0)
    none = PrecisionTable("compiled engine", (), 1.0)
    check_compiled("fp8", parsed, none)
    wide = PrecisionTable("compiled engine", (PrecisionRow("fp16", 2, 1.0, {}),), 0.0)
    check_compiled("", parsed, wide)
    with pytest.raises(BuildError, match=r"100\.0% fp16"):
        check_compiled("mixed", parsed, wide)
