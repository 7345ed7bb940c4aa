import json

import pytest

from swise_deploy.errors import BuildError
from swise_engines.building.layer_pins import pins_from_layers
from swise_engines.tensorrt.api import Messages, load_tensorrt
from swise_engines.tensorrt.layer_types import (
    SHAPES,
    UNKNOWN,
    layers_from_inspector,
    layers_from_network,
    type_from_format,
)
from swise_engines.tensorrt.onnx_source import read_source
from swise_engines.tensorrt.precision_table import (
    PrecisionRow,
    PrecisionTable,
    check_precision,
    table_from_layers,
)

# MACs a pixel of the two convolutions of the small network at x2: 3*3 and 12*3*9.
FIRST, SECOND = 9, 324


@pytest.fixture
def parse(rtx, make_onnx):
    """Parses a small network with the real parser; gives its layers and counts."""
    del rtx
    trt = load_tensorrt("tensorrt_rtx")

    def run(kind, **options):
        path = make_onnx(kind, **options)
        messages = Messages(trt)
        builder = trt.Builder(messages.sink)
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flag)
        parser = trt.OnnxParser(network, messages.sink)
        assert parser.parse_from_file(str(path)), messages.explain()
        return layers_from_network(trt, network), read_source(path).counts

    return run


def table(parsed):
    layers, counts = parsed
    return table_from_layers(layers, counts, "parsed network")


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_a_uniform_network_is_all_in_its_precision(parse, kind):
    found = table(parse(kind))
    assert found.share(kind) == 1.0
    assert found.precisions == {kind}
    assert found.unattributed_share == 0
    assert found.rows[0].precision == kind
    assert found.rows[0].weights == {kind: 2}


def test_mixed_shares_are_those_of_the_mult_adds(parse):
    found = table(parse("mixed"))
    assert found.share("fp32") == pytest.approx(FIRST / (FIRST + SECOND))
    assert found.share("fp16") == pytest.approx(SECOND / (FIRST + SECOND))


def test_a_layer_tells_its_types_and_its_node(parse):
    layers, _ = parse("fp16")
    second = next(layer for layer in layers if layer.name == "second")
    assert second.kind == "CONVOLUTION"
    assert second.inputs == ("fp16",)
    assert second.outputs == ("fp16",)
    assert second.weights == "fp16"
    assert second.nodes == ("second",)


def test_int8_means_both_operands_come_from_int8(parse):
    layers, _ = parse("int8")
    by_name = {layer.name: layer for layer in layers}
    assert by_name["second"].precision == "int8"
    assert by_name["second"].inputs == ("fp32", "fp32")
    assert by_name["second_q"].precision == "fp32"


@pytest.mark.parametrize("asked", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_another_precision_than_requested_is_an_error(parse, kind, asked):
    found = table(parse(kind))
    if kind == asked:
        check_precision(asked, found)
    else:
        with pytest.raises(BuildError, match=f"{asked} was requested.*100.0% {kind}"):
            check_precision(asked, found)


def test_mixed_asks_for_something_below_fp32(parse):
    check_precision("mixed", table(parse("mixed")))
    with pytest.raises(BuildError, match="below fp32"):
        check_precision("mixed", table(parse("fp32")))


def test_without_a_request_nothing_is_refused(parse):
    check_precision("", table(parse("fp32")))


def test_tensorrt_8_is_given_the_types_of_the_graph_layer_by_layer(parse):
    layers, _ = parse("mixed")
    pins = {layers[pin.layer].name: pin for pin in pins_from_layers(layers)}
    assert (pins["first"].precision, pins["first"].outputs) == ("FLOAT", {0: "FLOAT"})
    assert (pins["second"].precision, pins["second"].outputs) == ("HALF", {0: "HALF"})
    assert pins["second_half"].outputs == {0: "HALF"}
    assert pins["sr"].outputs == {0: "FLOAT"}


def test_int8_multiplications_are_left_to_their_scales(parse):
    layers, _ = parse("int8")
    names = {layers[pin.layer].name for pin in pins_from_layers(layers)}
    assert not names & {"first", "second"}
    assert "shuffled" in names


# Words of the TensorRT developer guide, "Engine inspector", and of NVIDIA/TensorRT issue 4020.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Row major linear FP16 format", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("N/A due to dynamic shapes", "n/a due to dynamic shapes"),
    ],
)
def test_the_inspector_s_words_are_understood(text, expected):
    assert type_from_format(text) == expected


def tensor(words, field="Format/Datatype"):
    return [{"Name": "t", "Dimensions": [1], field: words}]


def inspected(name, words, weights=None, **more):
    types = {"Inputs": tensor(words), "Outputs": tensor(words)}
    entry = {"Name": name, "LayerType": "CaskConvolution", **types}
    return {**entry, **({"Weights": {"Type": weights, "Count": 1}} if weights else {}), **more}


def test_fused_engine_layers_share_out_the_work_of_their_nodes(make_onnx):
    counts = read_source(make_onnx("fp32")).counts
    text = json.dumps(
        {
            "Layers": [
                inspected("first", "Row major linear FP32", "Float"),
                inspected(
                    "a kernel of its own name",
                    "Row major linear FP16 format",
                    "Half",
                    Metadata="[ONNX Layer: second]\x1e[ONNX Layer: shuffled]",
                ),
                inspected("sizes", "Int32"),
            ],
            "Bindings": ["lr", "sr"],
        }
    )
    layers = layers_from_inspector(text)
    assert [layer.precision for layer in layers] == ["fp32", "fp16", SHAPES]
    found = table_from_layers(layers, counts, "built engine")
    assert found.share("fp16") == pytest.approx(SECOND / (FIRST + SECOND))
    assert found.rows[0].weights == {"fp16": 1}


