"""`swise-build`: an ONNX file to an engine for one device."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from swise_deploy.checkpoints.shipped import resolve_onnx
from swise_deploy.command.console import add_version, at_least, finite, parse_size, run_command
from swise_deploy.command.options import CommandParser, add_old_spelling
from swise_deploy.precision import FILE_PRECISIONS
from swise_export.verification.budget import DEFAULT_DRIFT_DB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swise_engines.building.command import BuildConfig

_EPILOG = """\
examples:
  swise-build swisenet:2 --target sm86
  swise-build swisenet_x2_fp16.onnx --target sm86
  swise-build swisenet_x2_fp16.onnx --target sm120 --size 64x64:320x180:640x360
  swise-build swisenet_x2_fp16.onnx --target current --size 640x360 --size 960x540
  swise-build swisenet_x2_fp16.onnx --compatibility ampere_plus --target sm86
  swise-build swisenet_x2_fp16.onnx --trtexec --target jetson-nano

swise-build --list names the targets; swise-doctor reports which are served here. Engines for RTX
cards are built anywhere, also without a GPU; those for a Jetson are built on it.

exit codes: 0 done, 1 failed, 2 usage, 3 a package or device is missing, 4 the drift gate refused,
130 Ctrl-C
"""


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.onnx is None and not parsed.list:
        parser.error("FILE.onnx is missing")

    def run() -> int:
        from swise_engines.building.command import list_targets, run_build  # after --help

        if parsed.trtexec:
            return _write_trtexec_folder(parsed)
        return list_targets() if parsed.list else run_build(_config(parsed))

    return run_command(run)


def _write_trtexec_folder(parsed: argparse.Namespace) -> int:
    from swise_engines.targets.catalogue import find_target
    from swise_engines.tensorrt.profiles import profile_from_sizes
    from swise_engines.trtexec.folder import write_folder

    target = None if parsed.target == "current" else find_target(parsed.target)
    sizes = parsed.size or []
    profile = profile_from_sizes(sizes[0]) if sizes else None
    folder = write_folder(parsed.onnx, parsed.output, target, profile)
    print(f"{folder}\nnext: copy it to the device, and there: sh {folder.name}/run.sh")
    return 0


def _config(parsed: argparse.Namespace) -> "BuildConfig":
    from swise_engines.building.command import BuildConfig
    from swise_engines.building.options import BuildOptions
    from swise_engines.targets.catalogue import find_target
    from swise_engines.tensorrt.profiles import profile_from_sizes
    from swise_export.verification.budget import DriftBudget

    return BuildConfig(
        onnx=parsed.onnx,
        output=parsed.output,
        options=BuildOptions(
            target=None if parsed.target == "current" else find_target(parsed.target),
            backend=parsed.backend,
            profiles=tuple(
                profile_from_sizes(sizes, max_batch=parsed.batch) for sizes in parsed.size or []
            ),
            max_batch=parsed.batch,
            precision=parsed.precision or "",
            workspace_mib=parsed.workspace,
            optimization_level=parsed.optimization_level,
            dla_core=parsed.dla_core,
            compatibility=parsed.compatibility,
            version_compatible=parsed.version_compatible,
        ),
        verify=parsed.verify,
        images=parsed.images,
        budget=DriftBudget(parsed.max_drift, parsed.max_worst),
        cache_dir=parsed.cache,
        uses_cache=not parsed.no_cache,
        as_json=parsed.json,
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="swise-build",
        description="Build a TensorRT engine from an ONNX file and report its precision.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "onnx",
        type=resolve_onnx,
        nargs="?",
        metavar="FILE.onnx",
        help="a file of swise-export, or the name of one that ships, such as swisenet:2",
    )
    parser.add_argument("--list", action="store_true", help="list the targets, and build nothing")
    parser.add_argument(
        "--target",
        default="current",
        metavar="NAME",
        help="the device: sm86, rtx-4090, jetson-orin-nano, ... or current, the GPU here (default)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: FILE.TARGET.engine beside it"
    )
    parser.add_argument(
        "--trtexec",
        action="store_true",
        help="build nothing, but write a folder for NVIDIA's trtexec on a device without this "
        "project's Python, such as a Jetson Nano; --size takes one size",
    )
    _add_sizes(parser)
    _add_tensorrt(parser)
    _add_verification(parser)
    cache = parser.add_argument("--cache", type=Path, metavar="DIR", help="the user's cache")
    add_old_spelling(parser, "--cache-dir", cache)
    parser.add_argument("--no-cache", action="store_true", help="build even what was built before")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    add_version(parser)
    return parser


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        type=_parse_sizes,
        action="append",
        metavar="WxH | MIN:TYPICAL:MAX",
        help="input sizes: one for an engine of that size alone, three for a range; several times "
        "for several profiles (default: from 16x16 to what gives a Full HD picture)",
    )
    parser.add_argument(
        "--batch",
        type=at_least(1),
        default=1,
        metavar="N",
        help="most pictures at once (default: 1)",
    )


def _add_tensorrt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=FILE_PRECISIONS,
        help="fail unless the engine computes in it (default: what the ONNX file states)",
    )
    parser.add_argument(
        "--backend",
        choices=("tensorrt", "tensorrt_rtx"),
        help="default: the first of the target's that is installed",
    )
    parser.add_argument(
        "--workspace", type=at_least(1), metavar="MIB", help="limit for scratch memory"
    )
    parser.add_argument(
        "--optimization-level",
        type=int,
        choices=range(6),
        metavar="0-5",
        help="how long to look for faster kernels",
    )
    parser.add_argument(
        "--dla-core", type=at_least(0), metavar="N", help="run on a deep-learning accelerator"
    )
    parser.add_argument(
        "--compatibility",
        choices=("none", "same_sm", "ampere_plus"),
        default="none",
        help="other GPUs that may run the engine",
    )
    parser.add_argument(
        "--version-compatible",
        action="store_true",
        help="let later versions of TensorRT run the engine",
    )


def _add_verification(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        help="measure the engine's drift on pictures (default: where the engine can run)",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="pictures to verify on (default: the shipped)"
    )
    parser.add_argument(
        "--max-drift",
        type=finite,
        default=DEFAULT_DRIFT_DB,
        metavar="DB",
        help="refuse an engine that loses more PSNR-Y than this on average (default: 0.05)",
    )
    parser.add_argument(
        "--max-worst",
        type=finite,
        metavar="DB",
        help="refuse an engine that loses more PSNR-Y than this on any one picture",
    )


def _parse_sizes(text: str) -> list[tuple[int, int]]:
    sizes = [parse_size(part) for part in text.split(":")]
    if len(sizes) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WxH, or three joined by colons")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
