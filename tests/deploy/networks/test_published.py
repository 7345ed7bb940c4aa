"""Checkpoints as their authors published them: recognised, and as good as they say."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from swise_deploy.checkpoints.load import open_network, recognise_state
from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import evaluate, mean_quality, pair_from_hr, read_pairs
from swise_deploy.networks.fmen import BRANCH_GAIN
from swise_deploy.networks.registry import build_network
from swise_deploy.pictures.files import read_rgb
from swise_deploy.runner import upscale
from swise_deploy.runners.torch_cpu import TorchRunner

FILES = {
    "SRCNN/srcnn915_official_via_SRCNN_Cpp": ("srcnn", (2, 3, 4)),
    "SRCNN/srcnn_junhyunnam_9-5-5_x3": ("srcnn", (2, 3, 4)),
    "FSRCNN/fsrcnn_yjn870_x2": ("fsrcnn", (2,)),
    "FSRCNN/fsrcnn_yjn870_x3": ("fsrcnn", (3,)),
    "FSRCNN/fsrcnn_yjn870_x4": ("fsrcnn", (4,)),
    "VDSR/vdsr_official": ("vdsr", (2, 3, 4)),
    "DRCN/drcn_jiny2001_F96_D9": ("drcn", (2, 3, 4)),
    "CARN-M/carn_m": ("carn_m", (2, 3, 4)),
    "SMSR/smsr_x2": ("smsr", (2,)),
    "LBNet/lbnet_x2": ("lbnet", (2,)),
    "FMEN/fmen_test_weights": ("fmen_s", (4,)),
}


def set5(shared, scale):
    return read_pairs(sorted((shared / "data/benchmark/Set5/HR").iterdir()), scale)


def score(network, pairs):
    with TorchRunner(network) as runner:
        scores = evaluate(lambda image: upscale(runner, image), pairs, network.scale)
    return mean_quality(scores)


@pytest.mark.parametrize("file", FILES)
def test_a_published_file_is_recognised_by_its_content(shared, file):
    found = recognise_state(load_file(shared / "weights" / f"{file}.safetensors"))
    assert found is not None
    assert (found.network, found.scales) == FILES[file]


@pytest.mark.parametrize(
    ("scale", "psnr_y_db", "ssim_y"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]
)
def test_bicubic_scores_on_set5_what_is_printed(shared, scale, psnr_y_db, ssim_y):
    quality = score(open_network("bicubic", scale=scale), set5(shared, scale))
    assert quality.psnr_y_db == pytest.approx(psnr_y_db, abs=0.02)
    # The printed SSIM is that of luma rounded to whole numbers, which lowers it a little.
    assert quality.ssim_y == pytest.approx(ssim_y, abs=0.0015)


# In dB: what the people who made or converted the file measured on Set5 (FSRCNN: their retraining;
# SRCNN: ECCV 2014, Table 1, 36.34).
@pytest.mark.parametrize(
    ("file", "scale", "psnr_y_db"),
    [
        ("FSRCNN/fsrcnn_yjn870_x2", 2, 37.14),
        ("FSRCNN/fsrcnn_yjn870_x3", 3, 32.60),
        ("FSRCNN/fsrcnn_yjn870_x4", 4, 30.51),
        ("SRCNN/srcnn915_official_via_SRCNN_Cpp", 2, 36.34),
    ],
)
def test_published_weights_score_on_set5_what_was_published(shared, file, scale, psnr_y_db):
    network = open_network(scale=scale, weights=shared / "weights" / f"{file}.safetensors")
    assert score(network, set5(shared, scale)).psnr_y_db == pytest.approx(psnr_y_db, abs=0.02)


@pytest.mark.parametrize(
    ("file", "scale"),
    [
        ("CARN-M/carn_m", 4),
        ("FMEN/fmen_test_weights", 4),
        ("SMSR/smsr_x2", 2),
        ("VDSR/vdsr_official", 4),
    ],
)
def test_published_weights_beat_bicubic_by_a_decibel(shared, file, scale):
    """A quick look at a patch, for what is too slow for all of Set5 here; see docs/networks.md."""
    hr = read_rgb(shared / "data/benchmark/Set5/HR/butterfly.png")[40:200, 40:200]
    pairs = [pair_from_hr("butterfly", hr, scale)]
    network = open_network(scale=scale, weights=shared / "weights" / f"{file}.safetensors")
    bicubic = score(open_network("bicubic", scale=scale), pairs)
    assert score(network, pairs).psnr_y_db > bicubic.psnr_y_db + 1


def test_one_carn_file_serves_three_scales(tmp_path):
    torch.manual_seed(0)
    single = {scale: build_network("carn_m", scale).eval() for scale in (2, 3, 4)}
    together = {f"{name}.shifter.weight": torch.eye(3) for name in ("sub_mean", "add_mean")}
    for scale, network in single.items():
        network.load_state_dict(
            {k: v for k, v in single[2].state_dict().items() if not k.startswith("upsample.")},
            strict=False,
        )
        for key, value in network.state_dict().items():
            foreign = key.removeprefix("body.")
            foreign = foreign.replace("upsample.", f"upsample.up{scale}.body.")
            together[foreign] = value.clone()
    save_file(together, tmp_path / "carn.safetensors")
    lr = torch.rand(1, 3, 6, 9)
    for scale, network in single.items():
        loaded = open_network(scale=scale, weights=tmp_path / "carn.safetensors")
        with torch.inference_mode():
            assert torch.equal(loaded.module(lr), network(lr))


class TrainedResidual(nn.Module):
    """FMEN's residual block as it is trained (paper, Figure 4): 1x1, 3x3 with a residual, 1x1."""

    def __init__(self, channels):
        super().__init__()
        self.expand_conv = nn.Conv2d(channels, 2 * channels, 1)
        self.fea_conv = nn.Conv2d(2 * channels, 2 * channels, 3)
        self.reduce_conv = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x):
        # Expanding the zero border gives the bias, which is what the 3x3 convolution sees there.
        wide = self.expand_conv(F.pad(x, (1, 1, 1, 1)))
        inner = wide[:, :, 1:-1, 1:-1]
        return self.reduce_conv(self.fea_conv(wide) + inner) + x


