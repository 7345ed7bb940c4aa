"""The whole job: export, run the file itself, compare, count, time; keep it only if it is good."""

import contextlib
import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from swise_deploy.errors import OutputError
from swise_deploy.images import RgbImage, sample_paths
from swise_deploy.models.checkpoint import LoadedNetwork
from swise_deploy.models.torch_runner import TorchRunner
from swise_deploy.protocol import Pair, read_pairs
from swise_deploy.runner import PictureIO
from swise_deploy.timing import Timing, picture_call, time_call
from swise_export.counting import count_onnx
from swise_export.drift import PictureDrift, check_gate, measure_drift
from swise_export.exporting import export_onnx, traced
from swise_export.manifest import Form, Manifest, manifest_path, write_manifest
from swise_export.onnx_runner import OnnxRunner

logger = logging.getLogger(__name__)

# Activation ranges are measured on crops of this many LR pixels: every layer's output is kept.
_RANGE_CROP = 64
# Small enough for a reading within seconds on two cores; `swise-bench` measures at any size.
LATENCY_LR_SIZE = (80, 45)
_LATENCY_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to make, and how good it must be.

    Attributes:
        size: (width, height) of the only input size; None for any.
        max_drift_db: PSNR-Y that may be lost on average.
        threads: Threads of ONNX Runtime for verification and latency.
    """

    precision: Literal["fp32", "fp16"] = "fp32"
    io: PictureIO = "float"
    size: tuple[int, int] | None = None
    form: Form = "deploy"
    max_drift_db: float = 0.05
    threads: int = 1


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was made and what it cost.

    Attributes:
        mult_adds: Of the network as its paper writes it, at `counted_lr_size`.
        artifact_mult_adds: Of the graph that was written.
        latency: Of the file on the CPU, at `latency_lr_size`.
    """

    artifact: Path
    manifest: Manifest
    pictures: tuple[PictureDrift, ...]
    mult_adds: int
    artifact_mult_adds: int
    counted_lr_size: tuple[int, int]
    latency: Timing
    latency_lr_size: tuple[int, int]
    latency_provider: str
    threads: int
    size_bytes: int
    seconds: float


def export_verified(
    network: LoadedNetwork,
    path: Path,
    config: ExportConfig,
    *,
    images: Sequence[Path] | None = None,
    say: Callable[[str], None] = logger.info,
) -> ExportReport:
    """Export a network, verify the file on pictures and keep it only if it passes.

    Args:
        network: What to export.
        path: NAME.onnx; NAME.json is written beside it.
        config: What to make.
        images: Ground-truth pictures; None for the shipped samples.
        say: Takes a line about each step as it begins.

    Raises:
        QualityGateError: It lost too much; what stood at `path` before is still there.
        InputError: No picture can be used.
        ExportError: The network cannot be exported.
        OutputError: The files cannot be written.
    """
    start = time.perf_counter()
    pairs = read_pairs(images or sample_paths(), network.scale)
    if config.size is not None:
        pairs = _cut_to_size(pairs, config.size, network.scale)
    with _staging(path) as folder:
        staged = folder / path.name
        say(f"exporting {network.name} x{network.scale} {config.precision}")
        manifest = export_onnx(
            network,
            staged,
            precision=config.precision,
            io=config.io,
            size=config.size,
            form=config.form,
            range_images=[_range_crop(pair.lr, config.size) for pair in pairs[:4]],
        )
        with (
            OnnxRunner(staged, threads=config.threads, round_half=True) as artefact,
            TorchRunner(network) as reference,
        ):
            drift, pictures = measure_drift(
                artefact, reference, pairs, on_picture=lambda name: say(f"verifying on {name}")
            )
        check_gate(drift, config.max_drift_db)
        say("counting and timing")
        lr_size = config.size or LATENCY_LR_SIZE
        with OnnxRunner(staged, threads=config.threads) as artefact:
            latency = time_call(
                picture_call(artefact, lr_size), min_runs=10, max_seconds=_LATENCY_SECONDS
            )
            provider = artefact.provider
        counts = count_onnx(staged)
        # The paper's convention: the network as it is written, not as it was rewritten.
        written = count_onnx(traced(network.module, network, size=config.size))
        manifest = dataclasses.replace(manifest, drift=drift)
        write_manifest(staged, manifest)
        manifest_path(staged).replace(manifest_path(path))
        staged.replace(path)
    return ExportReport(
        artifact=path,
        manifest=manifest,
        pictures=tuple(pictures),
        mult_adds=written.mult_adds,
        artifact_mult_adds=counts.mult_adds,
        counted_lr_size=counts.lr_size,
        latency=latency,
        latency_lr_size=lr_size,
        latency_provider=provider,
        threads=config.threads,
        size_bytes=path.stat().st_size,
        seconds=time.perf_counter() - start,
    )


@contextlib.contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A folder beside the target, where an artefact waits until it has passed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write to {path.parent}: {error.strerror or error}. "
            "Choose a folder that is writable and has room"
        ) from error
    with folder as name:
        yield Path(name)


def _range_crop(lr: RgbImage, size: tuple[int, int] | None) -> RgbImage:
    if size is not None:
        return lr
    top, left = (max(0, (side - _RANGE_CROP) // 2) for side in lr.shape[:2])
    return np.ascontiguousarray(lr[top : top + _RANGE_CROP, left : left + _RANGE_CROP])


def _cut_to_size(pairs: Sequence[Pair], size: tuple[int, int], scale: int) -> list[Pair]:
    """Cut or repeat pictures to the only input size of a static export."""
    width, height = size
    cut = []
    for pair in pairs:
        rows, columns = (
            np.arange(n) % m for n, m in zip((height, width), pair.lr.shape, strict=False)
        )
        hr_rows, hr_columns = (
            np.arange(n * scale) % m for n, m in zip((height, width), pair.hr.shape, strict=False)
        )
        cut.append(Pair(pair.name, pair.lr[rows][:, columns], pair.hr[hr_rows][:, hr_columns]))
    return cut
