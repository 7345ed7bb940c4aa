"""The JSON document of a benchmark run, which other programs read."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from swise_bench.results.values import (
    SCHEMA_VERSION,
    Benchmark,
    Energy,
    Latency,
    Memory,
    NotMeasured,
    Outcome,
    PictureScore,
    QualityResult,
    TrtexecSummary,
)
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import METRICS
from swise_deploy.storage.documents import document_from_json, read_document
from swise_deploy.timing import Timing

_ADVICE = "Give a file that `swise-bench --output` wrote"
_DRIFT = "drift_"
_DERIVED_OF_TIMING = ("p50_ms", "p90_ms", "p99_ms", "median_ms")


def document_from_benchmark(benchmark: Benchmark) -> dict[str, object]:
    """A JSON document; figures that follow from the samples stand beside them."""
    document = plain_value(benchmark)
    assert isinstance(document, dict), "a dataclass becomes an object"
    document["warning"] = benchmark.quietness.warning
    return document


def plain_value(value: object) -> object:
    """A result as JSON types."""
    if isinstance(value, Outcome):
        return {key: plain_value(item) for key, item in msgspec.structs.asdict(value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        document = {f.name: plain_value(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Timing):
            document |= {"p50_ms": value.p50_ms, "p90_ms": value.p90_ms, "p99_ms": value.p99_ms}
            document["median_ms"] = plain_value(value.median_ms)
        if isinstance(value, Latency):
            document["images_per_second"] = value.images_per_second
        if isinstance(value, (PictureScore, QualityResult)):
            del document["values"], document["drift"]
            document |= {name: value.values.get(name) for name in METRICS}
            document |= {f"{_DRIFT}{name}": value.drift.get(name) for name in METRICS}
        if isinstance(value, QualityResult):
            document["worst"] = value.worst.picture
        return document
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_benchmark(path: Path) -> Benchmark:
    """Read a document that `document_from_benchmark` made.

    Raises:
        InputError: It is missing, not JSON, of another schema, or a value in it is wrong.
    """
    what = "the results"
    document = read_document(path, dict[str, Any], what=what, advice=_ADVICE)
    if not {"subjects", "ratios", "host", "threads"} <= document.keys():
        raise InputError(f"{path} is not a result of swise-bench. {_ADVICE}")
    found = document.get("schema_version")
    if found != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {found!r}; expected {SCHEMA_VERSION}, "
            "as `swise-bench --json` writes it. Measure the baseline again with this version"
        )
    try:
        _restore(document)
        return document_from_json(json.dumps(document), Benchmark)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"cannot read {what} {path}: {error}. {_ADVICE}") from error


def _restore(document: dict[str, Any]) -> None:
    """Take out what is derived, and name the kind of what may be missing, in place."""
    for name in ("warning", "predictions", "peak"):
        document.pop(name, None)
    for subject in document["subjects"]:
        _name_kind(subject, "memory", Memory)
        _name_kind(subject["memory"], "device_bytes", None)
        _name_kind(subject, "energy", Energy)
        for name in ("costs", "layer_times", "quality"):
            _name_kind(subject, name, None)
        for latency in subject["latencies"]:
            _name_kind(latency, "device_ms", None)
            latency.pop("images_per_second", None)
            for name in _DERIVED_OF_TIMING:
                latency["timing"].pop(name, None)
        if isinstance(subject["quality"], list):
            for result in subject["quality"]:
                result.pop("worst", None)
                for scored in (result, *result["pictures"]):
                    _nest_metrics(scored)
    for result in document.get("trtexec", []):
        _name_kind(result, "summary", TrtexecSummary)


def _name_kind(parent: dict[str, Any], name: str, kind: type[Outcome] | None) -> None:
    value = parent.get(name)
    if not isinstance(value, dict):
        return
    if "not_measured" in value:
        value["type"] = NotMeasured.__name__
    elif kind is not None:
        value["type"] = kind.__name__


def _nest_metrics(scored: dict[str, Any]) -> None:
    values = {name: scored.pop(name, None) for name in METRICS}
    drift = {name: scored.pop(f"{_DRIFT}{name}", None) for name in METRICS}
    scored["values"] = values
    scored["drift"] = {} if all(value is None for value in drift.values()) else drift
