"""The networks that go through this project, as one table. No torch is imported here."""

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

Upsampler = Literal["default", "sum"]


@dataclass(frozen=True, slots=True)
class PublishedCounts:
    """Counts that a paper states for one scale, at a 1280x720 output."""

    params_k: float
    mult_adds_g: float


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of a network without building it.

    Attributes:
        title: The name in print.
        module: Where its code is; see NetworkModule.
        paper: Where it was published.
        scales: Scales that the paper has.
        color: "rgb", or "y" for a network that upscales luma (Cb and Cr go bicubic, inside the network).
        published: Counts by scale, as the paper that this project follows prints them.
        note: Why a counted figure differs from the published one, where it does.
        option: The variant of the module's network that this row is, passed to `build`.
    """

    title: str
    module: str
    paper: str
    scales: tuple[int, ...] = (2, 3, 4)
    color: Literal["rgb", "y"] = "rgb"
    published: "Mapping[int, PublishedCounts]" = field(default_factory=dict)
    note: str = ""
    option: str = ""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a state dict turned out to be.

    Attributes:
        network: A key of NETWORKS.
        scales: The scales that it serves.
        load: Builds the network for one of them, with the weights in it.
    """

    network: str
    scales: tuple[int, ...]
    load: "Callable[[int], nn.Module]"


class NetworkModule(Protocol):
    """What each module named in NETWORKS offers."""

    def build(
        self, scale: int, *, option: str = "", upsampler: Upsampler = "default"
    ) -> "nn.Module":
        """A network with fresh weights: (N, 3, H, W) RGB in [0, 1] to (N, 3, H*scale, W*scale)."""

    def recognise(self, state: "Mapping[str, Tensor]") -> Recognised | None:
        """Say by names and shapes whether the weights are this network's; None if they are not."""


_SWISENET = "SwiseNet: Lightweight Image Super-Resolution with Scale-wise Network, BMVC 2023"
_SWISENET_NOTE = "the printed count belongs to a variant that the authors did not release"

NETWORKS: dict[str, Network] = {
    "swisenet": Network(
        title="SwiseNet",
        module="swise_deploy.models.swisenet",
        paper=_SWISENET,
        published={
            2: PublishedCounts(1077, 236.5),
            3: PublishedCounts(1068, 128.0),
            4: PublishedCounts(1227, 88.6),
        },
        note=_SWISENET_NOTE,
    ),
    "swisenet_no_sum": Network(
        title="SwiseNet w/o SUM",
        module="swise_deploy.models.swisenet",
        paper=_SWISENET,
        published={
            2: PublishedCounts(1035, 212.7),
            3: PublishedCounts(1044, 112.8),
            4: PublishedCounts(1056, 75.3),
        },
        note=_SWISENET_NOTE,
        option="no_sum",
    ),
}


def network_module(name: str) -> NetworkModule:
    """Import the code of a network (and with it torch)."""
    return cast("NetworkModule", importlib.import_module(NETWORKS[name].module))
