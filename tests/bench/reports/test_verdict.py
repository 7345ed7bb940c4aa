"""The verdict in words, on results whose numbers are set by hand."""

import dataclasses

import pytest

from swise_bench.reports.names import short_names, without_paths
from swise_bench.reports.terminal import bar
from swise_bench.reports.verdict import Summary, summarize
from swise_bench.results.host import Quietness
from swise_bench.results.values import Benchmark, NotMeasured, QualityResult, Ratio, SubjectResult
from swise_deploy.timing import Interval

QUIET = Quietness(0.0, 0.1, throttled=False)


def _subject(
    subject: SubjectResult, name: str, *, psnr: float, drift: float | None, size: int
) -> SubjectResult:
    assert not isinstance(subject.quality, NotMeasured)
    quality = QualityResult(
        "Set5",
        {"psnr_y_db": psnr, "ssim_y": 0.9},
        {} if drift is None else {"psnr_y_db": drift, "ssim_y": 0.0},
        subject.quality[0].pictures,
    )
    return dataclasses.replace(subject, name=name, quality=(quality,), size_bytes=size)


def _summary(
    run: Benchmark,
    *,
    share: tuple[float, float, float],
    drift: float | None = -0.0003,
    size: int = 500,
    quietness: Quietness = QUIET,
) -> Summary:
    """A reference "torch" of 38 dB and 1000 bytes against "fp16"."""
    first, second = run.subjects
    latency = first.latencies[0]
    subjects = (
        _subject(first, "torch", psnr=38.0, drift=0.0, size=1000),
        _subject(second, "fp16", psnr=38.0 + (drift or 0.0), drift=drift, size=size),
    )
    interval = Interval(*share, 0.95)
    ratio = Ratio("fp16", "torch", latency.lr_size, latency.batch, interval, interval, QUIET)
    return summarize(
        dataclasses.replace(run, subjects=subjects, ratios=(ratio,), quietness=quietness)
    )


def _words(summary: Summary, name: str = "fp16") -> str:
    return next(verdict.words for verdict in summary.verdicts if verdict.name == name)


def test_another_network_is_compared_with_the_reference_and_not_with_itself(
    benchmark_run: Benchmark,
) -> None:
    summary = _summary(benchmark_run, share=(0.0031, 0.0028, 0.012), drift=0.0)
    other = dataclasses.replace(benchmark_run.subjects[1], name="fp16")
    for drift, words in (
        (0.0, "36.95 dB PSNR-Y (-1.05 dB)"),
        (-0.2, "36.95 dB PSNR-Y (-1.05 dB, -0.20 dB by its precision)"),
    ):
        peer = _subject(other, "fp16", psnr=36.95, drift=drift, size=500)
        first = _subject(benchmark_run.subjects[0], "torch", psnr=38.0, drift=0.0, size=1000)
        latency = first.latencies[0]
        interval = Interval(0.0031, 0.0028, 0.012, 0.95)
        ratio = Ratio("fp16", "torch", latency.lr_size, latency.batch, interval, interval, QUIET)
        run = dataclasses.replace(
            benchmark_run, subjects=(first, peer), ratios=(ratio,), quietness=QUIET
        )
        found = _words(summarize(run))
        assert found.startswith("0.0031 of the time of torch (0.0028 to 0.012), ")
        assert words in found
    assert "same PSNR-Y" in _words(summary)


def test_time_quality_and_size_are_one_line(benchmark_run: Benchmark) -> None:
    summary = _summary(benchmark_run, share=(0.81, 0.78, 0.85))
    assert _words(summary) == (
        "0.81 of the time of torch (0.78 to 0.85), same PSNR-Y (-0.0003 dB), half the file"
    )
    first = summary.verdicts[0]
    assert (first.name, first.is_fastest, first.number) == ("fp16", True, 1)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        ((1.4, 1.3, 1.5), "1.40 times the time of torch"),
        ((1.02, 0.95, 1.1), "as fast as torch"),
        ((0.5, 0.49, 0.51), "0.50 of the time of torch"),
    ],
)
def test_what_lies_within_the_uncertainty_is_called_as_fast(
    benchmark_run: Benchmark, share: tuple[float, float, float], words: str
) -> None:
    assert _words(_summary(benchmark_run, share=share)).startswith(words)


def test_a_loss_stands_in_the_headline_beside_the_speed(benchmark_run: Benchmark) -> None:
    summary = _summary(benchmark_run, share=(0.3, 0.29, 0.31), drift=-3.9)
    assert "0.30 of the time of torch, but -3.90 dB PSNR-Y" in summary.headline
    assert "Best quality: torch" in summary.headline
    assert [v.name for v in summary.verdicts if v.is_best] == ["torch"]


def test_both_are_marked_fastest_where_their_intervals_overlap(benchmark_run: Benchmark) -> None:
    summary = _summary(benchmark_run, share=(0.98, 0.9, 1.05))
    assert all(verdict.is_fastest for verdict in summary.verdicts)


def test_under_noise_nobody_is_called_the_fastest(benchmark_run: Benchmark) -> None:
    noisy = Quietness(0.93, 24.0, throttled=False)
    summary = _summary(benchmark_run, share=(0.1, 0.1, 0.1), quietness=noisy)
    assert not any(verdict.is_fastest for verdict in summary.verdicts)
    assert "unreliable" in summary.headline


def test_equal_quality_has_no_best(benchmark_run: Benchmark) -> None:
    summary = _summary(benchmark_run, share=(0.5, 0.5, 0.5), drift=0.001)
    assert not any(verdict.is_best for verdict in summary.verdicts)


def test_short_names_keep_what_tells_them_apart() -> None:
    names = ["/data/a/net.onnx", "/data/b/net.onnx", "/data/b/other.onnx@openvino", "swisenet:2"]
    assert list(short_names(names).values()) == [
        "a/net.onnx",
        "b/net.onnx",
        "other.onnx@openvino",
        "swisenet:2",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("swise-bench /home/me/x/net.onnx@openvino --images ../sets/Set5/HR",
         "swise-bench net.onnx@openvino --images HR"),
        ("cannot read '/tmp/a/net.onnx': no", "cannot read 'net.onnx': no"),
        ("times 1/2 of https", "times 1/2 of https"),
    ],
)  # fmt: skip
def test_paths_in_texts_are_cut_down_to_names(text: str, shown: str) -> None:
    assert without_paths(text) == shown


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "████"), (0.5, "██"), (0.0, "▏"), (0.28125, "█▏")]
)
def test_a_bar_is_drawn_in_eighths(share: float, text: str) -> None:
    assert bar(share, width=4) == text
