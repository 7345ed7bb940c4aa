"""Tiles that equal the full frame, for networks that average over the whole picture.

The graph is split in two. The first part gives the averages of the whole picture; the second one
takes a tile and those averages, and sees a few pixels around each one, so that ordinary overlapping
tiles are exact. The first part ends at the last average: it holds no upsampler, and needs less
memory than the whole network, a quarter of it for SwiseNet x4. Where that does not fit either, it
runs in tiles too: first with the averages of each tile, then, as often as needed, with those that
the pass before has found.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from swise_engines.upscaling.tiles.memory import bytes_per_pixel_of
from swise_engines.upscaling.tiles.splitting import Grid, SplitNetwork, core_weights, weight_names
from swise_engines.upscaling.tiles.tiling import Span, whole_span
from swise_export.graph.number_formats import narrow_formats
from swise_export.runtimes.onnx_file import OnnxFileRunner
from swise_export.runtimes.onnxruntime import OnnxRunner, keep_fp8

logger = logging.getLogger(__name__)

MAX_PASSES = 8
"""Passes of the first part over the tiles of one picture."""

SETTLED_CHANGE = 5e-3
"""Averages that change by less from pass to pass are final (see `change_of`)."""

CUT_CHANGE = 0.05
"""A frame whose averages differ by more from those of the frame before is done with its own.

