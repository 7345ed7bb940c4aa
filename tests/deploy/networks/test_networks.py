"""Every network of the table: sizes, counts against the papers, weights out and in again."""

import math
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swise_deploy.checkpoints.load import recognise_state
from swise_deploy.errors import InputError
from swise_deploy.networks import drcn, fmen, lbnet, swinir, vdsr
from swise_deploy.networks.parts.luma import LumaNetwork
from swise_deploy.networks.registry import NETWORKS, build_network, network_module

RIVALS = [name for name in NETWORKS if not name.startswith("swisenet")]
WITH_SUM = [name for name in RIVALS if "sum" in NETWORKS[name].upsamplers]

PRINTED_PARAMS = ["srcnn", "smsr", "lbnet", "lbnet_t", "fmen"]
PRINTED_MULT_ADDS = ["srcnn", "vdsr", "drcn", "carn", "carn_m", "smsr", "fmen"]


def num_params(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(name, scale):
    with torch.device("meta"):
        return build_network(name, scale).eval()


def mult_adds(module, height, width):
    """By operation, in 1e9, for a low-resolution picture of this size; nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(1, 3, height, width, device="meta"))
    counts = counter.get_flop_counts()["Global"]
    return {str(op): flops / 2e9 for op, flops in counts.items()}


def total(module, scale):
    return sum(mult_adds(module, 720 // scale, 1280 // scale).values())


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", PRINTED_PARAMS)
def test_parameters_are_the_printed_ones(name, scale):
    # The LBNet authors cut LBNet-T's thousands off, where the others round.
    to_thousands = math.floor if name == "lbnet_t" else round
    counted = num_params(on_meta(name, scale))
    assert to_thousands(counted / 1e3) == NETWORKS[name].published[scale].params_k


def test_printed_parameters_of_vdsr_drcn_and_fsrcnn_leave_biases_and_slopes_out():
    for name in ("vdsr", "drcn", "fsrcnn"):
        weights = sum(p.numel() for p in on_meta(name, 2).parameters() if p.ndim > 1)
        assert round(weights / 1e3) == NETWORKS[name].published[2].params_k


def test_printed_parameters_of_carn_are_the_trunk_and_three_upsamplers():
    def together(name, *, biases):
        sizes = {"trunk": 0, 2: 0, 3: 0, 4: 0}
        for scale in (2, 3, 4):
            for key, value in on_meta(name, scale).named_parameters():
                part = scale if key.startswith("upsample.") else "trunk"
                if (biases or value.ndim > 1) and (part != "trunk" or scale == 2):
                    sizes[part] += value.numel()
        return round(sum(sizes.values()) / 1e3)

    assert together("carn", biases=True) == NETWORKS["carn"].published[2].params_k
    assert together("carn_m", biases=False) == NETWORKS["carn_m"].published[2].params_k


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_printed_parameters_of_swinir_leave_the_bias_tables_out(scale):
    tables = 24 * 15 * 15 * 6  # layers x relative positions x heads
    counted = num_params(on_meta("swinir_light", scale)) - tables
    assert round(counted / 1e3) == NETWORKS["swinir_light"].published[scale].params_k


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", PRINTED_MULT_ADDS)
def test_mult_adds_are_within_one_percent_of_the_printed_ones(name, scale):
    printed = NETWORKS[name].published[scale].mult_adds_g
    assert total(on_meta(name, scale), scale) == pytest.approx(printed, rel=0.01)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["lbnet", "lbnet_t"])
def test_printed_mult_adds_of_lbnet_are_those_of_its_convolutions(name, scale):
    printed = NETWORKS[name].published[scale].mult_adds_g
    by_op = mult_adds(on_meta(name, scale), 720 // scale, 1280 // scale)
    assert by_op["aten.convolution"] == pytest.approx(printed, rel=0.01)
    assert sum(by_op.values()) > 10 * printed
    assert "attention" in NETWORKS[name].note


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_printed_mult_adds_of_fsrcnn_run_the_deconvolution_on_the_output_grid(scale):
    low, high = 1280 * 720 / scale**2, 1280 * 720
    convolutions = 25 * 56 + 56 * 12 + 4 * 9 * 12 * 12 + 12 * 56
    deconvolution = 81 * 56
    printed = NETWORKS["fsrcnn"].published[scale].mult_adds_g
    assert (convolutions * low + deconvolution * high) / 1e9 == pytest.approx(printed, rel=0.01)
    bicubic = 3 * 25 * high / 1e9  # the chroma that the paper does not count
    counted = total(on_meta("fsrcnn", scale), scale) - bicubic
    assert counted == pytest.approx((convolutions + deconvolution) * low / 1e9, rel=0.01)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_printed_mult_adds_of_swinir_follow_the_authors_formula_at_1024x720(scale):
    # Their formula: (side // scale // 8 + 1) * 8 pixels of a 1024x720 output; norms counted, the
    # last convolution and the head counted with 3 and without scale^2 output maps.
    pixels = (1024 // scale // 8 + 1) * 8 * (720 // scale // 8 + 1) * 8
    layer = 3 * 60 * 60 + 60 * 60 + 2 * 64 * 60 + 2 * 60 * 120 + 2 * 60
    network = 24 * layer + 4 * 9 * 60 * 60 + 9 * 3 * 60 + 60 + 3 * 60 * 60 + 9 * 3 * 60
    printed = NETWORKS["swinir_light"].published[scale].mult_adds_g
    assert network * pixels / 1e9 == pytest.approx(printed, rel=0.002)
    by_op = mult_adds(on_meta("swinir_light", scale), 720 // scale, 1280 // scale)
    padded = -(-720 // scale // 8) * 8 * -(-1280 // scale // 8) * 8
    real = 24 * (layer - 2 * 60) + (4 + 1) * 9 * 60 * 60 + 9 * 3 * 60 + 9 * 3 * scale**2 * 60
    assert sum(by_op.values()) == pytest.approx(real * padded / 1e9, rel=0.001)


SMALL = {
    "lbnet": lambda upsampler: lbnet.LBNet(
        3, lbnet.LbnetSize(16, 8, halved=True), upsampler=upsampler
    ),
    "fmen": lambda upsampler: fmen.FMEN(3, fmen.FmenSize(8, (4, 4), (2, 1)), upsampler=upsampler),
    "swinir_light": lambda upsampler: swinir.SwinIR(
        3, swinir.SwinirSize(12, (2, 2), 2, 4, 2.0), upsampler=upsampler
    ),
    "drcn": lambda _: LumaNetwork(drcn.DRCN(channels=8, recursions=3), 3, interpolated=True),
    "vdsr": lambda _: LumaNetwork(vdsr.VDSR(5, 8), 3, interpolated=True),
}
KINDS = [(name, upsampler) for name in RIVALS for upsampler in NETWORKS[name].upsamplers]


def x3(name, upsampler="default"):
    """A network for x3, narrow where its module can be."""
    torch.manual_seed(0)
    if name in SMALL:
        return SMALL[name](upsampler)
    return build_network(name, 3, upsampler=upsampler)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 3), (9, 17)])
@pytest.mark.parametrize("name", [n for n in RIVALS if n not in {"lbnet_t", "fmen_s"}])
def test_any_size_is_upscaled(name, height, width):
    with torch.inference_mode():
        sr = x3(name).eval()(torch.rand(2, 3, height, width))
    assert sr.shape == (2, 3, height * 3, width * 3)
    assert sr.isfinite().all()


@pytest.mark.parametrize(("name", "upsampler"), [k for k in KINDS if NETWORKS[k[0]].trained])
def test_a_trained_state_is_recognised_and_gives_the_same_picture(name, upsampler):
    network = x3(name, upsampler).eval()
    inner = network.network if isinstance(network, LumaNetwork) else network
    found = recognise_state(inner.state_dict())
    assert found is not None
    assert found.network == name
    assert 3 in found.scales
    lr = torch.rand(1, 3, 7, 10)
    with torch.inference_mode():
        assert torch.equal(found.load(3).eval()(lr), network(lr))


@pytest.mark.parametrize("name", WITH_SUM)
def test_sum_gives_every_weight_a_gradient(name):
    network = x3(name, "sum").train()
    network(torch.rand(1, 3, 8, 8)).abs().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []
    head = [p.grad.abs().sum() for key, p in network.named_parameters() if ".magnify." in key]
    assert head
    assert all(value > 0 for value in head)


def test_sum_is_refused_where_there_is_no_pixelshuffle_head():
    with pytest.raises(InputError, match="VDSR has no head that SUM could replace"):
        build_network("vdsr", 2, upsampler="sum")


def test_sum_is_refused_for_feature_maps_that_do_not_divide_by_four():
    with pytest.raises(InputError, match="multiples of 4, and this network has 18"):
        lbnet.build(2, option="tiny", upsampler="sum")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("carn", "unknown option of CARN 'mobil'. Did you mean 'mobile'"),
        ("lbnet", "unknown option of LBNet 'mobil'. Known: tiny"),
        ("fmen", "unknown option of FMEN 'mobil'. Known: small"),
        ("swisenet", "unknown branch of the SUM 'mobil'"),
        *((n, "has no options") for n in ("bicubic", "srcnn", "fsrcnn", "vdsr", "drcn", "smsr")),
        ("swinir_light", "SwinIR-light has no options, and 'mobil' was given"),
    ],
)
def test_an_option_that_a_network_has_not_got_is_refused(name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        network_module(name).build(2, option="mobil")


def test_a_scale_that_a_network_lacks_is_refused():
    with pytest.raises(InputError, match="CARN has no x8"):
        build_network("carn", 8)
