"""Training pictures in the memory of a GPU, and crops cut there."""

import numpy as np
import torch
from torch import Tensor

from swise_deploy.training.data.batches import turn
from swise_deploy.training.data.picture_cache import PicturePairs
from swise_deploy.training.data.picture_store import PictureStore

LARGEST_SHARE = 0.25
"""Of the free memory of a GPU that pictures may take; the rest is for training."""


class DevicePictures:
    """Pictures on a device; `cut` gives there what `batches.cut_crops` gives on the host.

    Args:
        pairs: HR and LR pictures, and the teachers' output if any.
        patch_size: Side of a crop in LR pixels.
        device: Where they are kept.
    """

    def __init__(self, pairs: PicturePairs, patch_size: int, device: torch.device) -> None:
        self._lr = _Pictures(pairs.lr, patch_size, device)
        self._targets = [
            _Pictures(store, patch_size * pairs.scale, device)
            for store in (pairs.hr, pairs.teacher_sr)
            if store is not None
        ]
        self._scale = pairs.scale

    def cut(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Cut crops, flipped and rotated.

        Args:
            crops: (N, 4), int64, as `batches.draw_crops` gives them, on the device.

        Returns:
            LR (N, patch, patch, 3) and HR (N, patch*scale, patch*scale, 3), uint8; then the
            teachers' output, shaped as HR, where there is one.
        """
        index, top, left, orientation = crops.unbind(1)
        lr = self._lr.cut(index, top, left, orientation)
        top, left = top * self._scale, left * self._scale
        return (lr, *(target.cut(index, top, left, orientation) for target in self._targets))


class _Pictures:
    """One store on the device."""

    def __init__(self, store: PictureStore, patch: int, device: torch.device) -> None:
        # A copy: torch does not take the read-only memory of the file.
        self._pixels = torch.from_numpy(np.array(store.pixels)).to(device)
        self._offsets = torch.tensor([entry.offset for entry in store.entries], device=device)
        self._widths = torch.tensor([entry.width for entry in store.entries], device=device)
        # The source of each pixel of a turned crop, found by turning a grid of indices.
        grid = np.moveaxis(np.indices((patch, patch)), 0, -1)
        turned = np.stack([turn(grid, orientation) for orientation in range(8)])
        self._rows, self._columns = torch.from_numpy(turned).to(device).unbind(-1)
        self._channels = torch.arange(3, device=device)

    def cut(self, index: Tensor, top: Tensor, left: Tensor, orientation: Tensor) -> Tensor:
        rows = self._rows[orientation] + top[:, None, None]
        columns = self._columns[orientation] + left[:, None, None]
        pixels = rows * self._widths[index][:, None, None] + columns
        first = self._offsets[index][:, None, None] + 3 * pixels
        return self._pixels[first[..., None] + self._channels]


def kept_on_gpu(
    pairs: PicturePairs, patch_size: int, device: torch.device
) -> DevicePictures | None:
    """The pictures on a GPU, if they leave enough of its memory to training; None elsewhere."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    stores = (pairs.lr, pairs.hr, pairs.teacher_sr)
    if sum(store.pixels.nbytes for store in stores if store) > LARGEST_SHARE * free:
        return None
    return DevicePictures(pairs, patch_size, device)
