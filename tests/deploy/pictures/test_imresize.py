from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_deploy.pictures.imresize import imresize


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("test_set", ["Set5", "Set14"])
def test_matlab_vectors_are_reproduced_exactly(shared: Path, test_set: str, scale: int) -> None:
    folder = shared / "data" / "benchmark" / test_set
    checked = 0
    for path in sorted((folder / "HR").iterdir()):
        hr = np.asarray(Image.open(path))
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        (reference,) = (folder / "LR_bicubic" / f"X{scale}").glob(f"{path.stem}*")
        expected = np.asarray(Image.open(reference))
        np.testing.assert_array_equal(imresize(hr, Fraction(1, scale)), expected)
        checked += 1
    assert checked in (5, 14)


def test_halving_an_impulse_gives_the_kernel() -> None:
    # Output k lies at input 2k + 0.5; the kernel (Keys, a = -0.5) is stretched twofold, so that the
    # impulse at 16 is seen from outputs 6 to 9 at distances 1.75, 0.75, 0.25 and 1.25.
    image = np.zeros((2, 32))
    image[:, 16] = 1.0
    near, middle = (1.5 * d**3 - 2.5 * d**2 + 1 for d in (0.25, 0.75))
    far, last = (-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 for d in (1.25, 1.75))
    shrunk = imresize(image, Fraction(1, 2))
    expected = np.array([0, last, middle, near, far, 0]) / 2
    np.testing.assert_allclose(shrunk[0, 5:11], expected, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_golden_pictures_are_reproduced_exactly(scale: int) -> None:
    golden = np.load(Path(__file__).parent / "golden" / "imresize.npz")
    np.testing.assert_array_equal(imresize(golden["hr"], Fraction(1, scale)), golden[f"x{scale}"])


def test_edges_are_mirrored() -> None:
    ramp = np.tile(np.arange(8.0), (8, 1))
    mirrored = np.concatenate([ramp[:, ::-1], ramp, ramp[:, ::-1]], axis=1)
    middle = imresize(mirrored, Fraction(1, 2))[:4, 4:8]
    # Rows are constant, so that only the columns matter.
    np.testing.assert_allclose(imresize(ramp, Fraction(1, 2)), middle, atol=1e-12)


def test_constant_stays_constant_at_any_scale() -> None:
    for scale in (Fraction(1, 3), Fraction(2), Fraction(5, 4), 0.37):
        assert np.all(imresize(np.full((13, 7, 3), 93, np.uint8), scale) == 93)


@pytest.mark.parametrize(
    ("shape", "scale", "expected"),
    [((5, 7), Fraction(1, 2), (3, 4)), ((1, 1), 4, (4, 4)), ((9, 2, 3), Fraction(1, 4), (3, 1, 3))],
)
def test_output_size_is_rounded_up(shape: tuple, scale: Fraction, expected: tuple) -> None:
    assert imresize(np.zeros(shape, np.uint8), scale).shape == expected


def test_eight_bits_are_rounded_after_each_axis() -> None:
    # Rows first: a half-pixel phase gives 0.5 levels, rounded up, and only then are the columns
    # taken. One rounding at the end would give another picture.
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 24), np.uint8)
    rows = imresize(image, Fraction(1, 2))
    once = np.floor(imresize(image.astype(np.float64), Fraction(1, 2)) + 0.5).clip(0, 255)
    assert not np.array_equal(rows, once)
    assert np.abs(rows.astype(int) - once).max() <= 12


@pytest.mark.parametrize(
    ("image", "scale"), [(np.zeros((0, 4)), 2), (np.zeros(3), 2), (np.zeros((4, 4)), 0)]
)
def test_nonsense_is_refused(image: np.ndarray, scale: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        imresize(image, scale)
