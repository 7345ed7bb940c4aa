"""Strategies that damage valid files: bytes, archives, chunks, documents and graphs."""

import copy
import io
import itertools
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs
from hypothesis import strategies as st
from onnx import TensorProto, helper

Draw = Callable[[st.SearchStrategy[Any]], Any]
Damage = Callable[[Draw, bytes, tuple[bytes, ...]], bytes]

_EXTREME_INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, 2**63 - 1)
_MAX_GROWTH = 1 << 16
_BOMB_BYTES = 1 << 26  # in a thousandth of it


def damage_bytes(draw: Draw, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """Flip, cut, repeat, insert and splice bytes one to four times; the head is hit most."""
    bad = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        _damage_once(draw, bad, others)
    return bytes(bad)


def _damage_once(draw: Draw, bad: bytearray, others: tuple[bytes, ...]) -> None:
    size = len(bad)
    end = draw(st.sampled_from([size, min(size, 64), min(size, 512)]))
    at = draw(st.integers(0, max(0, end - 1)))
    length = draw(st.integers(1, 64))
    action = draw(st.integers(0, 8))
    if action == 0 and size:
        for _ in range(draw(st.integers(1, 8))):
            bad[draw(st.integers(0, max(0, end - 1)))] ^= 1 << draw(st.integers(0, 7))
    elif action == 1:
        del bad[draw(st.integers(0, size)) :]
    elif action == 2:
        bad[at : at + length] = bytes([draw(st.sampled_from([0, 0x7F, 0xFF]))]) * length
    elif action == 3:
        bad[at:at] = draw(st.binary(min_size=1, max_size=64))
    elif action == 4:
        del bad[at : at + length]
    elif action == 5:
        times = draw(st.integers(1, max(1, _MAX_GROWTH // length)))
        bad[at:at] = bad[at : at + length] * times
    elif action == 6:
        other = draw(st.sampled_from(others))
        start = draw(st.integers(0, len(other)))
        bad[at:] = other[start:]
    elif action == 7:
        order = draw(st.sampled_from("<>"))
        kind, limit = draw(st.sampled_from([("H", 2**16), ("I", 2**32), ("Q", 2**64)]))
        value = draw(st.sampled_from(_EXTREME_INTEGERS)) % limit
        packed = struct.pack(order + kind, value)
        bad[at : at + len(packed)] = packed
    else:
        bad[at : at + length] = draw(st.binary(max_size=64))


def damage_archive(draw: Draw, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """Damage one member of a zip, such that its checksum fits; or the archive itself."""
    if not zipfile.is_zipfile(io.BytesIO(data)) or draw(st.integers(0, 3)) == 0:
        return damage_bytes(draw, data, others)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    index = draw(st.integers(0, len(members) - 1))
    described = [i for i, (name, _) in enumerate(members) if name.endswith(".pkl")]
    index = draw(st.sampled_from([index, *described]))
    name, content = members[index]
    action = draw(st.integers(0, 12))
    compression = zipfile.ZIP_STORED
    if action == 0:
        del members[index]
    elif action == 12:
        members[index] = (name, bytes(_BOMB_BYTES))
        compression = zipfile.ZIP_DEFLATED
    elif action == 1:
        members.insert(index, (name, damage_bytes(draw, content, (content,))))
    elif action == 2:
        members[index] = (draw(st.text(max_size=20)) or "x", content)
    else:
        members[index] = (name, damage_bytes(draw, content, tuple(c for _, c in members)))
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", compression) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name.replace("\0", "_"))
            info.compress_type = compression
            archive.writestr(info, content)
    return result.getvalue()


def damage_png(draw: Draw, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """Damage the content of chunks, such that their checksums fit; or the file itself."""
    if draw(st.integers(0, 2)) == 0:
        return damage_bytes(draw, data, others)
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    index = draw(st.integers(0, len(chunks) - 1))
    kind, content = chunks[index]
    action = draw(st.integers(0, 4))
    if action == 0:
        del chunks[index]
    elif action == 1:
        chunks.insert(draw(st.integers(0, len(chunks))), chunks[index])
    elif action == 2 and kind == b"IDAT":
        rows = damage_bytes(draw, zlib.decompress(content), (content,))
        chunks[index] = (kind, zlib.compress(rows))
    elif action == 3:
        kinds = st.sampled_from([b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"zTXt"])
        chunks[index] = (draw(kinds), content)
    else:
        chunks[index] = (kind, damage_bytes(draw, content, (content,)))
    parts = [data[:8]]
    for kind, content in chunks:
        checksum = zlib.crc32(kind + content)
        parts.append(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum))
    return b"".join(parts)


_ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 2**53 + 2, 2**64, -(2**63), 0.5, -0.0, 1e308, 1e-320,
    "", "x", "\x1b[2J", "NaN", "../../x", "\udc80", "int8", "fp64", [], {}, [[]], {"": None},
    [1, "a", None], {"type": "Memory"}, "9" * 5000, [0] * 2000,
)  # fmt: skip
_ODD_TEXTS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 500, "0x10", "'a'", "tru", "{", "[",
    "\\u0000", '"\\ud800"', "//", "\ufeff", "1_000", "1979-05-27", "[" * 3000, '{"a":' * 3000,
)  # fmt: skip


def damage_json(draw: Draw, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """Put values of wrong types into a document, drop keys, nest it; or damage its bytes."""
    action = draw(st.integers(0, 5))
    if action == 0:
        return damage_bytes(draw, data, others)
    try:
        document = json.loads(data)
    except ValueError:
        return damage_bytes(draw, data, others)
    try:
        for _ in range(draw(st.integers(1, 3))):
            document = _with_odd_value(draw, document)
        text = json.dumps(document)
    except RecursionError:  # one nested value within another
        return b"[" * 100_000
    if action == 1:
        numbers = [m.span() for m in re.finditer(r"(?<=[:\[,] )[-\d.e+]+|null|true|\"\w+\"", text)]
        if numbers:
            start, end = draw(st.sampled_from(numbers))
            text = text[:start] + draw(st.sampled_from(_ODD_TEXTS)) + text[end:]
    return text.encode("utf-8", "surrogatepass")


def _with_odd_value(draw: Draw, document: Any) -> Any:
    places = list(_places(document, ()))
    place = draw(st.sampled_from(places))
    result = copy.deepcopy(document)
    if not place:
        return draw(st.sampled_from(_ODD_VALUES))
    parent = result
    for step in place[:-1]:
        parent = parent[step]
    action = draw(st.integers(0, 5))
    if action == 0:
        del parent[place[-1]]
    elif action == 1 and isinstance(parent, dict):
        parent[draw(st.sampled_from(["x", "", "schema_version", "type", "\x1b[31m"]))] = 1
    elif action == 2:
        nested: Any = 0
        as_list = draw(st.booleans())
        for _ in range(draw(st.sampled_from([1, 50, 900]))):
            nested = [nested] if as_list else {"a": nested}
        parent[place[-1]] = nested
    elif action == 3:
        parent[place[-1]] = copy.deepcopy(_at(document, draw(st.sampled_from(places))))
    else:
        parent[place[-1]] = copy.deepcopy(draw(st.sampled_from(_ODD_VALUES)))
    return result


def _places(value: Any, place: tuple[Any, ...]) -> Any:
    yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:4]):
            yield from _places(item, (*place, index))


def _at(document: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        document = document[step]
    return document


def damage_toml(draw: Draw, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """Put values of wrong types into a TOML text; or damage its bytes."""
    if draw(st.integers(0, 3)) == 0:
        return damage_bytes(draw, data, others)
    text = data.decode("utf-8", "replace")
    for _ in range(draw(st.integers(1, 3))):
        values = [m.span(1) for m in re.finditer(r"(?m)=\s*(.+)$", text)]
        if not values:
            break
        start, end = draw(st.sampled_from(values))
        odd = draw(st.sampled_from(_ODD_VALUES))
        written = json.dumps(odd).replace("null", "nan").replace("{", "{ ").replace(": ", " = ")
        text = text[:start] + draw(st.sampled_from([written, *_ODD_TEXTS])) + text[end:]
    return text.encode("utf-8", "surrogatepass")


_ODD_OPERATORS = (
    "Conv", "Relu", "If", "Loop", "Scan", "SequenceMap", "Reshape", "Resize", "Identity", "Concat",
    "DepthToSpace", "Range", "Expand", "ConstantOfShape", "Tile", "Pad", "NonZero", "Nope", "",
    "QuantizeLinear", "Softmax", "GatherND", "RandomNormal", "OptionalGetElement", "StringSplit",
)  # fmt: skip
_ODD_DIMENSIONS = (-1, 0, 1, 2, 7, 255, 65_536, 2**31 - 1, 2**31, 2**40, 2**62)


def damage_onnx(draw: Draw, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """Change nodes, attributes, tensors, ports and metadata of a graph; or damage its bytes."""
    if draw(st.integers(0, 3)) == 0:
        return damage_bytes(draw, data, others)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:  # external data
        return damage_bytes(draw, data, others)
    for _ in range(draw(st.integers(1, 3))):
        draw(st.sampled_from(_GRAPH_CHANGES))(draw, model)
    content: bytes = model.SerializeToString()
    return content


def _change_node(draw: Draw, model: onnx.ModelProto) -> None:
    if not model.graph.node:
        return
    node = draw(st.sampled_from(list(model.graph.node)))
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + [
        "",
        "x",
    ]
    action = draw(st.integers(0, 6))
    if action == 0:
        node.op_type = draw(st.sampled_from(_ODD_OPERATORS))
    elif action == 1 and node.input:
        node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
    elif action == 2 and node.output:
        node.output[draw(st.integers(0, len(node.output) - 1))] = draw(st.sampled_from(names))
    elif action == 3:
        model.graph.node.remove(node)
    elif action == 4:
        node.domain = draw(st.sampled_from(["", "ai.onnx.ml", "com.microsoft", "x", "\x1b[1m"]))
    elif action == 5:
        node.name = draw(st.text(max_size=20))
    else:
        model.graph.node.extend([copy.deepcopy(node)] * draw(st.sampled_from([1, 100, 3000])))


def _change_attribute(draw: Draw, model: onnx.ModelProto) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = draw(st.sampled_from(nodes))
    attribute = draw(st.sampled_from(list(node.attribute)))
    action = draw(st.integers(0, 5))
    if action == 0:
        node.attribute.remove(attribute)
    elif action == 1:
        values = draw(st.lists(st.sampled_from(_ODD_DIMENSIONS), max_size=6))
        attribute.CopyFrom(helper.make_attribute(attribute.name, values, attr_type=7))
    elif action == 2:
        attribute.i = draw(st.sampled_from(_ODD_DIMENSIONS))
    elif action == 3:
        attribute.type = draw(st.integers(0, 14))
    elif action == 4:
        attribute.s = draw(st.binary(max_size=12))
    else:
        attribute.name = draw(st.sampled_from(["pads", "group", "axis", "to", "body", ""]))


def _change_tensor(draw: Draw, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = draw(st.sampled_from(list(model.graph.initializer)))
    action = draw(st.integers(0, 6))
    if action == 0:
        model.graph.initializer.remove(tensor)
    elif action == 1 and tensor.dims:
        index = draw(st.integers(0, len(tensor.dims) - 1))
        tensor.dims[index] = draw(st.sampled_from(_ODD_DIMENSIONS))
    elif action == 2:
        del tensor.dims[:]
    elif action == 3:
        tensor.data_type = draw(st.integers(0, 30))
    elif action == 4:
        tensor.raw_data = tensor.raw_data[: draw(st.integers(0, max(1, len(tensor.raw_data))))]
    elif action == 5:
        tensor.name = draw(st.text(max_size=12))
    else:
        tensor.data_location = TensorProto.EXTERNAL
        places = ["", "x", "../../../etc/passwd", "/dev/zero", "/dev/null", ".", "w" * 300, "\0"]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", draw(st.sampled_from(places))
        entry = tensor.external_data.add()
        entry.key = draw(st.sampled_from(["offset", "length", "checksum"]))
        entry.value = draw(st.sampled_from(["0", "-1", "x", "1e9", str(2**62)]))


def _change_port(draw: Draw, model: onnx.ModelProto) -> None:
    ports = [*model.graph.input, *model.graph.output]
    if not ports:
        return
    port = draw(st.sampled_from(ports))
    tensor = port.type.tensor_type
    action = draw(st.integers(0, 6))
    if action == 0:
        tensor.elem_type = draw(st.integers(0, 24))
    elif action == 1 and tensor.shape.dim:
        dim = draw(st.sampled_from(list(tensor.shape.dim)))
        dim.dim_value = draw(st.sampled_from(_ODD_DIMENSIONS))
    elif action == 2:
        tensor.ClearField("shape")
    elif action == 3:
        del tensor.shape.dim[:]
    elif action == 4:
        port.name = draw(st.text(max_size=8))
    elif action == 5:
        side = draw(st.sampled_from([model.graph.input, model.graph.output]))
        del side[:]
    else:
        model.graph.input.append(copy.deepcopy(port))


def _change_facts(draw: Draw, model: onnx.ModelProto) -> None:
    action = draw(st.integers(0, 3))
    if action == 0:
        model.ir_version = draw(st.sampled_from([0, 1, 3, 99, 2**62]))
    elif action == 1 and model.opset_import:
        model.opset_import[0].version = draw(st.sampled_from([0, 1, 7, 99, 2**62]))
    elif action == 2:
        del model.opset_import[:]
    else:
        entry = model.metadata_props.add()
        keys = ["scale", "io", "precision", "schema_version", "model", "white", "form"]
        entry.key = "swise." + draw(st.sampled_from(keys))
        entry.value = draw(st.sampled_from(["", "0", "-2", "1e9", "9" * 5000, "uint8", "\x1b[2J"]))


def _nest_graph(draw: Draw, model: onnx.ModelProto) -> None:
    depth = draw(st.sampled_from([1, 2, 20]))  # protobuf holds 100 messages in each other
    outer = next((name for node in model.graph.node for name in node.output), "x")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node("Identity", [outer], ["y"])], "g", [], [result])
    kinds = [("If", ("then_branch", "else_branch")), ("Loop", ("body",))]
    kind, attributes = draw(st.sampled_from(kinds))
    for _ in range(depth):
        node = helper.make_node(kind, ["c", "d"][: 3 - len(attributes)], ["y"])
        for name in attributes[: draw(st.integers(1, 2)) if depth == 1 else 1]:
            node.attribute.append(helper.make_attribute(name, inner))
        inner = helper.make_graph([node], "g", [], list(inner.output))
    model.graph.node.append(node)


def _define_function(draw: Draw, model: onnx.ModelProto) -> None:
    names = [f"f{i}" for i in range(draw(st.sampled_from([1, 3, 30])))] + ["Identity"]
    for name, following in itertools.pairwise(names):
        called = draw(st.sampled_from([following, following, name]))
        domain = "" if called == "Identity" else "own"
        nodes = [
            helper.make_node(called, ["a"], ["b"], domain=domain),
            helper.make_node(called, ["b"], ["c"], domain=domain),
        ]
        model.functions.append(
            helper.make_function("own", name, ["a"], ["c"], nodes, list(model.opset_import))
        )
    if model.graph.node:
        node = draw(st.sampled_from(list(model.graph.node)))
        node.op_type, node.domain = "f0", "own"
        model.opset_import.append(helper.make_opsetid("own", 1))


_GRAPH_CHANGES = (
    _change_node, _change_attribute, _change_tensor, _change_port, _change_facts, _nest_graph,
    _define_function,
)  # fmt: skip
