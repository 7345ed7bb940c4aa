"""Makes the gallery of the docs: one report page of SwiseNet, its peers and its precisions.

    python bench/scripts/docs/gallery.py --images Set5/HR --weights DIR --out docs/gallery

Exports SwiseNet in fp16 and INT8 where OUT/models does not hold them, measures both beside the
network in torch and in each runtime that is installed, and beside the networks whose weights lie in
DIR, and writes OUT/report.html, OUT/results.json and, with Chromium, OUT/wide.png, phone.png,
dark.png and print.pdf.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swise_bench.command import run_subjects
from swise_bench.config import BenchConfig, Outputs
from swise_bench.table1 import stated_scales
from swise_bench.verbs.usable import unusable_reason
from swise_deploy.checkpoints.load import open_network
from swise_deploy.checkpoints.shipped import WEIGHTS_SUFFIXES
from swise_deploy.command.console import parse_size, parse_threads, progress, run_command
from swise_deploy.command.cpus import num_usable_cpus
from swise_deploy.errors import SwiseError
from swise_deploy.networks.published import COUNTS
from swise_deploy.precision import ExportPrecision
from swise_deploy.storage.caches import cache_folder
from swise_export.config import ExportConfig
from swise_export.job import export_verified

MAX_MULT_ADDS_G = 300
"""Networks beyond it (VDSR, DRCN) would stretch every bar."""

PHONE = '<body style="margin:0"><iframe src="{page}" width="390" height="844" style="border:0">'


@dataclass(frozen=True, slots=True)
class GalleryConfig:
    """One gallery.

    Attributes:
        images: Folder of ground truth.
        weights: Folder with weights of other networks; None measures SwiseNet alone.
        out: Folder of the page and its pictures.
        scale: Output size over input size.
        lr_size: Input size of the latency, (W, H).
        threads: Threads of every runtime.
        max_seconds: Time of the counted rounds for each subject.
    """

    images: Path
    weights: Path | None
    out: Path
    scale: int
    lr_size: tuple[int, int]
    threads: int
    max_seconds: float


def main() -> int:
    """Measure and write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="of other networks")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--size", type=parse_size, default=(160, 90), metavar="WxH")
    parser.add_argument("--threads", type=parse_threads, default=num_usable_cpus(), metavar="N")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="per subject (8)")
    options = parser.parse_args()
    config = GalleryConfig(
        images=options.images,
        weights=options.weights,
        out=options.out,
        scale=options.scale,
        lr_size=options.size,
        threads=options.threads,
        max_seconds=options.seconds,
    )
    return run_command(lambda: _run(config))


def _run(config: GalleryConfig) -> int:
    page = config.out / "report.html"
    run_subjects(
        BenchConfig(
            subjects=tuple(_subjects(config)),
            lr_sizes=(config.lr_size,),
            threads=config.threads,
            max_seconds=config.max_seconds,
            images=(config.images,),
            outputs=Outputs(html=page, document=config.out / "results.json"),
        )
    )
    _take_pictures(page)
    return 0


def _subjects(config: GalleryConfig) -> Iterator[str]:
    """SwiseNet in torch, in each runtime and precision; then the others in the deploy form."""
    name = f"swisenet:{config.scale}"
    has_openvino = not unusable_reason("openvino")
    yield from (f"{name}@torch", f"{name}@deploy")
    if has_openvino:
        yield f"{name}@deploy-openvino"
    precisions: tuple[ExportPrecision, ...] = ("fp16", "int8")
    for precision in precisions:
        path = config.out / "models" / f"swisenet_x{config.scale}_{precision}.onnx"
        if not path.is_file():
            progress(f"exporting {path.name}")
            export_verified(
                open_network("swisenet", scale=config.scale),
                path,
                ExportConfig(
                    precision=precision,
                    rest="fp32" if precision == "int8" else None,
                    threads=config.threads,
                    cache=cache_folder("int8"),
                ),
                report=progress,
            )
        yield str(path)
        if has_openvino and precision == "int8":
            yield f"{path}@openvino"
    runner = "deploy-openvino" if has_openvino else "deploy"
    yield from (f"{path}:{config.scale}@{runner}" for path in _peers(config))


def _peers(config: GalleryConfig) -> list[Path]:
    """Weights of other networks that serve the scale."""
    if config.weights is None:
        return []
    found = []
    for path in sorted(config.weights.rglob("*")):
        if path.suffix.lower() not in WEIGHTS_SUFFIXES:
            continue
        if config.scale not in stated_scales(path):
            continue
        try:
            network = open_network(scale=config.scale, weights=path)
        except SwiseError as error:
            progress(f"skipped: {path.name}: {error}")
            continue
        counts = COUNTS.get(network.name, {}).get(config.scale)
        is_small = counts is not None and counts.mult_adds_g <= MAX_MULT_ADDS_G
        if network.name != "swisenet" and is_small:
            found.append(path)
    return found


def _take_pictures(page: Path) -> None:
    """Pictures of the page as Chromium shows it; none without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        progress("no Chromium here: the page has no pictures")
        return
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "phone.html"
        frame.write_text(PHONE.format(page=page.resolve().as_uri()), encoding="utf-8")
        common = (
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--allow-file-access-from-files", f"--user-data-dir={folder}/profile"),
        )
        uri = page.resolve().as_uri()
        for name, size, url, extra in (
            ("wide.png", "1400,900", uri, ()),
            ("dark.png", "1400,900", uri, ("--blink-settings=preferredColorScheme=0",)),
            ("phone.png", "500,844", frame.as_uri(), ()),
        ):
            target = page.with_name(name).resolve()
            shot = (f"--window-size={size}", f"--screenshot={target}", *extra, url)
            subprocess.run([*common, *shot], check=True, capture_output=True)  # noqa: S603
        target = page.with_name("print.pdf").resolve()
        printed = (f"--print-to-pdf={target}", "--no-pdf-header-footer", uri)
        subprocess.run([*common, *printed], check=True, capture_output=True)  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
