"""`swise compare`: two files or networks against each other."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swise_deploy.command.console import (
    add_version,
    finite,
    parse_size,
    parse_threads,
    progress,
    run_command,
    size_text,
)
from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.command.options import CommandParser
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import json_text

if TYPE_CHECKING:
    from swise_bench.verbs.comparison import Comparison

_EPILOG = """examples:
  swise compare swisenet_x2_fp16.onnx swisenet_x2_int8.onnx --images Set5/HR
  swise compare model.onnx model.onnx@openvino
  swise compare swisenet:2@torch swisenet_x2.onnx --json

A and B are subjects as swise-bench takes them. Time is measured in turn, and relative to A.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = CommandParser(
        prog="swise compare",
        description="Compare two files or networks: pixels, PSNR between, quality, time.",
        epilog=_EPILOG,
    )
    parser.add_argument("first", metavar="A", help="a file, or a network with its scale")
    parser.add_argument("second", metavar="B", help="the one to compare with A")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="ground truth (default: the shipped samples)"
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="WxH",
        help="input size of the time (default: the only one that the files take, or 160x90)",
    )
    parser.add_argument(
        "--threads", type=parse_threads, default=num_usable_cpus(), metavar="N", help="default: all"
    )
    parser.add_argument(
        "--seconds", type=finite, default=5.0, metavar="S", help="of timing, for each (default: 5)"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for exports (default: the user's cache)"
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    add_version(parser)
    parsed = parser.parse_args(argv)

    def run() -> int:
        from swise_bench.verbs.comparison import CompareConfig, compare

        comparison = compare(
            CompareConfig(
                first=parsed.first,
                second=parsed.second,
                images=parsed.images,
                lr_size=parsed.size,
                threads=parsed.threads,
                max_seconds=parsed.seconds,
                cache=parsed.cache or cache_folder("bench"),
            )
        )
        _print(comparison, as_json=parsed.json)
        return 0

    return run_command(run)


def _print(comparison: "Comparison", *, as_json: bool) -> None:
    from swise_bench.results.document import plain_value
    from swise_deploy.evaluation.metrics import METRICS

    if as_json:
        sys.stdout.write(json_text(plain_value(comparison)) + "\n")
        return
    worst = comparison.pictures[0]
    between = [p.psnr_db for p in comparison.pictures if p.psnr_db is not None]
    lines = [f"A {comparison.first}", f"B {comparison.second}"]
    lines.append(
        f"pixels    largest difference {worst.max_difference}/255 ({worst.picture}); "
        f"{worst.share_different:.1%} of its values differ"
        if worst.max_difference
        else f"pixels    equal on all {len(comparison.pictures)} pictures"
    )
    if between:
        lines.append(f"between   {min(between):.1f} dB PSNR at least")
    for name, metric in METRICS.items():
        one, other = comparison.first_quality[name], comparison.second_quality[name]
        lines.append(
            f"{metric.title:<9} A {metric.text(one)}, B {metric.text(other)}: "
            f"{other - one:+.{metric.drift_digits}f} on {comparison.images}"
        )
    ratio, latency = comparison.ratio.times_slower, comparison.first_latency
    lines.append(
        f"time      B takes {ratio.value:.2f} of A's ({ratio.low:.2f} to {ratio.high:.2f}); A "
        f"{latency.timing.p50_ms:.4g} ms at LR {size_text(latency.lr_size)}"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    if latency.quietness is not None and latency.quietness.warning:
        progress(f"warning: {latency.quietness.warning}")


if __name__ == "__main__":
    sys.exit(main())
