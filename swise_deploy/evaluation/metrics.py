"""Picture quality as the super-resolution literature measures it: PSNR and SSIM on luma.

Luma is BT.601 studio-swing Y of MATLAB's `rgb2ycbcr` (16 to 235); a border of `scale` pixels is
excluded. numpy only.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swise_deploy.pictures.files import RgbImage

# MATLAB rgb2ycbcr, ITU-R BT.601, for RGB in 0..255.
LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
LUMA_OFFSET = 16.0

# Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2


MetricName = Literal["psnr_y_db", "ssim_y"]
"""Key of METRICS and of JSON documents."""

EXACT_PSNR_DB = 150.0
"""Replaces the infinite PSNR of equal pictures where a number is needed: in JSON, and in the mean
of a set in which every picture is exact. A picture of 100 megapixels in which one blue value is off
by one has 148 dB (the weight of blue in luma is 0.098)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of a picture against its ground truth.

    Attributes:
        title: Name in tables.
        unit: Unit; "" for a plain number.
        digits: Decimals in tables.
        drift_digits: Decimals of a difference.
        score: Function of two (H, W) planes of luma, float64, 16 to 235, without the border.
        exact: Finite value for equal pictures.
    """

    title: str
    unit: str
    digits: int
    drift_digits: int
    score: Callable[[NDArray[np.float64], NDArray[np.float64]], float]
    exact: float

    @property
    def header(self) -> str:
        """Title and unit for a column header."""
        return f"{self.title} {self.unit}".rstrip()

    def text(self, value: float) -> str:
        """Format a value with its unit; "exact" where the pictures are equal."""
        if math.isinf(value):
            return "exact"
        return "-" if math.isnan(value) else f"{value:.{self.digits}f} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Quality:
    """Value of every metric for a picture; NaN where a metric is not defined for it.

    Attributes:
        values: Values by metric.
    """

    values: Mapping[MetricName, float]

    def __getitem__(self, name: MetricName) -> float:
        return self.values[name]

    @property
    def psnr_y_db(self) -> float:
        """PSNR on luma, dB; infinite for equal pictures. Quality gates and training use it."""
        return self.values["psnr_y_db"]

    @property
    def ssim_y(self) -> float:
        """SSIM on luma; NaN for pictures smaller than its window."""
        return self.values["ssim_y"]

    @property
    def is_exact(self) -> bool:
        """True where the pictures are equal."""
        return math.isinf(self.psnr_y_db)

    def finite(self) -> "Quality":
        """The same, with each metric's `exact` instead of infinity."""
        return Quality(
            {n: METRICS[n].exact if math.isinf(v) else v for n, v in self.values.items()}
        )


def luma(image: RgbImage) -> NDArray[np.float64]:
    """Y of an (H, W, 3) uint8 RGB picture: (H, W), float64, 16 to 235, not rounded."""
    return image.astype(np.float64) @ LUMA_WEIGHTS + LUMA_OFFSET


def quality(sr: RgbImage, hr: RgbImage, *, border: int) -> Quality:
    """Compute every metric of `sr` against the ground truth `hr`.

    Args:
        sr: (H, W, 3), uint8.
        hr: (H, W, 3), uint8.
        border: Pixels excluded at every edge; the scale by convention.

    Raises:
        ValueError: The sizes differ.
    """
    sr_luma, hr_luma = (_crop(luma(image), border) for image in (sr, hr))
    return Quality({name: metric.score(sr_luma, hr_luma) for name, metric in METRICS.items()})


def psnr(
    test: NDArray[np.floating], reference: NDArray[np.floating], *, peak: float = 255.0
) -> float:
    """Peak signal-to-noise ratio in dB; infinite where the two are equal.

    Raises:
        ValueError: The shapes differ.
    """
    if test.shape != reference.shape:
        raise ValueError(f"shapes differ: {test.shape} and {reference.shape}")
    error = float(np.mean((test.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(test: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Mean structural similarity of two (H, W) planes in 0..255.

    The window is Gaussian, 11x11, sigma 1.5, with population covariance, at positions inside the
    picture. NaN for a picture that is smaller than the window.

    Raises:
        ValueError: The shapes differ.
    """
    if test.shape != reference.shape:
        raise ValueError(f"shapes differ: {test.shape} and {reference.shape}")
    if min(test.shape) < SSIM_WINDOW:
        return math.nan
    x, y = test.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    denominator = (mean_x**2 + mean_y**2 + SSIM_C1) * (variance_x + variance_y + SSIM_C2)
    return float(np.mean(numerator / denominator))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    taps = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    taps /= taps.sum()
    height, width = (side - SSIM_WINDOW + 1 for side in plane.shape)
    rows = np.zeros((height, plane.shape[1]))
    for i, tap in enumerate(taps):
        rows += tap * plane[i : i + height]
    blurred = np.zeros((height, width))
    for i, tap in enumerate(taps):
        blurred += tap * rows[:, i : i + width]
    return blurred


def _crop(plane: NDArray[np.float64], border: int) -> NDArray[np.float64]:
    height, width = plane.shape
    return plane[border : height - border, border : width - border]


METRICS: Mapping[MetricName, Metric] = {
    "psnr_y_db": Metric("PSNR-Y", "dB", 2, 4, psnr, EXACT_PSNR_DB),
    "ssim_y": Metric("SSIM-Y", "", 4, 5, ssim, 1.0),
}
"""Every metric; scores, means, results, tables and reports iterate over this table."""
