import json
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image

from swise_deploy.errors import InputError
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.loop import train
from swise_deploy.training.run.run_files import read_config, read_log, read_state


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half of one"])
def test_a_damaged_state_is_refused(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*state\.pt.*Start anew with --init"):
        read_state(tmp_path)


def test_a_pipe_in_the_place_of_the_state_is_refused(tmp_path):
    os.mkfifo(tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"cannot read .*state\.pt"):
        read_state(tmp_path)


@pytest.mark.parametrize("document", [[1, 2], {"schema_version": 99}])
def test_a_state_of_another_form_is_refused(tmp_path, document):
    torch.save(document, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"schema_version .*; expected 2"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("progress", None),
        ("progress", {"step": "3", "data_key": ""}),
        ("network", [1]),
        ("best", 1),
    ],
)
def test_a_state_with_a_wrong_value_is_refused(tmp_path, name, value):
    progress = {"step": 3, "data_key": "", "best": None}
    document = {"schema_version": 2, "progress": progress, "network": {}, "averages": {}}
    document |= {"optimizer": {}, "scaler": {}}
    torch.save(document, tmp_path / "state.pt")
    assert read_state(tmp_path).progress.step == 3
    (progress if name in progress else document)[name] = value
    torch.save(document, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"state\.pt holds a wrong value"):
        read_state(tmp_path)


def test_damaged_records_of_the_log_are_left_out(tmp_path):
    whole = {"kind": "train", "step": 1, "loss": 0.5, "steps_per_s": 2.0}
    damaged = [{**whole, "step": "1"}, {**whole, "loss": None}, {"kind": "train"}, [1], 3]
    lines = [json.dumps(record).encode() for record in (whole, *damaged)]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([*lines, b'{"kind": "\xff', b"[" * 10_000]))
    assert read_log(tmp_path) == [whole]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"nothing to resume: no .*config\.toml"),
        (b"\xff\xfe", r"config\.toml is no valid TOML"),
        (b"steps = " + b"[" * 100_000, r"config\.toml is no valid TOML"),
        (b"steps = " + b"9" * 5000, r"config\.toml is no valid TOML"),
        (b"learning_rate = " + b"9" * 400, r"learning_rate in .*; expected float"),
    ],
)
def test_a_folder_without_a_readable_config_holds_no_run(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_config(tmp_path)


def test_the_log_is_json_though_pictures_are_too_small_for_ssim(tmp_path):
    """SSIM's window is 11 pixels; JSON has no NaN."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "data" / f"{i}.png")
    config = TrainConfig(
        data=tmp_path / "data",
        out=tmp_path / "run",
        model="fsrcnn",
        steps=1,
        batch_size=1,
        patch_size=8,
        holdout=1,
        val_crop=12,
        optimizer="adam",
        precision="fp32",
        accelerator="cpu",
        workers=0,
        tensorboard=False,
        cache=tmp_path / "cache",
    )
    train(config)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    records = [json.loads(line, parse_constant=refuse) for line in lines]
    (val,) = [record for record in records if record["kind"] == "val"]
    assert val["ssim_y"] is None
    assert math.isfinite(val["psnr_y_db"])
