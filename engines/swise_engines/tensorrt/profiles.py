"""Optimisation profiles: the ranges of picture sizes that an engine is built for."""

from collections.abc import Sequence
from dataclasses import dataclass

from swise_deploy.errors import InputError
from swise_export.interface.ports import Port

# Outputs that the defaults are made for: where the literature measures, and Full HD.
TYPICAL_OUTPUT = (1280, 720)
LARGEST_OUTPUT = (1920, 1080)
SMALLEST_SIDE = 16


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """A batch of pictures: how many, how wide, how high (pixels, low resolution)."""

    batch: int
    width: int
    height: int

    def __post_init__(self) -> None:
        """Refuse sides below 1."""
        if min(self.batch, self.width, self.height) < 1:
            raise InputError(f"{self}: batch, width and height must be at least 1")

    def __str__(self) -> str:
        return f"{self.batch}x{self.width}x{self.height}"

    def shape(self, port: Port) -> tuple[int, int, int, int]:
        """The shape of a tensor that holds the batch."""
        return port.shape(self.batch, self.width, self.height)

    def fits_between(self, least: "Extent", most: "Extent") -> bool:
        """True if batch, width and height are within the range, ends included."""
        return all(
            low <= here <= high
            for low, here, high in zip(
                (least.batch, least.width, least.height),
                (self.batch, self.width, self.height),
                (most.batch, most.width, most.height),
                strict=True,
            )
        )


def extent_of_shape(shape: Sequence[int], port: Port) -> Extent:
    """The batch of pictures that a tensor of this shape holds.

    Raises:
        InputError: The shape does not have the port's layout and channels.
    """
    channels_at = 3 if port.layout == "NHWC" else 1
    if len(shape) != 4 or shape[channels_at] != port.channels:
        sides = f"H, W, {port.channels}" if port.layout == "NHWC" else f"{port.channels}, H, W"
        raise InputError(f"input of shape {tuple(shape)}; expected (N, {sides})")
    batch, height, width = (side for at, side in enumerate(shape) if at != channels_at)
    return Extent(batch, width, height)


@dataclass(frozen=True, slots=True)
class Profile:
    """A range of sizes that an engine takes, and the size that it is tuned for.

    Attributes:
        min: The smallest.
        opt: The size that TensorRT chooses its kernels for.
        max: The largest; its memory is reserved.
    """

    min: Extent
    opt: Extent
    max: Extent

    def __post_init__(self) -> None:
        """Refuse ranges that do not ascend."""
        if not self.opt.fits_between(self.min, self.max):
            raise InputError(
                f"profile {self.min}, {self.opt}, {self.max}: batch, width and height must each "
                "grow or stay from the smallest to the typical to the largest"
            )

    def __str__(self) -> str:
        if self.min == self.max:
            return f"{self.max.width}x{self.max.height} batch {self.max.batch}"
        return (
            f"{self.min.width}x{self.min.height} to {self.max.width}x{self.max.height} "
            f"(best at {self.opt.width}x{self.opt.height}), "
            f"batch {self.min.batch} to {self.max.batch}"
        )

    def takes(self, extent: Extent) -> bool:
        """True if a batch of that size fits."""
        return extent.fits_between(self.min, self.max)

    @property
    def is_fixed(self) -> bool:
        """True if only one size fits."""
        return self.min == self.max


def default_profile(scale: int, *, max_batch: int = 1) -> Profile:
    """From 16x16 to what gives a Full HD picture, best at what gives 1280x720."""
    opt, most = (
        Extent(batch, max(width // scale, SMALLEST_SIDE), max(height // scale, SMALLEST_SIDE))
        for batch, (width, height) in ((1, TYPICAL_OUTPUT), (max_batch, LARGEST_OUTPUT))
    )
    return Profile(Extent(1, SMALLEST_SIDE, SMALLEST_SIDE), opt, most)


def profile_from_sizes(sizes: Sequence[tuple[int, int]], *, max_batch: int = 1) -> Profile:
    """One size, (W, H), is taken alone; three are the smallest, the typical and the largest.

    Raises:
        InputError: Another number of sizes, or sizes that are not in order.
    """
    if len(sizes) == 1:
        (width, height) = sizes[0]
        return Profile(
            Extent(1, width, height), Extent(1, width, height), Extent(max_batch, width, height)
        )
    if len(sizes) == 3:
        least, typical, most = sizes
        return Profile(Extent(1, *least), Extent(1, *typical), Extent(max_batch, *most))
    raise InputError(
        f"{len(sizes)} sizes for one profile; expected one, or smallest:typical:largest"
    )


def choose_profile(profiles: Sequence[Profile], extent: Extent) -> int:
    """Index of the profile that takes a batch and is tuned for the nearest size.

    Raises:
        InputError: No profile takes it; the message lists the sizes that fit.
    """
    fitting = [index for index, profile in enumerate(profiles) if profile.takes(extent)]
    if not fitting:
        sizes = "; ".join(str(profile) for profile in profiles)
        raise InputError(
            f"an input of {extent.width}x{extent.height}, batch {extent.batch}, is outside what "
            f"this engine was built for. It takes {sizes}. Cut the picture into tiles that fit, "
            f"or build an engine for that size: swise-build --size {extent.width}x{extent.height} "
            f"--batch {extent.batch}"
        )
    return min(fitting, key=lambda index: _distance(profiles[index].opt, extent))


def _distance(tuned: Extent, extent: Extent) -> int:
    return abs(
        tuned.batch * tuned.width * tuned.height - extent.batch * extent.width * extent.height
    )
