"""The networks that go through this project, as one table. No torch is imported here."""

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, cast

from swise_deploy.command.console import choose
from swise_deploy.errors import InputError
from swise_deploy.networks.published import COUNTS, PublishedCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import Tensor, nn

Upsampler = Literal["default", "sum"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network's facts, known without building it.

    Attributes:
        title: The name in print.
        module: Where its code is; see NetworkModule.
        paper: Where it was published.
        scales: Scales that the paper has.
        published: Counts by scale, as the paper that this project follows prints them.
        note: Why a counted figure differs from the published one, where it does.
        option: The variant of the module's network that this row is, passed to `build`.
        upsamplers: "sum" is among them where the scale-wise upsampling module can replace the head.
        window: Height and width are padded inside to a multiple of it; any H, W >= 1 works.
        trained: False for bicubic, which has no weights.
    """

    title: str
    module: str
    paper: str
    scales: tuple[int, ...] = (2, 3, 4)
    published: "Mapping[int, PublishedCounts]" = field(default_factory=dict)
    note: str = ""
    option: str = ""
    upsamplers: "tuple[Upsampler, ...]" = ("default",)
    window: int = 1
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Recognised:
    """The network that a state dict belongs to.

    Attributes:
        network: A key of NETWORKS.
        scales: The scales that it serves.
        load: Builds the network for one of them, with the weights in it.
    """

    network: str
    scales: tuple[int, ...]
    load: "Callable[[int], nn.Module]"


class NetworkModule(Protocol):
    """The interface of each module named in NETWORKS."""

    def build(
        self, scale: int, *, option: str = "", upsampler: Upsampler = "default"
    ) -> "nn.Module":
        """A network with fresh weights: (N, 3, H, W) RGB in [0, 1] to (N, 3, H*scale, W*scale)."""

    def recognise(self, state: "Mapping[str, Tensor]") -> Recognised | None:
        """Recognise this network's weights by names and shapes; None for others."""


_MODELS = "swise_deploy.networks"
_EITHER: tuple[Upsampler, ...] = ("default", "sum")
_SWISENET = "SwiseNet: Lightweight Image Super-Resolution with Scale-wise Network, BMVC 2023"
_SWISENET_NOTE = "the printed count belongs to a variant that the authors did not release"
_LBNET = (
    "Gao et al., Lightweight Bimodal Network for Single-Image Super-Resolution via Symmetric CNN "
    "and Recursive Transformer, IJCAI 2022"
)
_LBNET_NOTE = (
    "the printed Mult-Adds are those of the convolutions; the linear layers and the attention, "
    "whose cost grows with the square of the picture, are counted here too"
)
_CARN = (
    "Ahn et al., Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual "
    "Network, ECCV 2018"
)
_CARN_NOTE = "the printed parameters are those of the x2, x3 and x4 upsamplers together"
_SMSR_NOTE = (
    "counted as dense convolutions, like the printed figure; the masks would save Mult-Adds only "
    "where sparse kernels exist. The channel masks are no parameters of the network that runs"
)
_FMEN_NOTE = (
    "the authors released FMEN-S only; this configuration was found from the printed counts"
)
_FMEN = (
    "Du et al., Fast and Memory-Efficient Network Towards Efficient Image Super-Resolution, "
    "CVPR Workshops 2022"
)

NETWORKS: dict[str, Network] = {
    "bicubic": Network(
        title="Bicubic",
        module=f"{_MODELS}.bicubic",
        paper="Keys, Cubic convolution interpolation for digital image processing, 1981",
        trained=False,
    ),
    "srcnn": Network(
        title="SRCNN",
        module=f"{_MODELS}.srcnn",
        paper="Dong et al., Image Super-Resolution Using Deep Convolutional Networks, TPAMI 2016",
        published=COUNTS["srcnn"],
    ),
    "fsrcnn": Network(
        title="FSRCNN",
        module=f"{_MODELS}.fsrcnn",
        paper=(
            "Dong et al., Accelerating the Super-Resolution Convolutional Neural Network, ECCV 2016"
        ),
        published=COUNTS["fsrcnn"],
        note=(
            "the printed Mult-Adds count the transposed convolution on the grid of its output, "
            "where all but one in scale^2 products are with inserted zeros"
        ),
    ),
    "vdsr": Network(
        title="VDSR",
        module=f"{_MODELS}.vdsr",
        paper=(
            "Kim et al., Accurate Image Super-Resolution Using Very Deep Convolutional Networks, "
            "CVPR 2016"
        ),
        published=COUNTS["vdsr"],
        note="the printed parameters leave the biases out",
    ),
    "drcn": Network(
        title="DRCN",
        module=f"{_MODELS}.drcn",
        paper=(
            "Kim et al., Deeply-Recursive Convolutional Network for Image Super-Resolution, "
            "CVPR 2016"
        ),
        published=COUNTS["drcn"],
        note="the printed parameters leave the biases out",
    ),
    "carn": Network(
        title="CARN",
        module=f"{_MODELS}.carn",
        paper=_CARN,
        published=COUNTS["carn"],
        note=_CARN_NOTE,
        upsamplers=_EITHER,
    ),
    "carn_m": Network(
        title="CARN-M",
        module=f"{_MODELS}.carn",
        paper=_CARN,
        published=COUNTS["carn_m"],
        note=_CARN_NOTE,
        option="mobile",
        upsamplers=_EITHER,
    ),
    "smsr": Network(
        title="SMSR",
        module=f"{_MODELS}.smsr",
        paper=(
            "Wang et al., Exploring Sparsity in Image Super-Resolution for Efficient Inference, "
            "CVPR 2021"
        ),
        published=COUNTS["smsr"],
        note=_SMSR_NOTE,
        upsamplers=_EITHER,
    ),
    "lbnet": Network(
        title="LBNet",
        module=f"{_MODELS}.lbnet",
        paper=_LBNET,
        published=COUNTS["lbnet"],
        note=_LBNET_NOTE,
        upsamplers=_EITHER,
    ),
    "lbnet_t": Network(
        title="LBNet-T",
        module=f"{_MODELS}.lbnet",
        paper=_LBNET,
        published=COUNTS["lbnet_t"],
        note=_LBNET_NOTE,
        option="tiny",
    ),
    "fmen": Network(
        title="FMEN",
        module=f"{_MODELS}.fmen",
        paper=_FMEN,
        published=COUNTS["fmen"],
        note=_FMEN_NOTE,
        upsamplers=_EITHER,
    ),
    "fmen_s": Network(
        title="FMEN-S",
        module=f"{_MODELS}.fmen",
        paper=_FMEN,
        option="small",
    ),
    "swinir_light": Network(
        title="SwinIR-light",
        module=f"{_MODELS}.swinir",
        paper="Liang et al., SwinIR: Image Restoration Using Swin Transformer, ICCV Workshops 2021",
        published=COUNTS["swinir_light"],
        note="the printed parameters leave the tables of relative position biases out",
        upsamplers=_EITHER,
        window=8,
    ),
    "swisenet": Network(
        title="SwiseNet",
        module=f"{_MODELS}.swisenet",
        paper=_SWISENET,
        published=COUNTS["swisenet"],
        note=_SWISENET_NOTE,
    ),
    "swisenet_no_sum": Network(
        title="SwiseNet w/o SUM",
        module=f"{_MODELS}.swisenet",
        paper=_SWISENET,
        published=COUNTS["swisenet_no_sum"],
        note=_SWISENET_NOTE,
        option="no_sum",
        upsamplers=_EITHER,
    ),
}


def network_module(name: str) -> NetworkModule:
    """Import the code of a network (and with it torch)."""
    return cast("NetworkModule", importlib.import_module(NETWORKS[name].module))


def build_network(name: str, scale: int, *, upsampler: Upsampler = "default") -> "nn.Module":
    """Build a network with fresh weights.

    Raises:
        InputError: The network has no such scale, or no head that SUM could replace.
    """
    network = NETWORKS[name]
    if scale not in network.scales:
        known = ", ".join(f"x{s}" for s in network.scales)
        raise InputError(f"{network.title} has no x{scale}. Use one of {known}")
    if upsampler not in network.upsamplers:
        refuse_sum(name, upsampler)
    return network_module(name).build(scale, option=network.option, upsampler=upsampler)


def check_option(name: str, option: str, known: "Collection[str]" = ()) -> None:
    """Refuse an option that a network has not got.

    Raises:
        InputError: It is not "" and not among the known ones.
    """
    if not option or option in known:
        return
    if not known:
        raise InputError(f"{NETWORKS[name].title} has no options, and {option!r} was given")
    choose(option, [k for k in known if k], what=f"option of {NETWORKS[name].title}")


def refuse_sum(name: str, upsampler: Upsampler) -> None:
    """Refuse another upsampler for a network without a PixelShuffle head.

    Raises:
        InputError: `upsampler` is "sum".
    """
    if upsampler == "sum":
        fitting = ", ".join(k for k, network in NETWORKS.items() if "sum" in network.upsamplers)
        raise InputError(
            f"{NETWORKS[name].title} has no head that SUM could replace. "
            f"Use --upsampler sum with {fitting}"
        )
