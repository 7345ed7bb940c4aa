"""Batches of random crops: a pure function of (seed, step).

Nothing is shuffled and no position in an epoch is kept. Step 17 of a run holds the same crops after
a restart, and with two processes, each of which takes its part of the batch, as with one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from swise_deploy.errors import InputError
from swise_deploy.training.data.picture_cache import PicturePairs, PictureStore

BatchData = TypeVar("BatchData")
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops for one step.

    Attributes:
        lr: (N, patch, patch, 3), uint8.
        hr: (N, patch*scale, patch*scale, 3), uint8.
        teacher_sr: The teachers' output for `lr`, shaped as `hr`; None without teachers.
    """

    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]
    teacher_sr: NDArray[np.uint8] | None = None

    @property
    def arrays(self) -> tuple[NDArray[np.uint8], ...]:
        """The arrays that are present."""
        return (
            (self.lr, self.hr) if self.teacher_sr is None else (self.lr, self.hr, self.teacher_sr)
        )


@dataclass(frozen=True, slots=True)
class CropSource:
    """The pictures that crops are drawn from.

    Attributes:
        pairs: The pictures.
        indices: Those of them in use.
        chances: Of each index, float64, summing to 1: proportional to the square root of the area,
            between "every picture alike" and "every pixel alike".
        patch_size: Side of a crop in LR pixels.
        too_small: Names of the pictures that no crop fits in.
    """

    pairs: PicturePairs
    indices: tuple[int, ...]
    chances: NDArray[np.float64]
    patch_size: int
    too_small: tuple[str, ...]


def crop_source(pairs: PicturePairs, patch_size: int, *, without: Sequence[int] = ()) -> CropSource:
    """Choose the pictures that are large enough for a crop.

    Args:
        pairs: All pictures.
        patch_size: Side of a crop in LR pixels.
        without: Indices that are not to be trained on.

    Raises:
        InputError: No picture is large enough.
    """
    sides = {i: min(entry.height, entry.width) for i, entry in enumerate(pairs.lr.entries)}
    indices = tuple(i for i, side in sides.items() if side >= patch_size and i not in set(without))
    if not indices:
        raise InputError(
            f"no picture is large enough for crops of {patch_size} LR pixels at x{pairs.scale}: "
            f"the largest has a short side of {max(sides.values()) * pairs.scale}; expected "
            f"{patch_size * pairs.scale} or more. Use a smaller --patch-size, or larger pictures"
        )
    too_small = tuple(pairs.lr.entries[i].name for i, side in sides.items() if side < patch_size)
    entries = [pairs.lr.entries[i] for i in indices]
    weights = np.sqrt([float(entry.height * entry.width) for entry in entries])
    return CropSource(pairs, indices, weights / weights.sum(), patch_size, too_small)


def draw_crops(
    source: CropSource, *, seed: int, step: int, batch_size: int, part: int = 0, num_parts: int = 1
) -> NDArray[np.int64]:
    """Choose the crops of one step.

    Args:
        source: Where crops come from.
        seed: Of the run.
        step: From 0.
        batch_size: Crops over all parts together.
        part: Which part of the batch to choose; the process number.
        num_parts: How many parts there are; they divide `batch_size`.

    Returns:
        (N, 4), one row a crop: index of the picture; top and left in LR pixels; orientation.
    """
    rng = np.random.default_rng((seed, step))
    positions = rng.choice(len(source.indices), size=batch_size, p=source.chances)
    fractions = rng.random((batch_size, 2))
    orientations = rng.integers(8, size=batch_size)
    size = batch_size // num_parts
    mine = slice(part * size, (part + 1) * size)
    indices = np.asarray(source.indices)[positions[mine]]
    entries = source.pairs.lr.entries
    sides = np.array([(entries[i].height, entries[i].width) for i in indices])
    corners = (fractions[mine] * (sides - source.patch_size + 1)).astype(np.int64)
    return np.column_stack([indices, corners, orientations[mine]]).astype(np.int64)


def cut_crops(source: CropSource, crops: NDArray[np.int64]) -> Batch:
    """Cut the crops that `draw_crops` chose, flipped and rotated."""
    pairs, patch = source.pairs, source.patch_size

    def cut(store: PictureStore, scale: int) -> NDArray[np.uint8]:
        side = patch * scale
        cuts = []
        for index, top, left, orientation in crops.tolist():
            rows = slice(top * scale, top * scale + side)
            columns = slice(left * scale, left * scale + side)
            cuts.append(turn(store.picture(index)[rows, columns], orientation))
        return np.stack(cuts)

    teacher_sr = None if pairs.teacher_sr is None else cut(pairs.teacher_sr, pairs.scale)
    return Batch(cut(pairs.lr, 1), cut(pairs.hr, pairs.scale), teacher_sr)


def turn(picture: NDArray[Number], orientation: int) -> NDArray[Number]:
    """One of the 8 symmetries of the square: 0 to 3 quarter turns, from 4 on mirrored first."""
    mirrored = picture[:, ::-1] if orientation >= 4 else picture
    return np.rot90(mirrored, orientation % 4)


class BatchStream(Generic[BatchData]):
    """Batches in step order, some prepared ahead by threads; the same ones without any thread.

    Attributes:
        waited_s: Time that `next_batch` has waited for data so far, in seconds.
    """

    def __init__(
        self, prepare: Callable[[int], BatchData], *, first_step: int, workers: int = 0
    ) -> None:
        """Begin.

        Args:
            prepare: Gives the batch of a step.
            first_step: From 0.
            workers: Threads.
        """
        self.waited_s = 0.0
        self._prepare = prepare
        self._steps = iter(range(first_step, 2**62))
        self._ahead = 2 * workers
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._waiting: deque[Future[BatchData]] = deque()

    def next_batch(self) -> BatchData:
        """The batch of the next step."""
        start = time.perf_counter()
        if self._pool is None:
            batch = self._prepare(next(self._steps))
        else:
            while len(self._waiting) <= self._ahead:
                self._waiting.append(self._pool.submit(self._prepare, next(self._steps)))
            batch = self._waiting.popleft().result()
        self.waited_s += time.perf_counter() - start
        return batch

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[BatchData]:
        while True:
            yield self.next_batch()
