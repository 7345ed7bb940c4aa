"""Measure this project's export against eager torch, interleaved."""

from swise_bench import Settings, run_benchmark
from swise_bench.subjects.spec import parse_subject

benchmark = run_benchmark(
    Settings(
        subjects=(parse_subject("swisenet:2@deploy"), parse_subject("swisenet:2@torch")),
        lr_sizes=((64, 36),),
        min_runs=9,
        max_seconds=3,
    )
)
for ratio in benchmark.ratios:
    times = ratio.times_slower
    print(
        f"{ratio.subject} takes {times.value:.2f} times as long as {ratio.reference} "
        f"({times.confidence:.0%} interval {times.low:.2f} to {times.high:.2f})"
    )
