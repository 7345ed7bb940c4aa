"""Networks of any form, adapted to RGB pictures of any size.

Nothing has to be declared. Channels, scale, the sizes that a network takes and the one of its
outputs that is the picture are found by running it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swise_deploy.errors import InputError, first_line
from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.parts.padding import mirror_to_multiple

logger = logging.getLogger(__name__)

# A network may want multiples of these.
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_PROBE = 64
_LARGEST_SCALE = 16


@dataclass(frozen=True, slots=True)
class SizeRules:
    """The pictures that a network takes and gives.

    Attributes:
        channels: 3 for RGB, 1 for luma, 4 for RGB with an alpha channel.
        scale: Output size over input size; 1 for restoration.
        multiple: Height and width have to be multiples of it.
        minimum: Smallest height and width.
        output: The place of the picture among several outputs, a position or a key; None for
            networks that give a tensor.
        is_square: Whether height and width have to be equal.
    """

    channels: int
    scale: int
    multiple: int
    minimum: int
    output: int | str | None = None
    is_square: bool = False


@dataclass(frozen=True, slots=True)
class StatedSizes:
    """The sizes that a network's own description states.

    Attributes:
        multiple: Height and width have to be multiples of it.
        minimum: Smallest height and width.
        is_square: Whether height and width have to be equal.
    """

    multiple: int = 1
    minimum: int = 1
    is_square: bool = False


def find_size_rules(
    module: nn.Module, *, name: str, stated: StatedSizes | None = None
) -> SizeRules:
    """Find by running what a network takes and gives.

    Args:
        module: In eval mode.
        name: For messages.
        stated: What its own description states of its sizes, which is tried first: a network may
            run at sizes that it is not meant for.

    Raises:
        InputError: It runs on no picture, or its output is no enlargement by a whole number.
    """
    stated = stated or StatedSizes()
    probe = stated.multiple * -(-max(_PROBE, stated.minimum) // stated.multiple)
    reasons = []
    for channels in (3, 1, 4):
        try:
            outputs = _run(module, channels, probe, probe)
        except Exception as error:  # noqa: BLE001  # whatever foreign code raises is the answer
            reasons.append(f"{channels} channels: {first_line(error)}")
            continue
        output, scale = _picture_of(outputs, channels, name, probe)
        square = stated.is_square
        rules = SizeRules(channels, scale, 1, 1, output, square)
        multiples = [stated.multiple, *(m for m in _MULTIPLES if m > stated.multiple)]
        multiple = next((m for m in multiples if _upscales(module, rules, probe + m, probe)), None)
        if multiple is None:
            raise InputError(
                f"{name} takes pictures of {probe}x{probe} but not of {probe + 1} to "
                f"{probe + multiples[-1]} pixels a side. Expected a network whose size is not fixed"
            )
        least = multiple * max(1, -(-stated.minimum // multiple))
        smallest = next(
            side
            for side in range(least, probe + 1, multiple)
            if _upscales(module, rules, side, probe)
        )
        return SizeRules(channels, scale, multiple, smallest, output, square)
    raise InputError(
        f"{name} does not run on a picture of {probe}x{probe} ({'; '.join(reasons)}). Expected a "
        "network that maps (N, 3, H, W), (N, 1, H, W) or (N, 4, H, W) to a larger picture"
    )


def _picture_of(
    outputs: object, channels: int, name: str, probe: int
) -> tuple[int | str | None, int]:
    """The output that is an enlarged picture, and its scale; of several the largest, the last."""
    found = [
        (scale, place)
        for place, tensor in _tensors(outputs)
        if (scale := _scale_of(tensor, channels, probe)) is not None
    ]
    if not found:
        shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in _tensors(outputs))
        raise InputError(
            f"{name} maps (1, {channels}, {probe}, {probe}) to "
            f"{shapes or type(outputs).__name__}. Expected a picture with as many channels, "
            f"enlarged by a whole number from 1 to {_LARGEST_SCALE}"
        )
    largest = max(scale for scale, _ in found)
    places = [place for scale, place in found if scale == largest]
    if isinstance(outputs, Mapping) and len(places) > 1:
        raise InputError(
            f"{name} gives several pictures of one size: {', '.join(map(str, places))}. Give a "
            "factory whose network returns one of them"
        )
    if places[-1] is not None:
        logger.warning("%s has several outputs; %r is taken for the picture", name, places[-1])
    return places[-1], largest


def _tensors(outputs: object) -> Iterator[tuple[int | str | None, Tensor]]:
    if isinstance(outputs, Tensor):
        yield None, outputs
    elif isinstance(outputs, (tuple, list)):
        yield from ((i, t) for i, t in enumerate(outputs) if isinstance(t, Tensor))
    elif isinstance(outputs, Mapping):
        yield from ((str(k), t) for k, t in outputs.items() if isinstance(t, Tensor))


def _scale_of(sr: Tensor, channels: int, probe: int) -> int | None:
    scales = range(1, _LARGEST_SCALE + 1)
    return next((s for s in scales if sr.shape == (1, channels, probe * s, probe * s)), None)


def _upscales(module: nn.Module, rules: SizeRules, side: int, probe: int) -> bool:
    """Tell whether a picture that is `side` high, and one that is so wide, comes out enlarged."""
    sizes = [(side, side)] if rules.is_square else [(side, probe), (probe, side)]
    for height, width in sizes:
        try:
            sr = select_output(_run(module, rules.channels, height, width), rules.output)
        except Exception as error:  # noqa: BLE001  # whatever foreign code raises is the answer
            logger.debug("no side of %d: %s", side, error)
            return False
        if sr.shape != (1, rules.channels, height * rules.scale, width * rules.scale):
            return False
    return True


def _run(module: nn.Module, channels: int, height: int, width: int) -> object:
    with torch.inference_mode():
        return module(torch.full((1, channels, height, width), 0.5))


def select_output(outputs: object, place: int | str | None) -> Tensor:
    """The picture among a network's outputs."""
    if isinstance(place, int) and isinstance(outputs, (tuple, list)):
        outputs = outputs[place]
    if isinstance(outputs, Mapping):
        outputs = outputs[place]
    assert isinstance(outputs, Tensor), f"the network gives a {type(outputs).__name__}"
    return outputs


