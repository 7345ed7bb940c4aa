"""The verdict of a benchmark: one line in words for each subject, and which ones stand out."""

from collections.abc import Sequence
from dataclasses import dataclass

from swise_bench.results.values import (
    Benchmark,
    Latency,
    NotMeasured,
    QualityResult,
    SubjectResult,
)
from swise_deploy.command.console import size_text
from swise_deploy.evaluation.metrics import METRICS
from swise_deploy.timing import Interval

MAIN = next(iter(METRICS))
"""The metric that decides which subject is best."""

SAME_DB = 0.005
"""Differences below this are called the same: half of the last digit that papers print."""

LARGE_DB = 0.1
"""Losses from here on are marked: eyes and tables see them."""

SAME_SHARE = 0.03
"""Sizes and times closer than this are called the same."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One subject in a line.

    Attributes:
        number: Place in the list, from 1: the fastest.
        name: Name of the subject.
        facts: Scale, precision and runtime.
        words: Time, quality and size against the reference.
        share: Time relative to the reference, which itself has 1; None where it was not measured.
        quality: The main metric; None where it was not measured.
        loss: The main metric minus that of the fp32 torch network; None where that is unknown.
        latency_ms: Median latency; None where it was not measured.
        is_reference: True for the subject that the others are compared with.
        is_fastest: True for the fastest, and for what is as fast within the uncertainty.
        is_best: True for the best quality, and for what is as good.
    """

    number: int
    name: str
    facts: str
    words: str
    share: Interval | None
    quality: float | None
    loss: float | None
    latency_ms: float | None
    is_reference: bool
    is_fastest: bool
    is_best: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The verdicts of a run, the fastest first.

    Attributes:
        headline: One or two sentences about all.
        conditions: Size, batch and threads of the times.
        verdicts: One for each subject.
        warning: What a reader has to know about the machine; "" where it was quiet.
        is_reliable: False where even ratios are unreliable: no subject is called the fastest.
    """

    headline: str
    conditions: str
    verdicts: tuple[Verdict, ...]
    warning: str
    is_reliable: bool


def summarize(benchmark: Benchmark) -> Summary:
    """Compare the subjects at the first size and batch that was measured."""
    timed = [subject for subject in benchmark.subjects if subject.latencies]
    is_reliable = benchmark.quietness.reliability != "unreliable"
    reference = timed[0] if timed else None
    shares = _shares(benchmark, timed)
    fastest = _fastest(shares) if is_reliable and len(shares) > 1 else set()
    best = _best(benchmark.subjects)
    ordered = sorted(
        benchmark.subjects, key=lambda s: shares[s.name].value if s.name in shares else float("inf")
    )
    verdicts = tuple(
        Verdict(
            number=number,
            name=subject.name,
            facts=_facts(subject),
            words=_words(subject, reference, shares.get(subject.name)),
            share=shares.get(subject.name),
            quality=_main_value(subject),
            loss=_main_drift(subject),
            latency_ms=subject.latencies[0].timing.p50_ms if subject.latencies else None,
            is_reference=reference is not None and subject.name == reference.name,
            is_fastest=subject.name in fastest,
            is_best=subject.name in best,
        )
        for number, subject in enumerate(ordered, 1)
    )
    return Summary(
        headline=_headline(verdicts, reference, is_reliable=is_reliable),
        conditions=_conditions(benchmark, timed),
        verdicts=verdicts,
        warning=benchmark.quietness.warning,
        is_reliable=is_reliable,
    )


def _shares(benchmark: Benchmark, timed: Sequence[SubjectResult]) -> dict[str, Interval]:
    """Time relative to the reference at the first size and batch."""
    if not timed:
        return {}
    first = timed[0].latencies[0]
    shares = {timed[0].name: Interval(1.0, 1.0, 1.0, 1.0)}
    for ratio in benchmark.ratios:
        if (ratio.lr_size, ratio.batch) == (first.lr_size, first.batch):
            shares.setdefault(ratio.subject, ratio.times_slower)
    return shares


def _fastest(shares: dict[str, Interval]) -> set[str]:
    first = min(shares.values(), key=lambda share: share.value)
    return {name for name, share in shares.items() if share.value <= first.high * (1 + 1e-9)}


def _main_value(subject: SubjectResult) -> float | None:
    quality = _first_quality(subject)
    return None if quality is None else quality.values.get(MAIN)


def _main_drift(subject: SubjectResult) -> float | None:
    quality = _first_quality(subject)
    return None if quality is None else quality.drift.get(MAIN)


def _first_quality(subject: SubjectResult) -> QualityResult | None:
    return None if isinstance(subject.quality, NotMeasured) else subject.quality[0]


def _best(subjects: Sequence[SubjectResult]) -> set[str]:
    """The best of every scale; nobody where all of a scale are as good."""
    best: set[str] = set()
    for scale in {subject.scale for subject in subjects}:
        values = {s.name: v for s in subjects if s.scale == scale and (v := _main_value(s))}
        top = {n for n, v in values.items() if v > max(values.values()) - SAME_DB}
        if len(top) < len(values):
            best |= top
    return best


def _facts(subject: SubjectResult) -> str:
    scale = f"x{subject.scale}" if subject.scale else ""
    runtime = subject.runner.removesuffix(" CPUExecutionProvider")
    return ", ".join(part for part in (scale, subject.precision, runtime) if part)


def _words(subject: SubjectResult, reference: SubjectResult | None, share: Interval | None) -> str:
    if share is None or reference is None:
        return f"not measured: {next(iter(subject.failures.values()), 'the run ended before')}"
    parts = [_time_words(subject, reference, share)]
    parts += _quality_words(subject, reference)
    if subject.name != reference.name and subject.size_bytes and reference.size_bytes:
        parts.append(_size_words(subject.size_bytes / reference.size_bytes))
    return ", ".join(parts)


def _time_words(subject: SubjectResult, reference: SubjectResult, share: Interval) -> str:
    latency = subject.latencies[0]
    if subject.name == reference.name:
        return f"{latency.timing.p50_ms:.4g} ms{_per_call(latency)}"
    if share.low <= 1 <= share.high:
        return f"as fast as {reference.name} ({_interval(share)})"
    if share.value < 1:
        return f"{_share(share.value)} of the time of {reference.name} ({_interval(share)})"
    return f"{share.value:.2f} times the time of {reference.name} ({_interval(share)})"


def _per_call(latency: Latency) -> str:
    return " a picture" if latency.batch == 1 else f" for {latency.batch} pictures"


def _interval(share: Interval) -> str:
    return f"{_share(share.low)} to {_share(share.high)}"


def _share(value: float) -> str:
    """A share with two digits that say something, small ones too."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _quality_words(subject: SubjectResult, reference: SubjectResult) -> list[str]:
    quality, metric = _first_quality(subject), METRICS[MAIN]
    value = None if quality is None else quality.values.get(MAIN)
    if quality is None or value is None:
        return []
    drift = quality.drift.get(MAIN)
    if drift is None:
        return [f"{metric.text(value)} {metric.title} on {quality.images}"]
    if subject.name == reference.name and drift == 0:
        return [f"{metric.text(value)} {metric.title}"]
    own = _main_value(reference)
    if own is not None and abs(value - own - drift) >= SAME_DB:  # another network
        lost = f", {_signed(drift)} by its precision" if abs(drift) >= SAME_DB else ""
        return [f"{metric.text(value)} {metric.title} ({_signed(value - own)}{lost})"]
    return [_drift_words(drift)]


