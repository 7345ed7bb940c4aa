"""JSON documents against hand-written ones: what fits is read, everything else is refused."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swise_deploy.errors import InputError
from swise_deploy.storage.documents import (
    Count,
    Positive,
    document_from_json,
    document_from_value,
    read_cached_lines,
    read_document,
    write_document,
)


@dataclass(frozen=True, slots=True)
class Layer:
    mult_adds: Count
    range: float


@dataclass(frozen=True, slots=True)
class Plan:
    scale: Positive
    precision: Literal["fp32", "fp16"]
    layers: tuple[Layer, ...]
    drift_by_picture: Mapping[str, float] = field(default_factory=dict)
    worst_db: float | None = None
    schema_version: int = 1

    def __post_init__(self) -> None:
        if self.scale == 13:
            raise InputError("scale 13 is not served; expected another one")


GOOD: dict[str, Any] = {
    "schema_version": 1,
    "scale": 2,
    "precision": "fp16",
    "layers": [{"mult_adds": 5, "range": 1}],
    "drift_by_picture": {"a.png": -0.5},
}


def read(document: object, folder: Path) -> Plan:
    path = folder / "plan.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_document(path, Plan, what="the plan", advice="Make it again", schema_version=1)


def test_a_valid_document_is_parsed(tmp_path: Path) -> None:
    expected = Plan(2, "fp16", (Layer(5, 1.0),), {"a.png": -0.5})
    assert read(GOOD, tmp_path) == expected
    write_document(tmp_path / "again.json", expected)
    assert json.loads((tmp_path / "again.json").read_text()) == {**GOOD, "worst_db": None}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scale": 0}, "scale"),
        ({"scale": "2"}, "scale"),
        ({"scale": 2.5}, "scale"),
        ({"scale": True}, "scale"),
        ({"scale": None}, "scale"),
        ({"scale": 10**30}, "scale"),
        ({"scale": 13}, "scale 13"),
        ({"precision": "fp17"}, "precision"),
        ({"layers": {"mult_adds": 5}}, "layers"),
        ({"layers": [{"mult_adds": -1, "range": 1}]}, "mult_adds"),
        ({"layers": [{"mult_adds": 1}]}, "range"),
        ({"layers": [{"mult_adds": 1, "range": 1, "colour": 2}]}, "colour"),
        ({"layers": ["text"]}, "layers"),
        ({"drift_by_picture": {"a.png": "x"}}, "drift_by_picture"),
        ({"colour": "red"}, "colour"),
        ({"schema_version": 2}, "schema_version is 2"),
        ({"schema_version": "1"}, "schema_version is '1'"),
    ],
)
def test_a_wrong_key_type_or_value_is_refused_by_name(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=named) as refused:
        read({**GOOD, **change}, tmp_path)
    assert "plan.json" in str(refused.value)
    assert "Make it again" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps(GOOD).replace("-0.5", "NaN"),
        json.dumps(GOOD).replace("-0.5", "1e999"),
        json.dumps(GOOD).replace('"scale": 2', '"scale": ' + "1" * 5000),
    ],
    ids=["empty", "list", "null", "cut", "nested", "nested keys", "nan", "huge", "5000 digits"],
)
def test_other_documents_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan\.json"):
        read(text, tmp_path)


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b'{"scale": "\xff\xfe"}')
    with pytest.raises(InputError, match=r"plan\.json"):
        read_document(path, Plan, what="the plan", advice="Make it again")


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(" " * 2000)
    with pytest.raises(InputError, match=r"2,000 bytes; expected at most 1,000"):
        read_document(path, Plan, what="the plan", advice="Make it again", max_bytes=1000)


def test_control_characters_of_a_document_are_escaped_in_the_message(tmp_path: Path) -> None:
    for change in ({"\x1b[31m": 1}, {"precision": "\x1b[31m"}):
        with pytest.raises(InputError) as refused:
            read({**GOOD, **change}, tmp_path)
        assert str(refused.value).isprintable()


def test_numbers_that_json_lacks_become_null() -> None:
    document = document_from_value(Plan(2, "fp32", (), {"a.png": math.inf}, math.nan))
    assert document["drift_by_picture"] == {"a.png": None}
    assert document["worst_db"] is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(key=st.sampled_from(sorted(GOOD)), value=ANYTHING)
def test_any_value_in_any_place_is_read_or_refused(key: str, value: object) -> None:
    try:
        plan = document_from_json(json.dumps({**GOOD, key: value}), Plan, schema_version=1)
    except ValueError:
        return
    assert isinstance(plan, Plan)
    assert isinstance(plan.scale, int)
    assert plan.precision in ("fp32", "fp16")
    assert all(isinstance(layer, Layer) for layer in plan.layers)


def test_cached_lines_are_read_where_they_are_whole_and_the_users_own(tmp_path, caplog):
    path = tmp_path / "scores.jsonl"
    assert read_cached_lines(path, dict[str, int]) == []
    path.write_bytes(b'{"a": 1}\n\n{"a": "x"}\n\xff\n' + b"[" * 10_000 + b'\n{"b": 2}')
    assert read_cached_lines(path, dict[str, int]) == [{"a": 1}, {"b": 2}]
    path.chmod(0o666)
    assert read_cached_lines(path, dict[str, int]) == []
    assert "can be written by other users" in caplog.text
