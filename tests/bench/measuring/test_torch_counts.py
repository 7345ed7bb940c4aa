import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from swise_bench.measuring.torch_counts import count_torch
from swise_deploy.networks.registry import NETWORKS, network_module
from swise_deploy.networks.swisenet import SwiseNet
from swise_export.counting import NTIRE_LR_SIZE


@pytest.mark.parametrize(("scale", "params"), [(2, 924_836), (3, 1_036_196), (4, 1_184_676)])
def test_parameters_are_those_of_the_specification(scale: int, params: int) -> None:
    assert count_torch(SwiseNet(scale), lr_size=(8, 8)).params == params


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_torch_counts_two_operations_for_each_mult_add(scale: int) -> None:
    network = SwiseNet(scale)
    counts = count_torch(network, lr_size=(17, 11))
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network(torch.zeros(1, 3, 11, 17))
    assert flops.get_total_flops() == 2 * counts.mult_adds


@pytest.mark.filterwarnings("ignore")  # fvcore uses deprecated parts of torch
def test_fvcore_counts_the_same_mult_adds_and_activations() -> None:
    fvcore = pytest.importorskip("fvcore.nn", reason="fvcore is the independent counter")
    network = SwiseNet(2).eval()
    counts = count_torch(network, lr_size=(16, 12))
    lr = torch.zeros(1, 3, 12, 16)
    flops = fvcore.FlopCountAnalysis(network, lr)
    flops.unsupported_ops_warnings(enabled=False)
    # fvcore also charges normalisation and pooling; only what both count is compared.
    assert flops.by_operator()["conv"] == counts.mult_adds
    activations = fvcore.ActivationCountAnalysis(network, lr)
    activations.unsupported_ops_warnings(enabled=False)
    assert activations.total() == counts.activations


class _Everything(nn.Module):
    """One of each operator that has Mult-Adds, and a parameter that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 6, 4, stride=2, padding=1)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.mix = nn.Linear(6, 3)
        self.spare = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.grouped(self.up(x)).permute(0, 2, 3, 1)
        return self.mix(y).permute(0, 3, 1, 2)


def test_every_counted_operator_counts_as_by_hand() -> None:
    counts = count_torch(_Everything(), lr_size=(5, 4))
    up, grouped, mix = 3 * 20 * 6 * 16, 6 * 80 * 2 * 9, 80 * 6 * 3
    assert counts.mult_adds == up + grouped + mix
    assert counts.activations == 6 * 80 + 6 * 80 + 3 * 80
    assert counts.sr_size == (10, 8)


def test_parameters_that_nothing_reads_are_counted_under_their_own_name() -> None:
    network = _Everything()
    counts = count_torch(network, lr_size=(5, 4))
    assert counts.params == sum(p.numel() for p in network.parameters())
    assert counts.layers[-1].name == "never read"
    assert counts.layers[-1].params == 5


def test_layers_carry_the_names_of_their_modules() -> None:
    layers = count_torch(SwiseNet(2), lr_size=(8, 8)).layers
    head = next(layer for layer in layers if layer.op_type == "Conv")
    assert head.name == "head"
    assert head.mult_adds == 64 * 27 * 64


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_of_the_registry_can_be_counted(name: str) -> None:
    scale = NETWORKS[name].scales[0]
    counts = count_torch(
        network_module(name).build(scale, option=NETWORKS[name].option), lr_size=(24, 24)
    )
    assert counts.mult_adds > 0
    assert counts.sr_size == (24 * scale, 24 * scale)


def test_mult_adds_grow_with_the_number_of_pixels() -> None:
    network = SwiseNet(4, branches=())
    full = count_torch(network, lr_size=(320, 180)).mult_adds
    ntire = count_torch(network, lr_size=NTIRE_LR_SIZE).mult_adds
    # 9 attentions and the global skip work on one pixel, whatever the size.
    per_picture = 9 * 128 * 128 + 64 * 64
    assert (full - per_picture) * 256 * 256 == (ntire - per_picture) * 320 * 180


@pytest.mark.parametrize("name", [name for name, known in NETWORKS.items() if known.trained])
def test_every_operator_of_the_networks_is_known(name: str) -> None:
    scale = NETWORKS[name].scales[0]
    network = network_module(name).build(scale, option=NETWORKS[name].option)
    assert dict(count_torch(network, lr_size=(16, 16)).unknown) == {}


class _Distances(nn.Module):
    """cdist multiplies and is in no table of operators."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.cdist(x, x).amax()


def test_an_operator_on_no_list_is_unknown_and_never_free() -> None:
    counts = count_torch(_Distances(), lr_size=(8, 8))
    assert "_cdist_forward" in counts.unknown
    assert "_cdist_forward" not in counts.uncounted


class _Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return (
            nn.functional.scaled_dot_product_attention(rows, rows, rows).transpose(1, 2).view_as(x)
        )


def test_attention_counts_both_of_its_products() -> None:
    assert count_torch(_Attention(), lr_size=(8, 4)).mult_adds == 2 * 32 * 32 * 3
