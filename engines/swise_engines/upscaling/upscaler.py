"""Upscaling: a runner, and pictures of any size and depth through it."""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from swise_deploy.errors import InputError
from swise_deploy.pictures.samples import peak_of
from swise_deploy.runner import Runner, check_finite
from swise_deploy.storage.context import Closing
from swise_engines.choosing.candidates import RunnerName
from swise_engines.upscaling.opening import FindOverlap, open_source
from swise_engines.upscaling.tiles.exact import CUT_CHANGE, ExactRunner
from swise_engines.upscaling.tiles.tiling import (
    Overlap,
    Planes,
    Span,
    TileLimits,
    plan_spans,
    rigid_length,
    upscale_tiled,
    whole_span,
)

logger = logging.getLogger(__name__)

SHARE_OF_AVERAGES = 0.5
"""Share of the work that the averages take, where tiles are exact: for the report of progress."""

Sample = TypeVar("Sample", bound=np.generic)

# For networks whose averages see the tile only; measured in docs/upscaling.md.
UNBOUNDED_OVERLAP = Overlap(margin=16, fade=16, step=8)

# ITU-R BT.601, as Pillow turns RGB into greyscale.
_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


class Upscaler(Closing):
    """A network that upscales pictures of any size: numpy in, numpy out.

    Threads may share it; their calls run one after the other. As a context manager it frees the
    network at the end.

    Args:
        runner: Runs the network; it is activated here.
        limits: The input sizes of one call.
        find_overlap: Finds how tiles overlap, when the first picture has to be cut; gives None for
            a network that averages over the whole picture.
        reason: Comparison with other runners, where several were possible.
        exact: The runner, where its tiles are to equal the full frame.
    """

    def __init__(
        self,
        runner: Runner,
        limits: TileLimits,
        *,
        find_overlap: FindOverlap,
        reason: str = "",
        exact: ExactRunner | None = None,
    ) -> None:
        runner.activate()
        self._runner = runner
        self.limits = limits
        self.reason = reason
        self._find_overlap = find_overlap
        self._exact = exact
        self._overlap: Overlap | None = None
        self._lock = threading.Lock()
        self.network_s = 0.0
        """Seconds spent inside the network so far."""
        self.is_exact = True
        """True if tiled results equal the full frame; known once a picture was tiled."""

    @classmethod
    def open(
        cls,
        source: str | Path = "auto",
        *,
        weights: Path | None = None,
        scale: int | None = None,
        runner: RunnerName = "auto",
        tile: int | None = None,
        memory_mib: int | None = None,
        threads: int | None = None,
        remeasure: bool = False,
        exact: bool = False,
        max_drift_db: float | None = None,
    ) -> Self:
        """Open an ONNX file, an engine, weights, or a network by name.

        Args:
            source: A file (.onnx, .engine, .safetensors, .pth, .pt), the name of a network with
                shipped weights, or "auto": SwiseNet.
            weights: Weights for a network that is given by name; None takes the shipped ones.
            scale: Needed where the source serves several.
            runner: What runs an ONNX file or a network; "auto" is the fastest that is installed,
                measured once on this machine (`swise_engines.choosing.fastest`).
            tile: Side of the tiles in pixels of the low resolution; None follows from the engine's
                profile or the memory budget.
            memory_mib: Memory that one run of the network may take.
            threads: CPU threads of the network; None leaves it to what runs it.
            remeasure: Measure which runner is fastest, for up to a minute, whatever was found
                before; without it a first run measures for about 5 s.
            exact: Make tiles equal the full frame also where the network averages over the picture;
                ONNX files in ONNX Runtime only.
            max_drift_db: PSNR-Y in dB that "auto" may lose for speed: it then considers bf16 where
                the CPU has it, and INT8 exports of the same weights beside an ONNX file. None takes
                only runners with the same picture, to 1 of 255.

        Raises:
            InputError: There is no such source, or it cannot be used.
            BackendMissingError: What runs it is not installed.
            QualityGateError: The named runner loses more than the budget of a quantised file.
        """
        opened = open_source(
            source,
            weights=weights,
            scale=scale,
            runner=runner,
            tile=tile,
            memory_mib=memory_mib,
            threads=threads,
            remeasure=remeasure,
            exact=exact,
            max_drift_db=max_drift_db,
        )
        return cls(
            opened.runner,
            opened.limits,
            find_overlap=opened.find_overlap,
            reason=opened.reason,
            exact=opened.exact,
        )

    @property
    def name(self) -> str:
        """Runtime and device."""
        return self._runner.name

    @property
    def runtime(self) -> str:
        """Key of the runtimes table, such as "onnxruntime"."""
        return self._runner.runtime

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self._runner.scale

    def close(self) -> None:
        """Free the network; harmless when that was done."""
        with self._lock:
            self._runner.deactivate()

    def __call__(
        self,
        image: NDArray[Sample],
        *,
        report: Callable[[float], None] = lambda _: None,
        continues: bool = False,
    ) -> NDArray[Sample]:
        """Upscale one picture.

        Args:
            image: (H, W, 3) RGB or (H, W) greyscale; uint8, uint16, or float32 in [0, 1].
            report: Called after each tile with the share of the picture that is done, 0 to 1.
            continues: Whether it is the next frame of a video. Exact tiles then take the averages
                of the frame before, unless theirs show that another scene has begun.

        Returns:
            (H*scale, W*scale, 3) or (H*scale, W*scale), dtype as given; floats clipped to [0, 1].

        Raises:
            InputError: Another shape or dtype, or more bits than the network's 8-bit pictures hold.
        """
        planes = _planes_from_image(image)
        if image.dtype != np.uint8 and self._runner.io == "uint8":
            raise InputError(
                f"{image.dtype} samples, but {self.name} takes and gives 8 bits: depth would be "
                "lost. Use an artefact exported with --io float, or convert the picture to 8 bits"
            )
        height, width = (side * self.scale for side in image.shape[:2])
        sr = np.empty((height, width, *image.shape[2:]), image.dtype)
        with self._lock:
            planes, rows, columns = self._cut(planes)
            for bands in self._attempts(planes, rows, columns, report, continues=continues):
                for top, band in bands:
                    used = band[0, :, : height - top, :width]
                    sr[top : top + used.shape[1]] = _samples_from_planes(used, sr)
        return sr

    def _attempts(
        self,
        planes: Planes,
        rows: list[Span],
        columns: list[Span],
        report: Callable[[float], None],
        *,
        continues: bool,
    ) -> Iterator[Iterator[tuple[int, Planes]]]:
        """Give the bands of the result; again where the averages were those of another scene."""
        exact = self._exact
        if exact is None or len(rows) * len(columns) == 1:
            if exact is not None:
                exact.forget()
            yield self._bands(planes, rows, columns, report)
            return
        first = SHARE_OF_AVERAGES
        lr = self._runner_input(planes)

        def start(*, continues: bool) -> None:
            begin = time.perf_counter()
            exact.start(
                lr, rows, columns, continues=continues, report=lambda share: report(first * share)
            )
            self.network_s += time.perf_counter() - begin

        def report_tiles(share: float) -> None:
            report(first + (1 - first) * share)

        start(continues=continues)
        yield self._bands(planes, rows, columns, report_tiles)
        if continues and exact.change() > CUT_CHANGE:
            start(continues=False)
            yield self._bands(planes, rows, columns, report_tiles)

    def _cut(self, planes: Planes) -> tuple[Planes, list[Span], list[Span]]:
        """Grow a picture to what the network takes, and plan its rows and columns of tiles."""
        height, width = planes.shape[2:]
        if self.limits.takes_whole(width, height):
            width, height = max(width, self.limits.least[0]), max(height, self.limits.least[1])
        else:
            width, height = self._served(width, 0), self._served(height, 1)
        below, beside = height - planes.shape[2], width - planes.shape[3]
        if below or beside:
            planes = np.pad(planes, ((0, 0), (0, 0), (0, below), (0, beside)), mode="symmetric")
        return planes, *self._plan(width, height)

    def _bands(
        self,
        planes: Planes,
        rows: list[Span],
        columns: list[Span],
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Planes]]:
        num_tiles, num_done = len(rows) * len(columns), 0

        def infer(lr: Planes) -> Planes:
            nonlocal num_done
            sr = self._infer(lr)
            num_done += len(lr)
            report(num_done / num_tiles)
            return sr

        return upscale_tiled(
            infer,
            planes,
            scale=self.scale,
            rows=rows,
            columns=columns,
            batch=self.limits.most_batch,
            at=(lambda _row, _columns: None) if self._exact is None else self._exact.at,
        )

    def _served(self, side: int, axis: int) -> int:
        """The least length from `side` on that the network can serve along an axis (0 is W)."""
        if side <= self.limits.most[axis]:
            return max(side, self.limits.least[axis])
        step = self._known_overlap().step
        is_rigid = self.limits.is_rigid(axis, step)
        return rigid_length(side, self.limits.most[axis], step) if is_rigid else side

    def _plan(self, width: int, height: int) -> tuple[list[Span], list[Span]]:
        """Rows and columns of tiles for a picture of that size; one of each where it is not cut.

        Raises:
            InputError: The tiles are too small for the receptive field of the network.
        """
        if self.limits.takes_whole(width, height):
            return [whole_span(height)], [whole_span(width)]
        overlap = self._known_overlap()
        try:
            columns, rows = (
                plan_spans(
                    side,
                    self.limits.most[axis],
                    overlap,
                    is_rigid=self.limits.is_rigid(axis, overlap.step),
                )
                for axis, side in enumerate((width, height))
            )
        except ValueError as error:
            most_width, most_height = self.limits.most
            smallest = overlap.smallest_tile
            raise InputError(
                f"tiles of {most_width}x{most_height} are too small for this network, whose tiles "
                f"overlap by {overlap.width} pixels. Expected at least {smallest}x{smallest}: use "
                f"--tile {smallest}, more memory, or an engine for larger pictures"
            ) from error
        return rows, columns

    def _known_overlap(self) -> Overlap:
        if self._overlap is None:
            overlap = self._find_overlap(self._infer) or UNBOUNDED_OVERLAP
            self._overlap = _fitted(overlap, min(self.limits.most))
            self.is_exact = overlap.fade == 0
            if not self.is_exact:
                logger.warning(
                    "this network averages over the whole picture: in tiles of %dx%d the result "
                    "differs slightly from the full frame (docs/upscaling.md states by how much)",
                    *self.limits.most,
                )
        return self._overlap

    def _runner_input(self, planes: Planes) -> NDArray[np.number]:
        if self._runner.io == "float":
            return np.ascontiguousarray(planes)
        eight_bit = np.rint(planes.transpose(0, 2, 3, 1) * np.float32(255)).astype(np.uint8)
        return np.ascontiguousarray(eight_bit)

    def _infer(self, lr: Planes) -> Planes:
        num_missing = self.limits.least_batch - len(lr)
        batch = lr if num_missing <= 0 else np.concatenate([lr, np.repeat(lr[-1:], num_missing, 0)])
        start = time.perf_counter()
        upscaled = self._runner.infer(self._runner_input(batch))
        if self._runner.io == "float":
            sr = np.asarray(upscaled, np.float32)
            check_finite(sr, self.name)
        else:
            sr = np.asarray(upscaled.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        self.network_s += time.perf_counter() - start
        return sr[: len(lr)]


def _fitted(overlap: Overlap, tile: int) -> Overlap:
    """Shrink an overlap that is not exact anyway, where tiles are too small for it."""
    if overlap.fade == 0 or overlap.smallest_tile <= tile:
        return overlap
    return dataclasses.replace(overlap, margin=tile // 8, fade=tile // 8)


def _planes_from_image(image: NDArray[np.generic]) -> Planes:
    is_picture = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if not is_picture or 0 in image.shape:
        raise InputError(
            f"an array of shape {image.shape}; expected (H, W, 3) RGB or (H, W), not empty"
        )
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(f"an array of {image.dtype}; expected uint8, uint16, or float32 in [0, 1]")
    colour = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    planes = np.ascontiguousarray(colour.transpose(2, 0, 1)[None], np.float32)
    peak = peak_of(image.dtype)
    return planes if peak == 1 else planes / np.float32(peak)


def _samples_from_planes(
    band: NDArray[np.float32], like: NDArray[np.generic]
) -> NDArray[np.generic]:
    """(3, H, W) float to (H, W, 3), or to (H, W) greyscale, in the dtype of `like`."""
    values = np.clip(band, 0, 1)
    values = np.tensordot(_GREY_WEIGHTS, values, 1) if like.ndim == 2 else values.transpose(1, 2, 0)
    peak = peak_of(like.dtype)
    if peak == 1:
        return values
    values *= np.float32(peak)
    return np.rint(values, out=values).astype(like.dtype)
