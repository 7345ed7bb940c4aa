"""`swise deploy`: a checkpoint to a measured engine in one command."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from swise_deploy.command.console import add_version, finite, parse_threads, run_command
from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.command.options import CommandParser, add_precisions
from swise_deploy.storage.files import json_text

_EPILOG = """examples:
  swise deploy --target rtx-4090                       the shipped SwiseNet x2, fp16
  swise deploy weights.pth --target sm86 --int8
  swise deploy weights.pth --target jetson-orin-nano --images DIR --dry-run

An engine that cannot be built here (a Jetson's, or without TensorRT) is reported, and the ONNX file
is measured. exit codes: as for swise-export, swise-build and swise-bench
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parsed = _parser().parse_args(argv)

    def run() -> int:
        from swise_bench.verbs.deployment import DeployConfig, deploy, plan_deployment

        config = DeployConfig(
            target=parsed.target,
            weights=parsed.checkpoint,
            model=parsed.model,
            scale=parsed.scale,
            precision=parsed.precision,
            max_drift_db=parsed.max_drift,
            images=parsed.images,
            out=parsed.output,
            threads=parsed.threads,
            max_seconds=parsed.seconds,
            is_dry=parsed.dry_run,
        )
        if config.is_dry:
            sys.stdout.write("\n".join(plan_deployment(config)) + "\n")
            return 0
        # The steps print their own reports, which are no part of the JSON.
        with contextlib.redirect_stdout(sys.stderr if parsed.json else sys.stdout):
            done = deploy(config)
        sys.stdout.write(
            json_text(
                {
                    "onnx": str(done.onnx),
                    "engine": None if done.engine is None else str(done.engine),
                    "engine_reason": done.engine_reason,
                    "report": str(done.report),
                }
            )
            + "\n"
            if parsed.json
            else f"{done.onnx}\n{done.engine or f'no engine: {done.engine_reason}'}\n"
            f"{done.report}\n"
        )
        return 0

    return run_command(run)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="swise deploy",
        description="Export a checkpoint, build an engine, verify and measure both, write a page.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, metavar="CHECKPOINT", help="default: shipped weights"
    )
    parser.add_argument(
        "--target",
        required=True,
        metavar="NAME",
        help="the device (required); see swise list",
    )
    add_precisions(parser, default="fp16")
    parser.add_argument("--model", metavar="NAME", help="network (recognised from the weights)")
    parser.add_argument("--scale", type=int, metavar="N", help="default: the network's own, or 2")
    parser.add_argument("--images", type=Path, metavar="DIR", help="ground truth to verify on")
    parser.add_argument(
        "--max-drift",
        type=finite,
        default=0.05,
        metavar="DB",
        help="PSNR-Y that may be lost on average (default: 0.05)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder of the files (default: .)",
    )
    parser.add_argument(
        "--threads", type=parse_threads, default=num_usable_cpus(), metavar="N", help="all"
    )
    parser.add_argument(
        "--seconds",
        type=finite,
        default=10.0,
        metavar="S",
        help="of timing, for each (default: 10)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the steps, make nothing")
    parser.add_argument("--json", action="store_true", help="the files as JSON on stdout")
    add_version(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
