import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

pytest.importorskip("lightning_fabric")

from swise_deploy.networks.registry import network_module

SCRIPT = Path(__file__).resolve().parents[3] / "bench" / "scripts" / "blend_weights.py"


def run(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location("blend_weights", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    return module.main()


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((44, 40), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("source", ["--data", "--val"])
def test_the_best_blend_of_two_networks_off_to_either_side_lies_between(
    monkeypatch, pictures, tmp_path, capsys, source
):
    # Without its last convolution's kernel the network is bicubic, brighter by that one's bias.
    torch.manual_seed(0)
    state = network_module("swisenet").build(2, option="equal").state_dict()
    name = "upsampler.equal.tail.bias"
    state["upsampler.equal.tail.weight"].zero_()
    for file, offset in (("old", -0.05), ("new", 0.15)):
        save_file({**state, name: torch.full((3,), offset)}, tmp_path / f"{file}.safetensors")
    blend = tmp_path / "blend.safetensors"
    arguments = [source, pictures, "--cache", tmp_path / "cache", "--output", blend]
    files = [tmp_path / "old.safetensors", tmp_path / "new.safetensors"]
    assert (
        run(monkeypatch, *files, *arguments, "--holdout", 2, "--patch-size", 8, "--parts", 4) == 0
    )
    assert capsys.readouterr().out.count("PSNR-Y") == 5
    torch.testing.assert_close(load_file(blend)[name], torch.zeros(3), rtol=0, atol=1e-6)
    with safe_open(blend, "pt") as file:
        assert file.metadata()["blend"] == "25% of new.safetensors, the rest of old.safetensors"


def test_weights_of_different_networks_are_refused(monkeypatch, pictures, tmp_path, capsys):
    for file, option in (("old", "equal"), ("new", "magnify")):
        state = network_module("swisenet").build(2, option=option).state_dict()
        save_file(state, tmp_path / f"{file}.safetensors")
    arguments = ["--data", pictures, "--output", tmp_path / "blend.safetensors"]
    files = [tmp_path / "old.safetensors", tmp_path / "new.safetensors"]
    assert run(monkeypatch, *files, *arguments) == 2
    assert "weights of different networks" in capsys.readouterr().err
    assert not (tmp_path / "blend.safetensors").exists()


@pytest.mark.parametrize("flag", ["--holdout", "--parts"])
def test_no_pictures_and_no_blends_are_refused(monkeypatch, tmp_path, capsys, flag):
    arguments = ["--data", tmp_path, "--output", tmp_path / "blend.safetensors", flag, 0]
    assert run(monkeypatch, "old", "new", *arguments) == 2
    assert f"{flag} is 0; expected 1 or more" in capsys.readouterr().err
