"""Degradations: low-resolution pictures made by blur, resizing, noise and JPEG, drawn by a seed.

A degradation is a list of steps in a TOML file; two ship with the package. Pillow resizes and
compresses; kernels and noise are those of Real-ESRGAN (Wang et al., ICCV Workshops 2021), which no
kept package has apart from a trainer. Every draw comes from one generator, so that a seed gives the
same picture bit by bit, whatever the number of threads or processes.
"""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from swise_deploy.command.console import choose
from swise_deploy.errors import InputError, first_line
from swise_deploy.pictures.files import RgbImage
from swise_deploy.pictures.imresize import imresize
from swise_deploy.training.data.kernels import Kernel, convolve, gaussian_kernel, sinc_kernel
from swise_deploy.training.settings import settings_from_file, settings_from_toml

FloatImage = NDArray[np.float32]
"""(H, W, 3), float32, 0 to 255, not clipped."""

Filter = Literal["matlab", "box", "bilinear", "bicubic", "lanczos"]
Chance = Annotated[float, Meta(ge=0, le=1)]
Range = tuple[Annotated[float, Meta(ge=0)], Annotated[float, Meta(ge=0)]]
Side = Annotated[int, Meta(ge=1, le=63)]
Quality = Annotated[int, Meta(ge=1, le=100)]

_PILLOW = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "matlab": Image.Resampling.BICUBIC,  # where the sides are no multiple of the scale
}

MARGIN = 16
"""LR pixels around a crop that are degraded with it, so that blur and JPEG see its surroundings."""


@dataclass(frozen=True, slots=True)
class Blur:
    """A random kernel.

    Attributes:
        sigma: Range of the standard deviation, in pixels.
        sizes: Range of the kernel's side; odd sides are drawn.
        anisotropic_share: Chance that the two axes have different deviations.
        generalised_share: Chance of another exponent than the Gaussian's, 0.5 to 4.
        plateau_share: Chance of a kernel that is flat in the middle.
        sinc_share: Chance of an ideal low-pass filter, which rings as sharpened pictures do.
        share: Chance that the step is applied.
    """

    sigma: Range = (0.2, 3.0)
    sizes: tuple[Side, Side] = (7, 21)
    anisotropic_share: Chance = 0.0
    generalised_share: Chance = 0.0
    plateau_share: Chance = 0.0
    sinc_share: Chance = 0.0
    share: Chance = 1.0


@dataclass(frozen=True, slots=True)
class Resize:
    """A change of size by a random factor; otherwise the size stays.

    Attributes:
        up_share: Chance of a factor between 1 and the upper end of `factor`.
        down_share: Chance of a factor between the lower end of `factor` and 1.
        factor: Range of the factor.
        filters: One of them is drawn.
    """

    up_share: Chance = 0.5
    down_share: Chance = 0.5
    factor: Range = (0.5, 1.5)
    filters: tuple[Filter, ...] = ("bilinear", "bicubic")


