"""Crops of one picture, by name and by content."""

import numpy as np
import pytest

from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.training.data.picture_cache import PicturePairs
from swise_deploy.training.data.picture_store import Entry, PictureStore
from swise_deploy.training.run.overlap import crops_of_same_pictures, overlaps


def pairs_of(pictures: dict[str, RgbImage]) -> PicturePairs:
    entries, offset = [], 0
    for name, picture in pictures.items():
        entries.append(Entry(name, picture.shape[0], picture.shape[1], offset))
        offset += picture.size
    store = PictureStore(
        tuple(entries), np.concatenate([picture.reshape(-1) for picture in pictures.values()])
    )
    return PicturePairs(store, store, 1, "key", {})


@pytest.mark.parametrize("step", [24, 13])
def test_overlapping_crops_are_found_by_their_pixels_whatever_their_numbering(step: int) -> None:
    crops = {}
    for number, path in enumerate(sample_paths()[:2]):
        picture = read_rgb(path)
        for i in range(4):
            crops[f"{number}/img_{i:03d}.png"] = picture[i * step : i * step + 64, 40:104]
    pairs = pairs_of(crops)
    names = [entry.name for entry in pairs.hr.entries]
    found = {names[i] for i in crops_of_same_pictures(pairs, [1])}
    assert found >= {"0/img_000.png", "0/img_001.png", "0/img_002.png"}
    assert not any(name.startswith("1/") for name in found)


def test_photographs_that_are_numbered_are_no_crops() -> None:
    pictures = {f"IMG_{i:04d}.png": read_rgb(path) for i, path in enumerate(sample_paths())}
    assert crops_of_same_pictures(pairs_of(pictures), [2]) == (2,)


def test_pictures_that_share_a_flat_part_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2))
    first[:40], second[:40] = 255, 255
    assert not overlaps(first, second)
    assert overlaps(first, np.pad(first[20:60, 8:], ((3, 0), (5, 0), (0, 0))))


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (8, 8)])
def test_small_pictures_are_compared_too(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(2))
    assert not overlaps(first, second)
