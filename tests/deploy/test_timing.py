import itertools
import math
import time

import numpy as np
import pytest

from swise_deploy import timing


def test_median_interval_is_the_textbook_pair_of_order_statistics() -> None:
    # n = 20: the 6th and the 15th value cover the median with probability 0.9586.
    interval = timing.median_interval(range(1, 21))
    assert (interval.value, interval.low, interval.high) == (10.5, 6, 15)
    assert interval.confidence == pytest.approx(0.9586, abs=5e-5)


def test_few_samples_give_their_range_with_a_lower_confidence() -> None:
    interval = timing.median_interval([3.0, 1.0, 2.0])
    assert (interval.low, interval.high) == (1, 3)
    assert interval.confidence == pytest.approx(1 - 2 * 0.5**3)


def test_a_single_sample_has_no_confidence() -> None:
    assert timing.median_interval([5.0]).confidence == 0


@pytest.mark.parametrize("num", [10, 25, 101])
def test_median_interval_covers_the_true_median_as_often_as_stated(num: int) -> None:
    generator = np.random.default_rng(0)
    trials = 2000
    covered = 0
    for _ in range(trials):
        interval = timing.median_interval(generator.exponential(size=num).tolist())
        covered += interval.low <= math.log(2) <= interval.high
    # Three standard deviations of a binomial with 2000 trials.
    slack = 3 * math.sqrt(interval.confidence * (1 - interval.confidence) / trials)
    assert covered / trials == pytest.approx(interval.confidence, abs=slack)
    assert interval.confidence >= 0.95


def test_thousands_of_samples_do_not_underflow() -> None:
    interval = timing.median_interval(range(20001))
    assert interval.value == 10000
    assert 0.95 <= interval.confidence < 0.955


def test_calls_run_in_turn_and_take_turns_at_being_first() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    found = timing.time_calls(calls, min_runs=6, max_seconds=0)
    counted = order[-3 * len(found["a"].samples_ms) :]
    rounds = list(zip(*[iter(counted)] * 3, strict=True))
    assert all(set(one) == set("abc") for one in rounds)
    assert {one[0] for one in rounds} == set("abc")


def test_a_slow_call_is_slower_by_the_ratio_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter_ns", clock.now)
    found = timing.time_calls(
        {"fast": lambda: clock.pass_ms(2), "slow": lambda: clock.pass_ms(6)}, min_runs=20
    )
    assert found["fast"].p50_ms == pytest.approx(2)
    assert timing.ratio(found["slow"], found["fast"]).value == pytest.approx(3)


def test_a_slow_phase_of_the_machine_does_not_change_the_ratio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter_ns", clock.now)
    load = itertools.chain(itertools.repeat(1, 40), itertools.cycle([1, 1, 1, 1, 3, 3, 3, 3]))
    found = timing.time_calls(
        {"a": lambda: clock.pass_ms(2 * next(load)), "b": lambda: clock.pass_ms(next(load))},
        min_runs=40,
        max_seconds=0.2,
    )
    assert timing.ratio(found["a"], found["b"]).value == pytest.approx(2)


def test_the_first_run_and_warm_up_are_not_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter_ns", clock.now)
    durations = itertools.chain([100, 50, 20], itertools.repeat(10))
    found = timing.time_calls({"": lambda: clock.pass_ms(next(durations))})[""]
    assert found.first_ms == pytest.approx(100)
    assert found.is_steady
    assert found.warmup_runs >= 8
    assert max(found.samples_ms) == pytest.approx(10)


def test_times_that_never_settle_are_reported_as_unsteady(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter_ns", clock.now)
    growing = itertools.count(1)
    call = {"": lambda: clock.pass_ms(2.0 ** next(growing))}
    found = timing.time_calls(call, min_runs=5, max_relative_width=math.inf)[""]
    assert not found.is_steady
    assert found.warmup_runs == timing.MAX_WARMUP_RUNS


def test_warm_up_ends_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter_ns", clock.now)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now() / 1e9)
    growing = itertools.count(1)
    found = timing.time_calls({"": lambda: clock.pass_ms(1000 * next(growing))}, max_seconds=1)[""]
    assert found.warmup_runs == timing.MIN_WARMUP_RUNS
    assert len(found.samples_ms) == 5


def test_an_empty_set_of_calls_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to time"):
        timing.time_calls({})


class _Clock:
    """A clock that advances on demand, so that the test does not depend on the machine."""

    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> int:
        return self.ns

    def pass_ms(self, milliseconds: float) -> None:
        self.ns += round(milliseconds * 1e6)


def test_processor_time_excludes_waiting() -> None:
    def work() -> None:
        start = time.process_time()
        while time.process_time() - start < 0.004:
            pass

    def wait_and_work() -> None:
        time.sleep(0.02)
        work()

    found = timing.time_calls({"work": work, "wait": wait_and_work}, min_runs=8, max_seconds=1)
    assert timing.ratio(found["wait"], found["work"]).value > 1.3
    # Waking up costs a little; the clock's own steps are about a microsecond.
    assert timing.cpu_ratio(found["wait"], found["work"]).value == pytest.approx(1, abs=0.15)