def test_names_joined_by_plus_are_separated(make_onnx):
    counts = read_source(make_onnx("fp32")).counts
    text = json.dumps({"Layers": [inspected("first + second", "Half")]})
    assert table_from_layers(layers_from_inspector(text), counts, "built engine").share("fp16") == 1


def test_work_of_unknown_layers_is_reported(make_onnx):
    counts = read_source(make_onnx("fp32")).counts
    layers = layers_from_inspector(json.dumps({"Layers": [inspected("second", "Half")]}))
    found = table_from_layers(layers, counts, "built engine")
    assert found.unattributed_share == pytest.approx(FIRST / (FIRST + SECOND))


def test_an_engine_that_tells_names_only_is_refused():
    with pytest.raises(BuildError, match="names no types"):
        layers_from_inspector('{"Layers": ["first", "second"]}')


def test_a_layer_list_without_any_type_is_refused_too():
    text = json.dumps(
        {"Layers": [{"Name": "first", "LayerType": "kgen", "Inputs": [{"Name": "t"}]}]}
    )
    with pytest.raises(BuildError, match="names no types"):
        layers_from_inspector(text)


def test_text_that_is_not_json_is_an_error_of_the_build():
    with pytest.raises(BuildError, match="'nothing'; expected JSON"):
        layers_from_inspector("nothing")


# NVIDIA, TensorRT migration guide 10.x to 11.x, "IEngineInspector JSON output": the field of format
# and type is split there.
@pytest.mark.parametrize(
    "fields",
    [
        {"Format/Datatype": "Half"},
        {"DataType": "Half", "Format": "Row major linear FP16 format (kLINEAR)"},
        {"Format": "Channel major FP16 format where channel % 8 == 0"},
    ],
)
def test_types_are_found_where_tensorrt_8_10_and_11_put_them(fields):
    text = json.dumps({"Layers": [{"Name": "first", "Inputs": [fields], "Outputs": [fields]}]})
    (layer,) = layers_from_inspector(text)
    assert (layer.inputs, layer.outputs, layer.precision) == (("fp16",), ("fp16",), "fp16")


@pytest.mark.parametrize("is_escaped", [True, False])
def test_joined_nodes_are_separated_by_either_separator(is_escaped):
    names = "[ONNX Layer: one]\x1f[ONNX Layer: two]\x1e[ONNX Layer: three]"
    text = json.dumps({"Layers": [inspected("a kernel", "Half", Metadata=names)]})
    if not is_escaped:
        text = text.replace("\\u001f", "\x1f").replace("\\u001e", "\x1e")
    (layer,) = layers_from_inspector(text)
    assert layer.nodes == ("one", "two", "three")


@pytest.mark.parametrize(
    ("reads", "writes", "weights", "precision"),
    [
        ("Float", "Half", None, UNKNOWN),  # the cast may come before the product
        ("Float", "Half", "Half", "fp16"),
        ("Half", "Float", None, "fp16"),
        ("Int8", "Half", None, "int8"),
        ("Half", "Half", "Int8", "int8"),
        ("Float", "Float", None, "fp32"),
        ("Int32", "Int32", None, SHAPES),
    ],
)
def test_the_precision_of_a_kernel_follows_from_its_inputs_and_weights(
    reads, writes, weights, precision
):
    entry = inspected("second", reads, weights, Outputs=tensor(writes))
    known = inspected("first", "Half")
    assert layers_from_inspector(json.dumps({"Layers": [known, entry]}))[1].precision == precision


def test_the_kernel_with_the_weights_counts_not_the_one_that_moves_its_data(make_onnx):
    counts = read_source(make_onnx("fp32")).counts
    node = "[ONNX Layer: second]"
    text = json.dumps(
        {
            "Layers": [
                inspected("first", "Half", "Half"),
                inspected("a move", "Float", Metadata=node),
                inspected("a product", "Half", "Half", Metadata=node),
            ]
        }
    )
    found = table_from_layers(layers_from_inspector(text), counts, "built engine")
    assert found.share("fp16") == 1


def engine_table(share_of, unattributed):
    rows = tuple(PrecisionRow(name, 1, share, {}) for name, share in share_of.items())
    return PrecisionTable("built engine", rows, unattributed)


@pytest.mark.parametrize(
    ("asked", "known", "unknown"),
    [
        ("fp16", {"fp16": 0.3}, 0.7),
        ("fp16", {"fp16": 0.85, "fp32": 0.05}, 0.1),
        ("fp32", {"fp32": 0.3}, 0.7),
        ("int8", {"int8": 0.4, "fp16": 0.5}, 0.1),
        ("mixed", {"fp32": 0.9}, 0.1),
    ],
)
def test_an_engine_is_not_refused_for_what_is_unknown(asked, known, unknown):
    check_precision(asked, engine_table(known, unknown))


@pytest.mark.parametrize(
    ("asked", "known", "unknown"),
    [
        ("fp16", {"fp16": 0.5, "fp32": 0.3}, 0.2),
        ("int8", {"int8": 0.2, "fp16": 0.6}, 0.2),
        ("fp32", {"fp32": 0.9, "fp16": 0.1}, 0.0),
        ("mixed", {"fp32": 1.0}, 0.0),
    ],
)
def test_an_engine_is_refused_for_what_is_known(asked, known, unknown):
    with pytest.raises(BuildError, match=f"{asked} was requested, but the built engine"):
        check_precision(asked, engine_table(known, unknown))
