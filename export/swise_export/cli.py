"""`swise-export`: a checkpoint in, a verified ONNX file and its cost out."""

import argparse
import shlex
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
)
from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.command.dependencies import require
from swise_deploy.command.options import CommandParser, add_precisions
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.files import json_text
from swise_export.runtimes.table import DEFAULT_TARGET, RUNTIMES, export_targets
from swise_export.verification.budget import DEFAULT_DRIFT_DB

if TYPE_CHECKING:
    from swise_export.config import ExportRequest

_EPILOG = """examples:
  swise-export --fp16                          shipped SwiseNet x2, half precision
  swise-export --fp16 --scale 4 --io uint8     8-bit pictures in and out
  swise-export --int8 --max-drift 0.1          as much INT8 as 0.1 dB allow, the rest fp16
  swise-export --bf16                          the range of fp32: SM 8.0 and later, Jetson Orin
  swise-export --fp8                           as much FP8 as 0.05 dB allow: SM 8.9 and later
  swise-export --int8 --for openvino           INT8 that is fast and measured in OpenVINO on a CPU
  swise-export my.pth --images DIR             your checkpoint, verified on your pictures
exit codes: 0 done, 1 failed, 2 usage, 3 a backend is missing, 4 a quality gate refused"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.checkpoint is not None and args.weights is not None:
        parser.error(f"{args.checkpoint} and --weights {args.weights}: expected one checkpoint")
    args.weights = args.weights or args.checkpoint

    def run() -> int:
        request = _request(args)
        progress("loading torch and the network")
        job = require("swise_export.job", extra="export", purpose="turning a checkpoint into ONNX")
        from swise_export.report import dict_from_report, text_from_report, warning_from_report

        report = job.export_requested(request, report=progress)
        if warning := warning_from_report(report):
            progress(warning)
        if args.json:
            print(json_text(dict_from_report(report)))
        else:
            print(text_from_report(report))
            progress(f"next: {_next_command(shlex.quote(str(report.artifact)), args.runtime)}")
        return 0

    return run_command(run)


def _next_command(artifact: str, runtime: str) -> str:
    if RUNTIMES[runtime].is_emulated:
        return f"swise-build {artifact} --target NAME   (swise-build --list names them)"
    return f"swise-upscale IN -o OUT --model {artifact} --runner {runtime}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="swise-export",
        description="Export a super-resolution network to ONNX, run the file against the fp32 "
        "torch network on real pictures, and report what it costs.",
        epilog=_EPILOG,
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="CHECKPOINT",
        help="file with the weights; swisenet:2 names shipped ones, the default",
    )
    network.add_argument(
        "--model",
        help="network by name, package.module:factory for any torch network, or spandrel "
        "(default: what the weights are, or swisenet)",
    )
    network.add_argument(
        "--scale", type=int, help="2, 3 or 4 (default: what the weights are for, or 2)"
    )
    network.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the same as CHECKPOINT",
    )
    network.add_argument(
        "--range",
        type=int,
        choices=(1, 255),
        help="the value of white in the network's own pictures (default: found on --images)",
    )
    network.add_argument(
        "--bgr", action="store_true", help="the network takes and gives blue, green, red"
    )
    artefact = parser.add_argument_group("artefact")
    add_precisions(artefact, default="fp32")
    artefact.add_argument(
        "-o", "--output", type=Path, help="NAME.onnx (default: MODEL_xSCALE_PRECISION.onnx)"
    )
    artefact.add_argument(
        "--io",
        choices=("float", "uint8"),
        default="float",
        help="float: (N,3,H,W) in [0,1]; uint8: (N,H,W,3) pictures (default: float)",
    )
    artefact.add_argument(
        "--size", type=parse_size, metavar="WxH", help="only this input size (default: any)"
    )
    artefact.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an artefact of another network or of other settings",
    )
    artefact.add_argument(
        "--plain", action="store_true", help="do not rewrite the network for speed"
    )
    artefact.add_argument(
        "--for",
        dest="runtime",
        choices=export_targets(),
        default=DEFAULT_TARGET,
        help="runtime that the file is made for and measured in; TensorRT's rounding is emulated "
        "(default: tensorrt)",
    )
    int8 = parser.add_argument_group("INT8 and FP8")
    int8.add_argument(
        "--calib",
        type=Path,
        metavar="DIR",
        help="pictures to calibrate and place them on (default: the pictures shipped for it)",
    )
    int8.add_argument(
        "--calib-method",
        choices=("minmax", "percentile", "entropy", "mse"),
        help="how ranges are chosen (default: the one with the least drift; FP8: minmax)",
    )
    int8.add_argument(
        "--precision-plan",
        type=Path,
        metavar="FILE",
        help="replay this placement; if there is no such file, save the one that was found",
    )
    int8.add_argument(
        "--rest",
        choices=("fp16", "fp32"),
        help="what the other layers compute in; fp32 also for TensorRT 8.6 (default: fp16 for "
        "TensorRT, else fp32)",
    )
    int8.add_argument(
        "--keep-slower",
        action="store_true",
        help="keep an INT8 file that is not faster than fp32 in the runtime of --for; without it "
        "the file is fp32 then",
    )
    check = parser.add_argument_group("verification")
    check.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="ground-truth pictures (default: the shipped samples)",
    )
    check.add_argument(
        "--lr-images",
        type=Path,
        metavar="DIR",
        help="low-resolution pictures of --images, matched by name (default: MATLAB's bicubic)",
    )
    check.add_argument(
        "--max-drift",
        type=finite,
        default=DEFAULT_DRIFT_DB,
        metavar="DB",
        help="PSNR-Y that may be lost on average before the artefact is refused (default: 0.05)",
    )
    check.add_argument(
        "--max-worst",
        type=finite,
        metavar="DB",
        help="PSNR-Y that any one picture may lose (default: no limit)",
    )
    parser.add_argument(
        "--threads",
        type=parse_threads,
        metavar="N",
        help="threads for verification and latency (default: all cores)",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    add_version(parser)
    return parser


def _request(args: argparse.Namespace) -> "ExportRequest":
    # --help must not wait for them.
    from swise_deploy.checkpoints.shipped import resolve_weights
    from swise_export.config import ExportConfig, ExportRequest

    config = ExportConfig(
        precision=args.precision,
        io=args.io,
        size=args.size,
        form="plain" if args.plain else "deploy",
        max_drift_db=args.max_drift,
        max_worst_db=args.max_worst,
        runtime=args.runtime,
        rest=args.rest,
        range_method=args.calib_method,
        plan=args.precision_plan,
        cache=cache_folder("int8"),
        threads=args.threads or num_usable_cpus(),
        white=args.range,
        bgr=args.bgr,
        keep_slower=args.keep_slower,
        overwrite=args.overwrite,
    )
    return ExportRequest(
        config=config,
        model=args.model,
        scale=args.scale,
        weights=None if args.weights is None else resolve_weights(str(args.weights)),
        output=args.output,
        images=args.images,
        lr_images=args.lr_images,
        calibration=args.calib,
    )


if __name__ == "__main__":
    sys.exit(main())
