"""Parts of the rival networks against independent statements of what they compute."""

import importlib
import importlib.util
import math
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from swise_deploy.checkpoints.load import recognise_state
from swise_deploy.networks.lbnet import SplitAttention, fold3, pad_to_groups, unfold3
from swise_deploy.networks.registry import build_network
from swise_deploy.networks.smsr import CHANNELS, MaskedConvolutions, SpatialMask, recognise


@pytest.fixture
def swinir(monkeypatch):
    """SwinIR as spandrel has it, without spandrel's other networks, which need torchvision."""
    spec = importlib.util.find_spec("spandrel")
    if spec is None or spec.origin is None:
        pytest.skip("spandrel is not installed")
    root = Path(spec.origin).parent
    for name in ("", ".architectures", ".architectures.SwinIR", ".architectures.SwinIR.__arch"):
        package = types.ModuleType(f"spandrel{name}")
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, f"spandrel{name}", package)
    yield importlib.import_module("spandrel.architectures.SwinIR.__arch.SwinIR").SwinIR
    for name in [name for name in sys.modules if name.startswith("spandrel.")]:
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # in spandrel's code
@pytest.mark.parametrize(("height", "width"), [(8, 16), (9, 13)])
def test_swinir_equals_spandrels_at_sizes_that_are_window_multiples_and_not(swinir, height, width):
    torch.manual_seed(0)
    theirs = swinir(
        upscale=3,
        window_size=8,
        img_range=1.0,
        depths=[2, 2],
        embed_dim=12,
        num_heads=[3, 3],
        mlp_ratio=2,
        upsampler="pixelshuffledirect",
    ).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    found = recognise_state(theirs.state_dict())
    assert found is not None
    assert (found.network, found.scales) == ("swinir_light", (3,))
    lr = torch.rand(2, 3, height, width)
    with torch.inference_mode():
        torch.testing.assert_close(found.load(3).eval()(lr), theirs(lr), atol=1e-4, rtol=1e-4)


def test_unfold3_and_fold3_are_torchs_unfold_and_fold():
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    patches = F.unfold(x, 3, padding=1).reshape(2, 3, 9, 4, 5)
    assert torch.equal(unfold3(x), patches)
    folded = F.fold(patches.reshape(2, 27, 20), (4, 5), 3, padding=1)
    torch.testing.assert_close(fold3(patches), folded)


@pytest.mark.parametrize("length", [16, 48, 100, 271])
def test_attention_stays_within_groups_of_a_sixteenth_and_the_rest(length):
    torch.manual_seed(0)
    attention = SplitAttention(12, 2, halved=True)
    x = torch.randn(2, length, 12)
    q, k, v = attention.qkv(attention.reduce(x)).reshape(2, length, 3, 2, 3).unbind(2)
    expected = torch.empty(2, length, 6)
    group = length // 16
    for start in range(0, length, group) if length % 16 < group else [*range(0, 16 * group, group)]:
        stop = min(start + group, length)
        for head in range(2):
            logits = q[:, start:stop, head] @ k[:, start:stop, head].mT / math.sqrt(6)
            expected[:, start:stop, 3 * head : 3 * head + 3] = (
                logits.softmax(-1) @ v[:, start:stop, head]
            )
    y = attention(*pad_to_groups(x, length))[:, :length]
    torch.testing.assert_close(y, attention.proj(expected), atol=1e-5, rtol=1e-5)


def test_fewer_tokens_than_groups_attend_to_themselves():
    torch.manual_seed(0)
    attention = SplitAttention(12, 2, halved=True)
    x = torch.randn(2, 5, 12)
    values = attention.qkv(attention.reduce(x))[..., 12:]
    y = attention(*pad_to_groups(x, 5))[:, :5]
    torch.testing.assert_close(y, attention.proj(values), atol=1e-5, rtol=1e-5)


def masked_convolutions_by_the_paper(x, spatial, weights, is_dense):
    """Paper, section 3.2: every channel keeps its place; masks multiply features."""
    outputs = []
    for i, weight in enumerate(weights):
        out_dense = is_dense[:, i].view(1, -1, 1, 1).float()
        if i == 0:
            y = F.conv2d(x, weight, padding=1)
        else:
            in_dense = is_dense[:, i - 1].view(1, -1, 1, 1).float()
            from_dense = F.conv2d(x * in_dense, weight, padding=1)
            y = from_dense + F.conv2d(x * (1 - in_dense), weight, padding=1) * spatial
        x = F.relu(y * out_dense + y * (1 - out_dense) * spatial)
        outputs.append(x)
    return torch.cat(outputs, dim=1)


def test_smsr_with_sorted_channels_equals_the_masks_of_the_paper():
    torch.manual_seed(0)
    network = build_network("smsr", 2)
    state = {}
    for key, value in network.state_dict().items():
        if ".body.from_" not in key and ".body.first" not in key and ".body.dense" not in key:
            name = key.replace("upsampler.conv.", "tail.0.")
            state[name.replace(".spa_mask.features.", ".spa_mask.")] = value
    state |= {f"{name}.weight": torch.eye(3).view(3, 3, 1, 1) for name in ("sub_mean", "add_mean")}
    state |= {f"{name}.bias": torch.full((3,), 255 * 0.4) for name in ("sub_mean", "add_mean")}
    for i in range(5):
        state[f"body.{i}.body.ch_mask"] = torch.randn(1, CHANNELS, 4, 2)
        for j in range(4):
            state[f"body.{i}.body.body.{j}.weight"] = torch.randn(CHANNELS, CHANNELS, 3, 3) / 24
    state["body.0.body.ch_mask"][0, :, 1] = torch.tensor([0.0, 1.0])  # none is dense
    found = recognise(state)
    assert found is not None
    body = found.load(2).get_submodule("body.0.body")
    x = torch.rand(1, CHANNELS, 6, 7)
    spatial = (torch.rand(1, 1, 6, 7) > 0.5).float()
    logits = state["body.0.body.ch_mask"][0]
    weights = [state[f"body.0.body.body.{j}.weight"] for j in range(4)]
    is_dense = logits[..., 0] > logits[..., 1]
    gathered = masked_convolutions_by_the_paper(x, spatial, weights, is_dense)
    collect = {k: state[f"body.0.body.collect.{k}"] for k in ("weight", "bias")}
    with torch.inference_mode():
        expected = F.conv2d(gathered, **collect)
        torch.testing.assert_close(body(x, spatial), expected, atol=1e-4, rtol=1e-4)


def test_what_sparse_channels_hold_outside_the_mask_does_not_matter():
    torch.manual_seed(0)
    body = MaskedConvolutions((0, 0, 0, 0))
    with torch.inference_mode():
        nowhere = body(torch.rand(1, CHANNELS, 5, 5), torch.zeros(1, 1, 5, 5))
    bias = body.get_parameter("collect.bias").view(1, -1, 1, 1).expand_as(nowhere)
    torch.testing.assert_close(nowhere, bias)


def test_the_spatial_mask_is_zero_or_one_when_it_runs_and_between_when_it_trains():
    torch.manual_seed(0)
    mask = SpatialMask()
    x = torch.randn(1, CHANNELS, 7, 9)
    assert set(mask.eval()(x).unique().tolist()) <= {0.0, 1.0}
    soft = mask.train()(x)
    assert ((soft > 0) & (soft < 1)).any()
    soft.mean().backward()
    gradient = mask.get_parameter("features.0.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