def _drift_words(drift: float) -> str:
    """A change against the network's own fp32 form."""
    metric = METRICS[MAIN]
    if abs(drift) >= SAME_DB:
        return f"{_signed(drift)} {metric.title}"
    shown = f" ({_signed(drift)})" if round(drift, metric.drift_digits) else ""
    return f"same {metric.title}{shown}"


def _signed(drift: float) -> str:
    """A difference of the main metric with its unit; small ones with more digits."""
    metric = METRICS[MAIN]
    digits = metric.drift_digits if abs(drift) < LARGE_DB else metric.digits
    return f"{round(drift, digits) + 0.0:+.{digits}f} {metric.unit}".rstrip()


def _size_words(share: float) -> str:
    if abs(share - 1) < SAME_SHARE:
        return "the same file size"
    for value, word in ((0.5, "half"), (0.25, "a quarter of"), (1 / 3, "a third of")):
        if abs(share / value - 1) < SAME_SHARE * 2:
            return f"{word} the file"
    return f"{share:.2f} of the file" if share < 1 else f"{share:.3g} times the file"


def _headline(
    verdicts: Sequence[Verdict], reference: SubjectResult | None, *, is_reliable: bool
) -> str:
    if reference is None:
        return "Nothing could be measured."
    if not is_reliable:
        return "The times are unreliable: other programs took too much of the machine."
    first = verdicts[0]
    if len([v for v in verdicts if v.share is not None]) == 1:
        return f"{first.name}: {first.words}."
    sentences = []
    fastest = [v for v in verdicts if v.is_fastest]
    if first.is_reference:
        sentences.append(f"{first.name}, the reference, is the fastest.")
    elif first.share is not None:
        also = f" (as is {fastest[1].name})" if len(fastest) > 1 else ""
        sentences.append(
            f"{first.name} is the fastest{also}: {_share(first.share.value)} of the time of "
            f"{reference.name}{_but(first)}."
        )
    best = sorted((v for v in verdicts if v.is_best), key=lambda v: not v.is_reference)
    if best and best[0].quality is not None:
        more = f" ({len(best) - 1} more as good)" if len(best) > 1 else ""
        sentences.append(
            f"Best quality: {best[0].name}{more}, {METRICS[MAIN].text(best[0].quality)} "
            f"{METRICS[MAIN].title}."
        )
    return " ".join(sentences)


def _but(verdict: Verdict) -> str:
    """A loss that has to be read together with the speed."""
    if verdict.loss is None or verdict.loss > -LARGE_DB:
        return ""
    return f", but {_signed(verdict.loss)} {METRICS[MAIN].title}"


def _conditions(benchmark: Benchmark, timed: Sequence[SubjectResult]) -> str:
    if not timed:
        return ""
    first = timed[0].latencies[0]
    rounds = len(first.timing.samples_ms)
    plural = "" if benchmark.threads == 1 else "s"
    return (
        f"LR {size_text(first.lr_size)}, batch {first.batch}, {benchmark.threads} thread{plural}, "
        f"{rounds} rounds in turn; bars: time relative to {timed[0].name}, lines: 95% interval"
    )
