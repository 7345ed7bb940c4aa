import copy
from pathlib import Path
from typing import Any

import pytest

from swise_bench.results.document import read_document
from swise_bench.results.regression import compare_documents, differing_conditions
from swise_deploy.errors import InputError


def _document(value: float, low: float, high: float) -> dict[str, Any]:
    ratio = {
        "subject": "new",
        "reference": "torch",
        "lr_size": [160, 90],
        "batch": 1,
        "times_slower": {"value": value, "low": low, "high": high},
    }
    return {"schema_version": 1, "ratios": [ratio], "subjects": []}


def test_a_slowdown_beyond_both_intervals_is_a_regression() -> None:
    (change,) = compare_documents(
        _document(0.50, 0.49, 0.51), _document(0.60, 0.59, 0.61), max_regress=0.05
    )
    assert change.is_regression
    assert change.change == pytest.approx(0.2)
    assert change.least_change == pytest.approx(0.59 / 0.51 - 1)


def test_a_slowdown_that_noise_explains_is_none() -> None:
    (change,) = compare_documents(
        _document(0.50, 0.40, 0.62), _document(0.60, 0.50, 0.70), max_regress=0.05
    )
    assert not change.is_regression


def test_a_speedup_is_no_regression() -> None:
    (change,) = compare_documents(
        _document(0.50, 0.49, 0.51), _document(0.30, 0.29, 0.31), max_regress=0.0
    )
    assert not change.is_regression
    assert change.change < 0


def test_the_allowance_decides() -> None:
    before, now = _document(0.50, 0.50, 0.50), _document(0.54, 0.54, 0.54)
    assert compare_documents(before, now, max_regress=0.05)[0].is_regression
    assert not compare_documents(before, now, max_regress=0.10)[0].is_regression


def test_a_single_subject_is_compared_by_its_median() -> None:
    latency = {
        "lr_size": [160, 90],
        "batch": 1,
        "timing": {"median_ms": {"value": 10.0, "low": 9.9, "high": 10.1}},
    }
    before = {"ratios": [], "subjects": [{"name": "x.onnx", "latencies": [latency]}]}
    now = copy.deepcopy(before)
    now["subjects"][0]["latencies"][0]["timing"]["median_ms"] = {
        "value": 12.0,
        "low": 11.9,
        "high": 12.1,
    }
    assert compare_documents(before, now, max_regress=0.05)[0].is_regression


def test_runs_with_nothing_in_common_are_refused() -> None:
    other = _document(1, 1, 1)
    other["ratios"][0]["lr_size"] = [64, 64]
    with pytest.raises(InputError, match="in both"):
        compare_documents(_document(1, 1, 1), other, max_regress=0.05)


@pytest.mark.parametrize("text", ["{}", '{"schema_version": 99}', "[]", "not json"])
def test_a_baseline_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"old\.json"):
        read_document(path)


def test_another_machine_or_setting_is_named() -> None:
    host = {"device": "", "cpu": "EPYC", "num_cpus": 2, "power_mode": "", "python": "3.11"}
    baseline = {"host": host, "threads": 2}
    current = {"host": {**host, "cpu": "Xeon", "python": "3.12"}, "threads": 4}
    assert differing_conditions(baseline, baseline) == {}
    assert differing_conditions(baseline, current) == {"cpu": ("EPYC", "Xeon"), "threads": (2, 4)}