@dataclass(frozen=True, slots=True)
class Shrink:
    """The resizing to low resolution; a list without it ends with MATLAB's bicubic.

    Attributes:
        filters: One of them is drawn.
    """

    filters: tuple[Filter, ...] = ("matlab",)


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian noise, or Poisson noise as photons make it.

    Attributes:
        gaussian: Range of the standard deviation, of 255.
        poisson: Range of the factor of Poisson noise.
        poisson_share: Chance of Poisson noise in the place of Gaussian.
        grey_share: Chance of the same noise in all channels.
        share: Chance that the step is applied.
    """

    gaussian: Range = (0.0, 10.0)
    poisson: Range = (0.05, 1.0)
    poisson_share: Chance = 0.0
    grey_share: Chance = 0.0
    share: Chance = 1.0


@dataclass(frozen=True, slots=True)
class Jpeg:
    """Compression and decompression.

    Attributes:
        quality: Range of Pillow's quality.
        share: Chance that the step is applied.
    """

    quality: tuple[Quality, Quality] = (60, 95)
    share: Chance = 1.0


@dataclass(frozen=True, slots=True)
class Either:
    """One of two lists of steps."""

    first: "tuple[Step, ...]"
    second: "tuple[Step, ...]"


Step = Blur | Resize | Shrink | Noise | Jpeg | Either

_KINDS: Mapping[str, type[Any]] = {
    "blur": Blur,
    "resize": Resize,
    "shrink": Shrink,
    "noise": Noise,
    "jpeg": Jpeg,
    "either": Either,
}


@dataclass(frozen=True, slots=True)
class Degradation:
    """A named list of steps.

    Attributes:
        name: Of the recipe or file.
        steps: In their order; exactly one of them shrinks.
        key: Hash of the steps.
    """

    name: str
    steps: tuple[Step, ...]
    key: str


def degradation_names() -> list[str]:
    """The degradations that ship with the package."""
    folder = resources.files("swise_deploy.training") / "degradations"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if ".toml" in p.name)


def read_degradation(name: str) -> Degradation:
    """Read a degradation that ships with the package, or a TOML file of steps.

    Raises:
        InputError: It is unknown, unreadable, or a step in it is wrong.
    """
    if Path(name).suffix == ".toml":
        settings = settings_from_file(Path(name))
    else:
        choose(name, degradation_names(), what="degradation")
        path = resources.files("swise_deploy.training") / "degradations" / f"{name}.toml"
        settings = settings_from_toml(path.read_text(encoding="utf-8"), source=name)
    if set(settings) != {"step"}:
        raise InputError(f"{name} has the keys {', '.join(settings)}; expected [[step]] tables")
    steps = _steps(settings["step"], f"{name}: step")
    if not any(_shrinks(step) for step in steps):
        steps = (*steps, Shrink())
    number = sum(_shrinks(step) for step in steps)
    if number > 1:
        raise InputError(f"{name} shrinks {number} times; expected one step of kind shrink")
    return Degradation(Path(name).stem, steps, hashlib.sha256(repr(steps).encode()).hexdigest())


def _shrinks(step: Step) -> bool:
    if not isinstance(step, Either):
        return isinstance(step, Shrink)
    both = [sum(_shrinks(s) for s in branch) for branch in (step.first, step.second)]
    if both[0] != both[1] or both[0] > 1:
        raise InputError(
            f"an either step shrinks {both[0]} times in first and {both[1]} times in second; "
            "expected once in both or in neither"
        )
    return bool(both[0])


def _steps(tables: object, place: str) -> tuple[Step, ...]:
    if not isinstance(tables, list):
        raise InputError(f"{place} is no list of tables; expected [[step]]")
    return tuple(_step(table, f"{place} {i + 1}") for i, table in enumerate(tables))


def _step(table: object, place: str) -> Step:
    fields = dict(table) if isinstance(table, dict) else {}
    kind = choose(str(fields.pop("kind", "")), _KINDS, what=f"kind in {place}")
    known = _KINDS[kind].__dataclass_fields__
    for name in fields:
        choose(name, known, what=f"setting in {place}")
    if kind == "either":
        first, second = (_steps(fields.get(n), f"{place}, {n}") for n in ("first", "second"))
        return Either(first, second)
    try:
        step: Step = msgspec.convert(fields, _KINDS[kind], strict=True)
    except msgspec.ValidationError as error:
        raise InputError(f"{place}: {first_line(error)}") from error
    for name in known:
        value = getattr(step, name)
        if isinstance(value, tuple) and (
            not value or (not isinstance(value[0], str) and value[0] > value[1])
        ):
            raise InputError(f"{place}: {name} is {list(value)}; expected [smallest, largest]")
    return step


def generator_of_name(name: str) -> Generator:
    """A generator whose draws depend on a picture's name alone."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def degrade(hr: RgbImage, scale: int, degradation: Degradation, rng: Generator) -> RgbImage:
    """Make the low resolution of a picture.

    Args:
        hr: (H*scale, W*scale, 3), uint8.
        scale: HR side over LR side.
        degradation: The steps.
        rng: Draws everything that is random.

    Returns:
        (H, W, 3), uint8.
    """
    size = hr.shape[0] // scale, hr.shape[1] // scale
    made = _apply(hr.astype(np.float32), degradation.steps, size, scale, rng)
    return _to_uint8(made)


def _apply(
    image: FloatImage, steps: Sequence[Step], size: tuple[int, int], scale: int, rng: Generator
) -> FloatImage:
    for step in steps:
        if isinstance(step, Either):
            branch = step.first if rng.random() < 0.5 else step.second
            image = _apply(image, branch, size, scale, rng)
        elif isinstance(step, Shrink):
            image = _shrink(image, _drawn_filter(step.filters, rng), size, scale)
        elif isinstance(step, Resize):
            image = _resize_randomly(image, step, rng)
        elif rng.random() < step.share:
            image = _STEPS[type(step)](image, step, rng)
    return image


