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
from swise_deploy.command.options import CommandParser, add_old_spelling
from swise_deploy.errors import InputError
from swise_export.runtimes.table import DEFAULT_RUNTIME, runtimes_for

_ONNX = [name for name in runtimes_for("onnx") if name != DEFAULT_RUNTIME]

EPILOG = f"""\
examples:
  swise-bench swisenet_x2_fp16.onnx
  swise-bench swisenet:2@deploy swisenet:2@plain swisenet:2@torch --size 160x90
  swise-bench swisenet_x2.onnx swisenet_x2.onnx@openvino --images Set5/HR --html report.html
  swise-bench --suite table1 --data benchmark --weights weights
  swise-bench new.onnx --baseline old.json --max-regress 5%

A subject is ARTEFACT[@RUNNER]: FILE.onnx[@{", @".join([*_ONNX, "auto"])}],
FILE.engine[@{", @".join([*runtimes_for("engine")][1:])}], or NETWORK:SCALE or WEIGHTS with
@{", @".join(runtimes_for("network"))},
@plain, @deploy (-{", -".join(_ONNX)}), or @auto, the fastest of what is installed.
exit codes: 0 done, 1 failed, 2 usage, 3 a runtime is missing, 4 slower than the baseline allows,
5 too noisy to decide whether it is slower
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure artefacts; print and write the results."""
    return run_command(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="swise-bench",
        description="Count and measure the cost and the quality of artefacts; each number states "
        "how it was obtained.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help="ARTEFACT[@RUNNER], see below"
    )
    measure = parser.add_argument_group("what to measure")
    size = measure.add_argument(
        "--size",
        type=parse_size,
        action="append",
        metavar="WxH",
        help="input size of the latency; may be repeated (default: the only one that the file "
        "takes, or 160x90)",
    )
    add_old_spelling(measure, "--lr", size)
    measure.add_argument(
        "--batch",
        type=at_least(1),
        action="append",
        metavar="N",
        help="pictures per call; may be repeated (default: the only number that the file takes, "
        "or 1)",
    )
    measure.add_argument(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="ground truth for PSNR, SSIM and drift; may be repeated",
    )
    measure.add_argument(
        "--lr-images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="the LR pictures of each --images, matched by name (default: MATLAB's bicubic)",
    )
    measure.add_argument("--layers", action="store_true", help="time every layer")
    measure.add_argument("--memory", action="store_true", help="peak memory, each in its process")
    measure.add_argument("--energy", action="store_true", help="joules per frame, with a sensor")
    measure.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME",
        help="predict the latency on a device, in each of its power modes; may be repeated",
    )
    measure.add_argument(
        "--trtexec-results",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="what swise-build --trtexec wrote and a device ran, beside the subjects",
    )
    measure.add_argument("--full", action="store_true", help="all of the above, every device")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--threads",
        type=parse_threads,
        default=num_usable_cpus(),
        metavar="N",
        help="threads of every runtime on the CPU (default: all)",
    )
    how.add_argument(
        "--runs",
        type=at_least(1),
        default=20,
        metavar="N",
        help="least number of rounds (default: 20)",
    )
    how.add_argument(
        "--seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="time for each subject and size (default: 10)",
    )
    how.add_argument(
        "--energy-seconds",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="seconds of rest, and then of work, for each subject (default: 5)",
    )
    cache = how.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for scores and exports (default: the user's cache)",
    )
    add_old_spelling(how, "--cache-dir", cache)
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
        help="as after @ (default: torch); deploy-openvino is the fastest on a CPU",
    )
    output = parser.add_argument_group("results")
    output.add_argument("--json", action="store_true", help="a JSON document on stdout")
    output.add_argument("-o", "--output", type=Path, metavar="FILE", help="the JSON document")
    for kind in ("csv", "markdown", "html"):
        output.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"the report as {kind}")
    output.add_argument("--figure", type=Path, metavar="PNG", help="one crop, every method")
    gate = parser.add_argument_group("regression gate")
    gate.add_argument("--baseline", type=Path, metavar="JSON", help="an earlier --output")
    gate.add_argument(
        "--max-regress", type=_percent, metavar="P%", help="allowed slowdown (default: 5%%)"
    )
    add_version(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    from swise_bench import command  # numpy, onnx and rich take a while
    from swise_bench.config import BenchConfig, Outputs, TableConfig

    outputs = Outputs(
        as_json=options.json,
        document=options.output,
        csv=options.csv,
        markdown=options.markdown,
        html=options.html,
        figure=options.figure,
    )
    if options.suite:
        if options.data is None:
            raise InputError(
                "--suite table1 needs --data DIR, a folder with Set5/HR, Set14/HR, B100/HR, "
                "Urban100/HR"
            )
        return command.run_table1(
            TableConfig(
                data=options.data,
                weights=options.weights,
                networks=tuple(options.network),
                sets=tuple(options.set),
                scales=tuple(options.scale or (2, 3, 4)),
                runner=options.runner,
                threads=options.threads,
                cache=options.cache,
                outputs=outputs,
            )
        )
    return command.run_subjects(
        BenchConfig(
            subjects=tuple(options.subjects),
            lr_sizes=tuple(options.size or ()),
            batches=tuple(options.batch or ()),
            threads=options.threads,
            min_runs=options.runs,
            max_seconds=options.seconds,
            images=tuple(options.images),
            lr_images=tuple(options.lr_images),
            with_memory=options.memory,
            with_energy=options.energy,
            energy_seconds=options.energy_seconds,
            with_layers=options.layers,
            targets=tuple(options.target),
            trtexec_results=tuple(options.trtexec_results),
            is_full=options.full,
            cache=options.cache,
            outputs=outputs,
            baseline=options.baseline,
            max_regress=options.max_regress,
        )
    )


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
