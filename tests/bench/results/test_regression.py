import dataclasses
import json
from pathlib import Path

import pytest

from swise_bench.results.document import document_from_benchmark, read_benchmark
from swise_bench.results.host import Quietness
from swise_bench.results.regression import compare_benchmarks, differing_conditions
from swise_bench.results.values import Benchmark, Ratio
from swise_deploy.errors import InputError
from swise_deploy.timing import Interval, Timing

QUIET = Quietness(0.0, 0.1, throttled=False)
NOISY = Quietness(0.93, 24.0, throttled=False)


@pytest.fixture
def run(benchmark_run: Benchmark) -> Benchmark:
    """A real run, as if the machine had been quiet."""
    return dataclasses.replace(benchmark_run, quietness=QUIET)


def _with_ratio(
    run: Benchmark, value: float, low: float, high: float, *, quietness: Quietness = QUIET
) -> Benchmark:
    interval = Interval(value, low, high, 0.95)
    ratio = Ratio("new", "torch", (160, 90), 1, interval, interval, quietness)
    return dataclasses.replace(run, ratios=(ratio,))


def test_a_slowdown_beyond_both_intervals_is_a_regression(run: Benchmark) -> None:
    (change,) = compare_benchmarks(
        _with_ratio(run, 0.50, 0.49, 0.51), _with_ratio(run, 0.60, 0.59, 0.61), max_regress=0.05
    )
    assert change.is_regression
    assert change.change == pytest.approx(0.2)
    assert change.least_change == pytest.approx(0.59 / 0.51 - 1)


def test_a_slowdown_that_noise_explains_is_none(run: Benchmark) -> None:
    (change,) = compare_benchmarks(
        _with_ratio(run, 0.50, 0.40, 0.62), _with_ratio(run, 0.60, 0.50, 0.70), max_regress=0.05
    )
    assert not change.is_regression


def test_a_speedup_is_no_regression(run: Benchmark) -> None:
    (change,) = compare_benchmarks(
        _with_ratio(run, 0.50, 0.49, 0.51), _with_ratio(run, 0.30, 0.29, 0.31), max_regress=0.0
    )
    assert not change.is_regression
    assert change.change < 0


def test_the_allowance_decides(run: Benchmark) -> None:
    before, now = _with_ratio(run, 0.50, 0.50, 0.50), _with_ratio(run, 0.54, 0.54, 0.54)
    assert compare_benchmarks(before, now, max_regress=0.05)[0].is_regression
    assert not compare_benchmarks(before, now, max_regress=0.10)[0].is_regression


@pytest.mark.parametrize(("before", "now"), [(QUIET, NOISY), (NOISY, QUIET)])
def test_nothing_is_decided_where_either_run_is_unreliable(
    run: Benchmark, before: Quietness, now: Quietness
) -> None:
    (change,) = compare_benchmarks(
        _with_ratio(run, 0.5, 0.5, 0.5, quietness=before),
        _with_ratio(run, 5.0, 5.0, 5.0, quietness=now),
        max_regress=0.05,
    )
    assert not change.is_regression
    assert "93%" in change.undecided_reason


def _alone(run: Benchmark, milliseconds: float) -> Benchmark:
    first = run.subjects[0]
    timing = Timing((milliseconds,) * 20, milliseconds, 3, is_steady=True)
    latency = dataclasses.replace(first.latencies[0], timing=timing, quietness=QUIET)
    subject = dataclasses.replace(first, latencies=(latency,))
    return dataclasses.replace(run, subjects=(subject,), ratios=())


def test_a_single_subject_is_compared_by_its_median(run: Benchmark) -> None:
    (change,) = compare_benchmarks(_alone(run, 10.0), _alone(run, 12.0), max_regress=0.05)
    assert (change.before, change.now, change.is_regression) == (10.0, 12.0, True)


def test_runs_with_nothing_in_common_are_refused(run: Benchmark) -> None:
    with pytest.raises(InputError, match="in both"):
        compare_benchmarks(_with_ratio(run, 1, 1, 1), _alone(run, 1.0), max_regress=0.05)


@pytest.mark.parametrize("text", ["{}", '{"schema_version": 99}', "[]", "not json"])
def test_a_baseline_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"old\.json"):
        read_benchmark(path)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("threads",), "two"),
        (("subjects", 0, "scale"), 2.5),
        (("subjects", 0, "latencies", 0, "timing", "samples_ms"), ["fast"]),
        (("subjects", 0, "memory"), {"not_measured": 3}),
        (("ratios",), {}),
        (("subjects",), None),
    ],
)
def test_a_value_of_another_type_is_refused(
    run: Benchmark, tmp_path: Path, place: tuple[str | int, ...], wrong: object
) -> None:
    document = json.loads(json.dumps(document_from_benchmark(run)))
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = wrong
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"wrong\.json"):
        read_benchmark(path)


def test_committed_results_of_older_versions_are_read() -> None:
    folder = Path(__file__).resolve().parents[3] / "bench" / "results" / "latency"
    documents = sorted(folder.rglob("*.json"))
    assert documents
    for path in documents:
        assert read_benchmark(path).subjects[0].latencies[0].timing.p50_ms > 0


def test_another_machine_or_setting_is_named(run: Benchmark) -> None:
    host = dataclasses.replace(run.host, cpu="EPYC", python="3.11")
    baseline = dataclasses.replace(run, host=host, threads=2)
    other = dataclasses.replace(host, cpu="Xeon", python="3.12")
    current = dataclasses.replace(run, host=other, threads=4)
    assert differing_conditions(baseline, baseline) == {}
    assert differing_conditions(baseline, current) == {"cpu": ("EPYC", "Xeon"), "threads": (2, 4)}