def _blur(image: FloatImage, step: Blur, rng: Generator) -> FloatImage:
    return convolve(image, _drawn_kernel(step, rng))


def _drawn_kernel(step: Blur, rng: Generator) -> Kernel:
    least, largest = (side // 2 for side in step.sizes)
    side = 2 * int(rng.integers(least, largest + 1)) + 1
    if rng.random() < step.sinc_share:
        lowest = math.pi / 3 if side < 13 else math.pi / 5
        return sinc_kernel(side, rng.uniform(lowest, math.pi))
    first = rng.uniform(*step.sigma)
    second = rng.uniform(*step.sigma) if rng.random() < step.anisotropic_share else first
    sigmas = max(first, 1e-3), max(second, 1e-3)
    angle, kind = rng.uniform(-math.pi, math.pi), rng.random()
    if kind < step.plateau_share:
        return gaussian_kernel(side, sigmas, angle, beta=rng.uniform(1, 2), shape="plateau")
    if kind < step.plateau_share + step.generalised_share:
        below = rng.random() < 0.5
        return gaussian_kernel(
            side, sigmas, angle, beta=rng.uniform(0.5, 1) if below else rng.uniform(1, 4)
        )
    return gaussian_kernel(side, sigmas, angle)


def _drawn_filter(filters: Sequence[Filter], rng: Generator) -> Filter:
    return filters[int(rng.integers(len(filters)))]


def _resize_randomly(image: FloatImage, step: Resize, rng: Generator) -> FloatImage:
    chance, low, high = rng.random(), min(1.0, step.factor[0]), max(1.0, step.factor[1])
    factor = 1.0
    if chance < step.up_share:
        factor = rng.uniform(1.0, high)
    elif chance < step.up_share + step.down_share:
        factor = rng.uniform(low, 1.0)
    chosen = _drawn_filter(step.filters, rng)
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return _resized(image, (height, width), chosen)


def _resized(image: FloatImage, size: tuple[int, int], chosen: Filter) -> FloatImage:
    if image.shape[:2] == size:
        return image
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in image.transpose(2, 0, 1)]
    resized = [np.asarray(plane.resize(size[::-1], _PILLOW[chosen])) for plane in planes]
    return np.stack(resized, axis=2)


def _shrink(image: FloatImage, chosen: Filter, size: tuple[int, int], scale: int) -> FloatImage:
    whole = image.shape[:2] == (size[0] * scale, size[1] * scale)
    if chosen == "matlab" and whole:
        # Of 8-bit pictures MATLAB's protocol: they are rounded after each axis.
        low = imresize(_to_uint8(image), Fraction(1, scale)) if scale > 1 else image
        return low.astype(np.float32)
    return _resized(image, size, chosen)


def _noise(image: FloatImage, step: Noise, rng: Generator) -> FloatImage:
    grey = rng.random() < step.grey_share
    channels = 1 if grey else image.shape[2]
    if rng.random() >= step.poisson_share:
        sigma = rng.uniform(*step.gaussian)
        return image + (sigma * rng.standard_normal((*image.shape[:2], channels))).astype(
            np.float32
        )
    factor = rng.uniform(*step.poisson)
    light = np.clip(image.astype(np.float64), 0, 255) / 255
    light = light.mean(axis=2, keepdims=True) if grey else light
    # As many photons at full light as there are different values, as in Real-ESRGAN.
    photons = 2.0 ** math.ceil(math.log2(max(2, len(np.unique(_to_uint8(image))))))
    noise = rng.poisson(light * photons) / photons - light
    return image + (255 * factor * noise).astype(np.float32)


def _jpeg(image: FloatImage, step: Jpeg, rng: Generator) -> FloatImage:
    quality = int(rng.integers(step.quality[0], step.quality[1] + 1))
    buffer = io.BytesIO()
    Image.fromarray(_to_uint8(image)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as compressed:
        return np.asarray(compressed.convert("RGB"), np.float32)


_STEPS: Mapping[type[Any], Any] = {Blur: _blur, Noise: _noise, Jpeg: _jpeg}


def _to_uint8(image: FloatImage) -> RgbImage:
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)