def wrap(module: nn.Module, rules: SizeRules) -> nn.Module:
    """A network that takes and gives RGB pictures of any size; see `unwrap`."""
    if rules.output is not None:
        module = OneOutput(module, rules.output)
    if rules.multiple > 1 or rules.minimum > 1 or rules.is_square:
        module = AnySize(module, rules)
    if rules.channels == 1:
        module = LumaNetwork(module, rules.scale, interpolated=False)
    if rules.channels == 4:
        module = OpaqueNetwork(module)
    return module.eval()


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside the wrappers of `wrap`."""
    while isinstance(module, (OneOutput, AnySize, CalledNetwork, LumaNetwork, OpaqueNetwork)):
        module = module.network
    return module


class OneOutput(nn.Module):
    """A network with several outputs, of which one is the picture."""

    def __init__(self, network: nn.Module, place: int | str) -> None:
        super().__init__()
        self.network = network
        self.place = place

    def forward(self, lr: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H*scale, W*scale)."""
        return select_output(self.network(lr), self.place)


class CalledNetwork(nn.Module):
    """A network that is called in a way of its own, such as with a map of the noise beside it."""

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.call = call

    def forward(self, lr: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H*scale, W*scale)."""
        return self.call(self.network, lr)


class OpaqueNetwork(nn.Module):
    """A network for RGB with alpha, given opaque pictures; the alpha that it gives is dropped."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 3, H*scale, W*scale)."""
        opaque = torch.cat([lr, torch.ones_like(lr[:, :1])], dim=1)
        sr: Tensor = self.network(opaque)
        return sr[:, :3]


class AnySize(nn.Module):
    """A network whose pictures are mirrored to a size that it takes; what was added is cropped."""

    def __init__(self, network: nn.Module, rules: SizeRules) -> None:
        super().__init__()
        self.network = network
        self.rules = rules

    def forward(self, lr: Tensor) -> Tensor:
        """Map (N, C, H, W), any H, W >= 1, to (N, C, H*scale, W*scale)."""
        height, width = lr.shape[2:]
        rules = self.rules
        minimum = rules.minimum
        if rules.is_square:
            # The largest of all, without a branch that tracing would make a constant.
            larger = (height + width + abs(height - width)) // 2
            minimum = (larger + minimum + abs(larger - minimum)) // 2
        sr: Tensor = self.network(mirror_to_multiple(lr, rules.multiple, minimum=minimum))
        return sr[:, :, : height * rules.scale, : width * rules.scale]
