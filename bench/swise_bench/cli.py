"""The `swise-bench` command."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from swise_deploy.command.console import (
    add_version,
    at_least,
    finite,
    parse_size,
    parse_threads,
    run_command,
)
from swise_deploy.command.cpus import num_usable_cpus

EPILOG = """\
examples:
  swise-bench swisenet_x2_fp16.onnx
  swise-bench swisenet:2@deploy swisenet:2@plain swisenet:2@torch --lr 160x90
  swise-bench swisenet_x2.onnx swisenet_x2.onnx@openvino --images Set5/HR --html report.html
  swise-bench --suite table1 --data benchmark --weights weights
  swise-bench new.onnx --baseline old.json --max-regress 5%

A subject is ARTEFACT[@RUNNER]: FILE.onnx[@cuda, @openvino, @ncnn, @auto], FILE.engine[@no-graphs,
@pycuda, @trtexec], or NETWORK:SCALE or WEIGHTS with @torch, @compile (-cuda, -cuda-fp16), @plain,
@deploy (-openvino, -cuda, -ncnn), @ncnn, or @auto, the fastest of what is installed.
exit codes: 0 done, 1 failed, 2 usage, 3 a runtime is missing, 4 slower than the baseline allows
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure artefacts and print or write what was found."""
    return run_command(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swise-bench",
        description="What artefacts cost and what they are worth: counted and measured, "
        "with how each number was obtained.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="see below")
    measure = parser.add_argument_group("what to measure")
    measure.add_argument(
        "--lr",
        type=parse_size,
        action="append",
        metavar="WxH",
        help="input size of the latency; may be repeated (default: the only one that the file "
        "takes, or 160x90)",
    )
    measure.add_argument(
        "--batch", type=at_least(1), action="append", metavar="N", help="pictures per call (1)"
    )
    measure.add_argument(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="ground truth for PSNR, SSIM and drift; may be repeated",
    )
    measure.add_argument("--layers", action="store_true", help="time every layer")
    measure.add_argument("--memory", action="store_true", help="peak memory, each in its process")
    measure.add_argument("--energy", action="store_true", help="joules per frame, with a sensor")
    measure.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="predict for a device"
    )
    measure.add_argument("--full", action="store_true", help="all of the above, every device")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=parse_threads, default=num_usable_cpus(), metavar="N")
    how.add_argument("--runs", type=at_least(1), default=20, metavar="N", help="at least (20)")
    how.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="per subject and size (10)"
    )
    how.add_argument(
        "--energy-seconds",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="of rest, and then of work, per subject (5)",
    )
    how.add_argument(
        "--cache-dir",
        "--cache",
        dest="cache",
        type=Path,
        metavar="DIR",
        help="scores and exports, kept",
    )
    suite = parser.add_argument_group("the paper's table")
    suite.add_argument("--suite", choices=["table1"])
    suite.add_argument("--data", type=Path, metavar="DIR", help="with Set5/, Set14/, B100/, ...")
    suite.add_argument("--weights", type=Path, metavar="DIR", help="published weights of others")
    suite.add_argument("--network", action="append", default=[], metavar="NAME", help="only these")
    suite.add_argument("--set", action="append", default=[], metavar="NAME", help="only these")
    suite.add_argument(
        "--scale", action="append", type=int, choices=(2, 3, 4), default=[], help="only these"
    )
    suite.add_argument(
        "--runner",
        default="torch",
        metavar="NAME",
        help="as after @ (torch); deploy-openvino is the fastest on a CPU",
    )
    output = parser.add_argument_group("results")
    output.add_argument("--json", action="store_true", help="a JSON document on stdout")
    output.add_argument("-o", "--output", type=Path, metavar="FILE", help="the JSON document")
    for kind in ("csv", "markdown", "html"):
        output.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"the report as {kind}")
    output.add_argument("--figure", type=Path, metavar="PNG", help="one crop, every method")
    gate = parser.add_argument_group("regression gate")
    gate.add_argument("--baseline", type=Path, metavar="JSON", help="an earlier --output")
    gate.add_argument("--max-regress", type=_percent, metavar="P%", help="allowed slowdown (5%%)")
    add_version(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    from swise_bench import command

    if options.suite:
        return command.run_table1(options)
    return command.run_subjects(options)


def _seconds(text: str) -> float:
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected more than 0 seconds")
    return value


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < 10:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a percentage, such as 5%")
    return value


if __name__ == "__main__":
    sys.exit(main())