def test_fmen_as_it_is_trained_merges_into_what_runs():
    torch.manual_seed(0)
    network = build_network("fmen_s", 2).eval()
    state = {k.replace("upsampler.conv.", "tail.0."): v for k, v in network.state_dict().items()}
    block = TrainedResidual(50)
    norm = nn.BatchNorm2d(50).eval()
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    for value in (norm.weight, norm.bias, mean, variance):
        nn.init.uniform_(value, 0.5, 1.5)
    for name in {
        k.removesuffix(".rep_conv.weight") for k in state if k.endswith("rep_conv.weight")
    }:
        channels = len(state.pop(f"{name}.rep_conv.weight"))
        del state[f"{name}.rep_conv.bias"]
        trained = block if name == "ERBs.0.conv1" else TrainedResidual(channels)
        state.update({f"{name}.{k}": v for k, v in trained.state_dict().items()})
    for name in {k.removesuffix(".squeeze.weight") for k in state if k.endswith(".squeeze.weight")}:
        sizes = {"bn1": 50, "bn2": len(state[f"{name}.squeeze.weight"]), "bn3": 50}
        for layer, channels in sizes.items():
            chosen = norm if channels == 50 and layer == "bn1" else nn.BatchNorm2d(channels)
            state.update({f"{name}.{layer}.{k}": v for k, v in chosen.state_dict().items()})
    found = recognise_state(state)
    assert found is not None
    merged = found.load(2)
    x = torch.rand(1, 50, 6, 7)
    with torch.inference_mode():
        torch.testing.assert_close(
            merged.get_submodule("ERBs.0.conv1")(x), block(x), atol=1e-5, rtol=1e-5
        )
        squeeze = nn.Conv2d(50, 16, 3)
        squeeze.load_state_dict({k: state[f"HFABs.0.squeeze.{k}"] for k in ("weight", "bias")})
        offset = norm.bias - mean * norm.weight / (variance + 1e-5).sqrt()
        offset = offset.view(1, -1, 1, 1)
        bordered = F.pad(norm(x) - offset, (1, 1, 1, 1)) + offset
        expected = squeeze(bordered) * BRANCH_GAIN
        merged_squeeze = merged.get_submodule("HFABs.0.squeeze")
        torch.testing.assert_close(merged_squeeze(x), expected, atol=1e-7, rtol=1e-4)


def test_an_attention_branch_of_fmen_gives_the_same_at_another_gain():
    torch.manual_seed(0)
    network = build_network("fmen_s", 2).eval()
    foreign = {k.replace("upsampler.conv.", "tail.0."): v for k, v in network.state_dict().items()}
    found = recognise_state(foreign)
    assert found is not None
    x = torch.rand(1, 50, 6, 7)
    with torch.inference_mode():
        branches = (n.get_submodule("HFABs.0") for n in (found.load(2), network))
        assert torch.equal(*(branch(x) for branch in branches))


def test_srcnn_of_other_kernel_sizes_is_recognised():
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for i, (out, inputs, side) in enumerate([(64, 1, 9), (32, 64, 3), (1, 32, 5)], start=1):
        conv = nn.Conv2d(inputs, out, side)
        state |= {f"conv{i}.{k}": v for k, v in conv.state_dict().items()}
    found = recognise_state(state)
    assert found is not None
    assert found.network == "srcnn"
    assert found.load(3)(torch.rand(1, 3, 4, 5)).shape == (1, 3, 12, 15)


def test_a_checkpoint_with_a_missing_tensor_says_which(tmp_path):
    state = build_network("carn", 2).state_dict()
    del state["body.c1.body.0.bias"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match=r"they do not fit.*body\.c1\.body\.0\.bias"):
        open_network(weights=tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    "name", ["fsrcnn", "srcnn", "vdsr", "drcn", "carn_m", "lbnet_t", "swisenet"]
)
def test_a_checkpoint_with_any_part_missing_is_refused_or_is_told_to_be_unknown(name, tmp_path):
    state = dict(build_network(name, 2).state_dict())
    stored = {k.removeprefix("network."): v for k, v in state.items()}
    required = {k: v for k, v in stored.items() if not (name == "vdsr" and k.endswith("bias"))}
    for key in [*list(required)[:4], *list(required)[-4:]]:
        save_file({k: v for k, v in stored.items() if k != key}, tmp_path / "part.safetensors")
        with pytest.raises(InputError, match=r"part\.safetensors"):
            open_network(weights=tmp_path / "part.safetensors", scale=2)


def test_a_checkpoint_without_its_head_says_what_is_lacking(tmp_path):
    state = build_network("smsr", 2).state_dict()
    del state["upsampler.conv.weight"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match=r"lacks the tensor 'upsampler\.conv\.weight'"):
        open_network(weights=tmp_path / "cut.safetensors")