Measured of SwiseNet on photographs of 192x144: moved by 4 pixels up to 0.054, cuts from 1.4 on.
"""

_EXPECTED_PASSES = 3  # for the share that is reported
_PROVIDER = "CPUExecutionProvider"

_Part = Literal["own", "fed", "picture"]
Averages = dict[str, NDArray[np.float64]]
"""By name, (1, C, 1, 1)."""


def change_of(before: Averages, after: Averages) -> float:
    """The largest change of an average, relative to its value where that is above 1."""
    return max(
        float(np.max(np.abs(after[name] - before[name]) / np.maximum(np.abs(before[name]), 1)))
        for name in before
    )


@dataclass(slots=True)
class _Sums:
    """Averages of a picture in the making: sums over the tiles so far."""

    sums: Averages
    num_pixels: dict[str, int]

    def result(self) -> Averages:
        return {name: value / self.num_pixels[name] for name, value in self.sums.items()}


class ExactRunner(OnnxFileRunner):
    """Runs a split network in ONNX Runtime on the CPU.

    `start` takes a whole picture that is cut; `at` says which tiles come next. Without a started
    picture it runs the file as it is.

    Args:
        path: The ONNX file.
        split: Its parts.
        threads: Threads within one operation; None for ONNX Runtime's default.
        budget_bytes: Memory for the averages of a whole picture.
    """

    runtime = "onnxruntime"

    def __init__(
        self, path: Path, split: SplitNetwork, *, threads: int | None, budget_bytes: int
    ) -> None:
        super().__init__(path)
        self.name = f"onnxruntime {ort.__version__} {_PROVIDER}, exact tiles"
        self._split = split
        self._threads = threads
        cost = bytes_per_pixel_of(split.plain, self.file.interface.input)
        self._max_pixels = int(budget_bytes / cost)
        # One at a time: each keeps the memory that it once took.
        self._loaded: tuple[_Part, ort.InferenceSession] | None = None
        self._whole: OnnxRunner | None = None
        self._map_sizes: dict[tuple[int, int], dict[Grid, tuple[int, int]]] = {}
        self._used: Averages | None = None
        self._found: _Sums | None = None
        self._size = 0, 0
        self._tiles: list[tuple[Span, Span]] | None = None

    def activate(self) -> None:
        """Nothing: each part is loaded when it is first needed."""

    def deactivate(self) -> None:
        """Free all parts."""
        self._loaded = self._whole = None
        self.forget()

    def forget(self) -> None:
        """Forget the picture that was started; whole pictures follow."""
        self._used = self._found = self._tiles = None

    def start(
        self,
        lr: NDArray[np.number],
        rows: Sequence[Span],
        columns: Sequence[Span],
        *,
        continues: bool = False,
        report: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Find the averages of a picture whose tiles follow.

        Args:
            lr: The whole picture, in the layout that `io` names, as it will be cut.
            rows: Its tiles along H.
            columns: Its tiles along W.
            continues: Whether the averages that the tiles of the picture before have given are
                taken, as for the next frame of a video.
            report: Called after each tile with the share of this work that is done, 0 to 1.
        """
        size = columns[-1].stop, rows[-1].stop
        self._whole = None
        if continues and self._found is not None and size == self._size:
            self._used = self._found.result()
        else:
            if math.prod(size) <= self._max_pixels:
                rows, columns = [whole_span(size[1])], [whole_span(size[0])]
            self._size = size
            self._used = self._averages_in_passes(lr, rows, columns, report)
        self._found = _Sums({}, {})

    def start_noise(self, side: int) -> None:
        """Take the averages of noise of that size, to measure the receptive field with them."""
        noise = np.random.default_rng(0).random((1, 3, side, side), np.float32)
        lr = noise if self.io == "float" else np.rint(noise * 255).transpose(0, 2, 3, 1)
        lr = lr.astype(np.float32 if self.io == "float" else np.uint8)
        self.start(lr, [whole_span(side)], [whole_span(side)])

    def at(self, row: Span, columns: Sequence[Span]) -> None:
        """Name the tiles of the next batch."""
        self._tiles = [(row, column) for column in columns]

    def change(self) -> float:
        """Change from the averages that the tiles were fed to those that they have given."""
        if self._used is None or self._found is None or not self._found.sums:
            return 0.0
        return change_of(self._used, self._found.result())

    def run_file(self, batch: NDArray[np.number]) -> NDArray[np.number]:
        """Run the second part on tiles of the picture that was started."""
        if self._used is None:
            if self._whole is None:
                self._loaded = None
                self._whole = OnnxRunner(self.path, threads=self._threads)
            return self._whole.run_file(batch)
        height, width = batch.shape[2:] if self._is_nchw else batch.shape[1:3]
        tiles = self._tiles or [(whole_span(height), whole_span(width))] * len(batch)
        sums = self._found if self._tiles is not None and self._found is not None else _Sums({}, {})
        self._tiles = None
        return self._run_part("picture", batch, tiles, sums)[0]

    @property
    def _is_nchw(self) -> bool:
        return self.file.interface.input.layout == "NCHW"

    def _averages_in_passes(
        self,
        lr: NDArray[np.number],
        rows: Sequence[Span],
        columns: Sequence[Span],
        report: Callable[[float], None],
    ) -> Averages:
        num_tiles = len(rows) * len(columns)
        expected = num_tiles * (_EXPECTED_PASSES if num_tiles > 1 else 1)
        num_done = 0

        def one_pass(part: _Part) -> Averages:
            nonlocal num_done
            sums = _Sums({}, {})
            for row in rows:
                for column in columns:
                    self._run_part(part, self._cut(lr, row, column), [(row, column)], sums)
                    num_done += 1
                    report(min(num_done / expected, 1))
            return sums.result()

        self._used = None
        self._used = one_pass("own")
        if num_tiles == 1:
            return self._used
        for number in range(2, MAX_PASSES + 1):
            found = one_pass("fed")
            change = change_of(self._used, found)
            logger.debug("averages in tiles, pass %d: they changed by %.4f", number, change)
            self._used = found
            if change < SETTLED_CHANGE:
                return found
        logger.warning(
            "the averages over the picture still changed by %.4f in pass %d over its tiles, so the "
            "result may differ slightly from the full frame. More --memory avoids that",
            change,
            MAX_PASSES,
        )
        return found

    def _cut(self, lr: NDArray[np.number], row: Span, column: Span) -> NDArray[np.number]:
        """A tile of the whole picture, as the file takes it, as often as its batch asks."""
        down, across = slice(row.start, row.stop), slice(column.start, column.stop)
        tile = lr[:, :, down, across] if self.io == "float" else lr[:, down, across]
        tiles = np.repeat(tile, self.file.interface.batch or 1, axis=0)
        return self._adapter.encode(np.ascontiguousarray(tiles))

    def _run_part(
        self,
        part: _Part,
        batch: NDArray[np.number],
        tiles: Sequence[tuple[Span, Span]],
        sums: _Sums,
    ) -> list[NDArray[np.number]]:
        """Run one part on a batch, add the averages of its tiles to `sums`, give its outputs.

        Tiles beyond `tiles` only fill the batch.
        """
        session = self._session(part)
        height, width = batch.shape[2:] if self._is_nchw else batch.shape[1:3]
        sizes = self._sizes(width, height)
        feeds = {self.file.interface.input.name: batch}
        counts: dict[Grid, list[int]] = {}
        for grid, map_size in sizes.items():
            cores = [
                [
                    core_weights(span, ratio, length, is_last=span.fade_out[0] >= span.stop)
                    for span, ratio, length in zip(tile, grid, map_size, strict=True)
                ]
                for tile in [*tiles, *[tiles[-1]] * (len(batch) - len(tiles))]
            ]
            counts[grid] = [down[1] * across[1] for down, across in cores]
            rows, columns = weight_names(grid)
            feeds[rows] = np.stack([down[0] for down, _ in cores])[:, None, None, :]
            feeds[columns] = np.stack([across[0] for _, across in cores])[:, None, :, None]
        if part != "own":
            assert self._used is not None, "averages to feed before they are found"
            for a in self._split.averages:
                fed = self._used[a.name].reshape(1, *a.shape).astype(a.dtype)
                feeds[a.name] = np.repeat(fed, len(batch), axis=0)
        wanted = [average.found for average in self._split.averages]
        if part == "picture":
            wanted = [self.file.interface.output.name, *wanted]
        outputs: list[NDArray[np.number]] = session.run(wanted, feeds)
        found = outputs[-len(self._split.averages) :]
        for average, values in zip(self._split.averages, found, strict=True):
            for value, num_pixels in zip(
                values[: len(tiles)], counts[average.grid][: len(tiles)], strict=True
            ):
                name, weighted = average.name, value[None].astype(np.float64) * num_pixels
                sums.sums[name] = sums.sums.get(name, np.zeros_like(weighted)) + weighted
                sums.num_pixels[name] = sums.num_pixels.get(name, 0) + num_pixels
        return outputs

    def _sizes(self, width: int, height: int) -> dict[Grid, tuple[int, int]]:
        if (width, height) not in self._map_sizes:
            self._map_sizes[width, height] = self._split.map_sizes(width, height)
        return self._map_sizes[width, height]

    def _session(self, part: _Part) -> ort.InferenceSession:
        if self._loaded is None or self._loaded[0] != part:
            self._loaded = None
            model: onnx.ModelProto = getattr(self._split, part)
            options = ort.SessionOptions()
            options.log_severity_level = 4  # errors are raised
            # Or it keeps a block for all values of a run beside those of the first run.
            options.enable_mem_pattern = False
            keep_fp8(options, narrow_formats(model))
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            self._loaded = (
                part,
                ort.InferenceSession(model.SerializeToString(), options, providers=[_PROVIDER]),
            )
        return self._loaded[1]
