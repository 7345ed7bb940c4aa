"""`swise-upscale`: pictures, folders and videos through a network."""

import argparse
import sys
from typing import TYPE_CHECKING

from swise_deploy.command.console import add_version, at_least, finite, parse_threads, run_command
from swise_deploy.command.options import CommandParser
from swise_export.runtimes.table import runner_choices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swise_engines.upscaling.config import UpscaleConfig

_EPILOG = """\
examples:
  swise-upscale photo.jpg -o photo_x2.png
  swise-upscale holiday/ -o holiday_x4/ --scale 4
  swise-upscale 'in/*.png' -o out/ --model swisenet_x4_fp16.onnx
  swise-upscale clip.mp4 -o clip_x2.mp4 --crf 16
  swise-upscale films/ -o films_x2/ --codec hevc_nvenc
  cat photo.png | swise-upscale - -o - > photo_x2.png

exit codes: 0 done, 1 some failed, 2 usage, 3 a package or device is missing, 4 the runner
loses more than a quantised file may, 130 Ctrl-C
"""


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command line; return the exit code."""
    parsed = _parser().parse_args(arguments)

    def run() -> int:
        from swise_engines.upscaling.command import run_upscale  # slow to import: after --help

        return run_upscale(_config(parsed))

    return run_command(run)


def _config(parsed: argparse.Namespace) -> "UpscaleConfig":
    from swise_deploy.checkpoints.shipped import resolve_weights
    from swise_engines.upscaling.config import UpscaleConfig
    from swise_engines.upscaling.video.options import VideoOptions

    return UpscaleConfig(
        inputs=tuple(parsed.inputs),
        output=parsed.output,
        model=parsed.model,
        weights=None if parsed.weights is None else resolve_weights(parsed.weights),
        scale=parsed.scale,
        runner=parsed.runner,
        tile=parsed.tile,
        memory_mib=parsed.memory,
        threads=parsed.threads,
        remeasure=parsed.remeasure,
        exact=parsed.exact,
        max_drift_db=parsed.max_drift,
        overwrite=parsed.overwrite,
        as_json=parsed.json,
        is_quiet=parsed.quiet,
        file_format=parsed.format,
        quality=parsed.quality,
        ray_address=parsed.ray,
        video=VideoOptions(parsed.codec, parsed.crf, parsed.preset),
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="swise-upscale",
        description="Upscale pictures, folders of pictures, and videos.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="pictures, videos, folders of both, patterns; - reads a picture from stdin",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file for one input, a folder for several; - writes a picture to stdout",
    )
    parser.add_argument(
        "--model",
        default="auto",
        metavar="NAME|FILE",
        help="an ONNX file, an engine, weights, a network's name; auto is SwiseNet",
    )
    parser.add_argument(
        "--runner",
        default="auto",
        choices=runner_choices(),
        help="default auto: the fastest that is installed, measured once for each network",
    )
    parser.add_argument(
        "--max-drift",
        type=finite,
        metavar="DB",
        help="PSNR-Y that auto may lose for speed: bf16, and INT8 files beside the model "
        "(default: none)",
    )
    parser.add_argument(
        "--remeasure",
        action="store_true",
        help="measure again, for up to a minute, which runner is fastest",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="weights for --model NAME; swisenet:2 names shipped ones"
    )
    parser.add_argument(
        "--scale", type=int, choices=(2, 3, 4), help="default: what the model is for"
    )
    parser.add_argument(
        "--tile", type=at_least(16), metavar="PIXELS", help="side of tiles, input pixels"
    )
    parser.add_argument(
        "--memory", type=at_least(64), metavar="MIB", help="memory for one run of the network"
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="tiles that equal the full frame, also of networks that average over the picture",
    )
    parser.add_argument(
        "--threads", type=parse_threads, metavar="N", help="CPU threads for the network"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only errors")

    stills = parser.add_argument_group("pictures")
    stills.add_argument(
        "--format",
        choices=("png", "jpg", "webp", "tiff", "bmp", "avif"),
        help="default: as the input",
    )
    stills.add_argument(
        "--quality",
        type=_between(1, 100),
        metavar="1..100",
        help="jpg, webp and avif; default 95; webp at 100 is lossless, as lossless webp stays",
    )
    stills.add_argument(
        "--ray", metavar="ADDRESS", help="spread pictures over a Ray cluster; local starts one here"
    )

    video = parser.add_argument_group("videos")
    video.add_argument(
        "--codec",
        metavar="NAME",
        help="an FFmpeg encoder, such as libx265 or libsvtav1; of hardware: h264_nvenc, "
        "hevc_nvenc, av1_nvenc, h264_qsv, hevc_vaapi; default: by the input's codec",
    )
    video.add_argument(
        "--crf",
        type=_between(0, 63),
        default=17,
        metavar="N",
        help="quality, lower is better; default 17",
    )
    video.add_argument(
        "--preset", metavar="NAME", help="the encoder's speed, such as slow or veryfast"
    )
    add_version(parser)
    return parser


def _between(least: int, most: int) -> "Callable[[str], int]":
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {least} to {most}")
        return int(text)

    return parse


if __name__ == "__main__":
    sys.exit(main())
