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
from swise_deploy.training.data.degradation import MARGIN, Degradation, degrade
from swise_deploy.training.data.picture_cache import PicturePairs
from swise_deploy.training.data.picture_store import PictureStore

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
            between "every picture alike" and "every pixel alike"; within a folder where folders
            have weights.
        patch_size: Side of a crop in LR pixels.
        too_small: Names of the pictures that no crop fits in.
    """

    pairs: PicturePairs
    indices: tuple[int, ...]
    chances: NDArray[np.float64]
    patch_size: int
    too_small: tuple[str, ...]


def crop_source(
    pairs: PicturePairs,
    patch_size: int,
    *,
    without: Sequence[int] = (),
    folder_weights: Sequence[float] = (),
) -> CropSource:
    """Choose the pictures that are large enough for a crop.

    Args:
        pairs: All pictures.
        patch_size: Side of a crop in LR pixels.
        without: Indices that are not to be trained on.
        folder_weights: Shares of the crops from each folder, in any unit; empty for none.

    Raises:
        InputError: No picture is large enough, or none in a folder that has a weight.
    """
    sides = {i: min(entry.height, entry.width) for i, entry in enumerate(pairs.lr.entries)}
    left_out = set(without)
    large = [i for i, side in sides.items() if side >= patch_size]
    indices = tuple(i for i in large if i not in left_out)
    if not large:
        raise InputError(
            f"no picture is large enough for crops of {patch_size} LR pixels at x{pairs.scale}: "
            f"the largest has a short side of {max(sides.values()) * pairs.scale}; expected "
            f"{patch_size * pairs.scale} or more. Use a smaller --patch-size, or larger pictures"
        )
    if not indices:
        raise InputError(
            f"all {len(large)} usable pictures are validated on, and none is left to train on. "
            "Give more pictures with --data, or others with --val"
        )
    too_small = tuple(pairs.lr.entries[i].name for i, side in sides.items() if side < patch_size)
    entries = [pairs.lr.entries[i] for i in indices]
    weights = np.sqrt([float(entry.height * entry.width) for entry in entries])
    for folder, share in enumerate(folder_weights):
        inside = np.array([entry.folder == folder for entry in entries])
        if not inside.any():
            raise InputError(
                f"data_weights gives {share:g} to folder {folder + 1} of data, which has no "
                f"picture large enough for crops of {patch_size} LR pixels. Leave it out"
            )
        weights[inside] *= share / weights[inside].sum()
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


@dataclass(frozen=True, slots=True)
class CropDegradation:
    """The degradation of the crops of a step.

    Attributes:
        degradation: The steps.
        seed: Of the run.
        step: Of the run, from 0.
        first: Position in the batch of the first crop, over all processes.
    """

    degradation: Degradation
    seed: int
    step: int
    first: int


def cut_degraded_crops(source: CropSource, crops: NDArray[np.int64], how: CropDegradation) -> Batch:
    """Cut HR crops as `cut_crops` does, and make their LR crops by a degradation.

    A crop is degraded together with its surroundings, as far as the picture has them on all sides.
    """
    scale, patch = source.pairs.scale, source.patch_size
    lr, hr = [], []
    for position, (index, top, left, orientation) in enumerate(crops.tolist()):
        picture = source.pairs.hr.picture(index)
        height, width = (side // scale for side in picture.shape[:2])
        room = (top, left, height - top - patch, width - left - patch)
        margin = min(MARGIN, *room)
        rows = slice((top - margin) * scale, (top + patch + margin) * scale)
        columns = slice((left - margin) * scale, (left + patch + margin) * scale)
        turned = np.ascontiguousarray(turn(picture[rows, columns], orientation))
        rng = np.random.default_rng((how.seed, how.step, how.first + position, 1))
        low = degrade(turned, scale, how.degradation, rng)
        lr.append(_middle(low, margin, patch))
        hr.append(_middle(turned, margin * scale, patch * scale))
    return Batch(np.stack(lr), np.stack(hr))


def _middle(picture: NDArray[Number], margin: int, side: int) -> NDArray[Number]:
    return picture[margin : margin + side, margin : margin + side]


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
