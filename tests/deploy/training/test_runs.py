"""Runs on the data that people have, and runs that are stopped, moved and continued."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from swise_deploy.checkpoints.foreign import open_any
from swise_deploy.errors import InputError
from swise_deploy.evaluation.pairs import pair_from_hr
from swise_deploy.pictures.files import read_rgb
from swise_deploy.training.cli import main
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.loop import train
from swise_deploy.training.run.run_files import read_config, read_log, read_state
from swise_deploy.training.signals import STOPPED

ROOT = Path(__file__).resolve().parents[3]


def write_pictures(folder: Path, number: int, *, seed: int = 0, side: int = 44) -> Path:
    """Smooth random pictures, so that a few steps learn something."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        picture = coarse.resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:04d}.png")
    return folder


def write_lr(hr: Path, lr: Path, scale: int, *, more: int = 0, mark: str = "") -> Path:
    """Darkened LR pictures, which no bicubic makes; `more` rows too many."""
    lr.mkdir(parents=True, exist_ok=True)
    for path in hr.iterdir():
        low = pair_from_hr("", read_rgb(path), scale).lr // 2
        low = np.pad(low, ((0, more), (0, 0), (0, 0)), mode="edge")
        Image.fromarray(low).save(lr / f"{path.stem}{mark}.png")
    return lr


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", 6)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(data: Path | tuple[Path, ...], out: Path, **settings: object) -> TrainConfig:
    base = TrainConfig(
        data=data,
        out=out,
        cache=out.parent / "cache",
        model="fsrcnn",
        steps=6,
        batch_size=2,
        patch_size=8,
        holdout=2,
        optimizer="adam",
        precision="fp32",
        accelerator="cpu",
        workers=1,
        log_every=2,
        save_every=2,
        val_every=3,
        tensorboard=False,
    )
    return dataclasses.replace(base, **settings)  # type: ignore[arg-type]


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = (load_file(out / "last.safetensors") for out in (first, second))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def test_pictures_of_equal_bytes_count_once(pictures: Path, tmp_path: Path) -> None:
    (pictures / "copies").mkdir()
    shutil.copy(pictures / "0000.png", pictures / "copies" / "copy.png")
    result = train(config(pictures, tmp_path / "run"))
    assert result is not None
    assert (result.num_pictures, result.num_validation) == (4, 2)
    assert result.skipped == {"copies/copy.png": "the same bytes as 0000.png"}


@pytest.mark.parametrize("mark", ["_s{:03d}", "-crop{}", "_tile_{}", "_r{}_c0", "_x{}_y0"])
def test_crops_of_one_picture_are_on_one_side(tmp_path: Path, mark: str) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        for part in range(4):
            noise = rng.integers(0, 256, (24, 24, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"img{i}{mark.format(part)}.png")
    result = train(config(folder, tmp_path / "run"))
    assert result is not None
    assert result.num_validation == 2
    # All four crops of the one or two pictures that are validated on are left out.
    assert result.num_pictures in (24 - 4, 24 - 8)


def test_pictures_validated_on_in_another_folder_are_not_trained_on(
    pictures: Path, tmp_path: Path
) -> None:
    val = tmp_path / "val"
    val.mkdir()
    with Image.open(pictures / "0003.png") as picture:
        picture.save(val / "other_name.bmp")
    write_pictures(val, 1, seed=9)
    result = train(config(pictures, tmp_path / "run", val=val, val_crop=20))
    assert result is not None
    assert (result.num_pictures, result.num_validation) == (5, 2)


def test_several_folders_are_mixed_by_their_weights(pictures: Path, tmp_path: Path) -> None:
    bright = write_pictures(tmp_path / "bright", 3, seed=5)
    both = (pictures, bright)
    result = train(config(both, tmp_path / "run", data_weights=(1.0, 3.0)))
    assert result is not None
    assert result.num_pictures + result.num_validation == 9
    moved = tmp_path / "moved"
    shutil.move(bright, moved)
    again = dataclasses.replace(read_config(tmp_path / "run"), steps=8, data=(pictures, moved))
    resumed = train(again, resume=True)
    assert resumed is not None
    assert resumed.step == 8


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, float("nan"))])
def test_weights_that_do_not_go_with_the_folders_are_refused(
    pictures: Path, tmp_path: Path, weights: tuple[float, ...]
) -> None:
    with pytest.raises(InputError, match="data_weights"):
        config((pictures, pictures), tmp_path / "run", data_weights=weights)


@pytest.mark.parametrize(("more", "mark"), [(0, ""), (1, "x2"), (0, "_LR")])
def test_own_pairs_are_trained_and_tested_on(
    pictures: Path,
    tmp_path: Path,
    *,
    more: int,
    mark: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lr = write_lr(pictures, tmp_path / "lr" / "X2", 2, more=more, mark=mark)
    write_lr(pictures, tmp_path / "lr" / "X3", 3, mark=mark.replace("2", "3"))
    out = tmp_path / "run"
    arguments = ["--data", pictures, "--lr", lr.parent, "--test", pictures, "--test-lr", lr]
    arguments += ["--out", out, "--cache", tmp_path / "cache", "--model", "fsrcnn"]
    arguments += ["--steps", 4, "--batch-size", 2, "--patch-size", 8, "--holdout", 2]
    arguments += ["--precision", "fp32", "--accelerator", "cpu", "--no-tensorboard", "--json"]
    assert main([str(word) for word in arguments]) == 0
    shown = capsys.readouterr()
    scores = json.loads(shown.out)["test"]["pictures"]
    assert scores["own_lr"] is True
    # Half the light: bicubic misses by half of a mean level of about 128.
    assert scores["bicubic_psnr_y_db"] < 20
    assert ("6 of 6 pairs cropped to sizes" in caplog.text) is bool(more)
    assert "ground truth" not in caplog.text
    assert "the user's own" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda lr: [p.unlink() for p in lr.iterdir()], "no picture"),
        (
            lambda lr: [p.rename(lr / f"other{i}.png") for i, p in enumerate(lr.iterdir())],
            "partner",
        ),
        (lambda lr: shutil.copytree(lr, lr / "again"), "several low-resolution partners"),
    ],
)
def test_lr_folders_that_do_not_match_are_refused_before_anything_is_decoded(
    pictures: Path, tmp_path: Path, change: Callable[[Path], object], complaint: str
) -> None:
    lr = write_lr(pictures, tmp_path / "lr", 2)
    change(lr)
    with pytest.raises(InputError, match=rf"--data: .*{complaint}"):
        train(config(pictures, tmp_path / "run", lr=(lr,)))


def test_lr_of_another_scale_is_named_with_both_sizes(pictures: Path, tmp_path: Path) -> None:
    lr = write_lr(pictures, tmp_path / "lr", 4)
    with pytest.raises(InputError, match=r"LR is 11x11 and HR 44x44.*ratio of 4; expected x2"):
        train(config(pictures, tmp_path / "run", lr=(lr,)))


def test_a_degraded_run_resumed_ends_with_the_weights_of_one_never_stopped(
    pictures: Path, tmp_path: Path
) -> None:
    settings = {"degradation": "real-esrgan", "steps": 6}
    whole = config(pictures, tmp_path / "whole", **settings)
    train(whole)
    parts = config(pictures, tmp_path / "parts", **settings, workers=0)
    asked = iter([False, False, True])
    stopped = train(parts, stop=lambda: next(asked, False))
    assert stopped is not None
    assert (stopped.step, stopped.finished) == (3, False)
    finished = train(read_config(parts.out), resume=True)
    assert finished is not None
    assert finished.finished
    assert_same_weights(whole.out, parts.out)
    assert "made by the degradation real-esrgan" in _card(whole)


def _card(settings: TrainConfig) -> str:
    from swise_deploy.training.run.model_card import write_model_card

    result = train(dataclasses.replace(settings, out=settings.out.with_name("card"), steps=2))
    assert result is not None
    write_model_card(result)
    return (result.config.out / "README.md").read_text()


def test_a_validation_that_a_stop_interrupts_is_made_up(pictures: Path, tmp_path: Path) -> None:
    whole = config(pictures, tmp_path / "whole", val_every=3)
    train(whole)
    for number in (3, 4):  # in the step that validates; and within the validation itself
        parts = config(pictures, tmp_path / f"parts{number}", val_every=3)
        answers = iter([False] * (number - 1) + [True] * 100)
        train(parts, stop=partial(next, answers))
        state = read_state(parts.out).progress
        assert (state.step, state.validation_due, state.best) == (3, True, None)
        train(read_config(parts.out), resume=True)
        assert read_state(parts.out).progress.best == read_state(whole.out).progress.best
        steps = [r["step"] for r in read_log(parts.out) if r["kind"] == "val"]
        assert steps == [3, 6]


def test_a_run_resumes_from_another_folder_without_the_weights_it_began_with(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(config(pictures, tmp_path / "first"))
    start = tmp_path / "start.safetensors"
    shutil.copy(tmp_path / "first" / "fsrcnn_x2.safetensors", start)
    monkeypatch.chdir(tmp_path)
    train(
        config(
            Path("pictures"),
            Path("run"),
            init=Path("start.safetensors"),
            teacher=(start,),
            steps=40,
            batch_size=8,
            cache=Path("cache"),
        )
    )
    start.unlink()
    monkeypatch.chdir("/")
    shutil.move(pictures, tmp_path / "elsewhere")
    arguments = ["--resume", "--out", str(tmp_path / "run"), "--steps", "44"]
    assert main([*arguments, "--data", str(tmp_path / "elsewhere")]) == 0
    shown = capsys.readouterr().err
    assert "the cosine schedule now ends at step 44: the learning rate at step 40" in shown
    assert read_state(tmp_path / "run").progress.step == 44


def test_other_teachers_are_not_taken_for_those_a_run_learns_from(
    pictures: Path, tmp_path: Path
) -> None:
    train(config(pictures, tmp_path / "first"))
    teacher = tmp_path / "first" / "best.safetensors"
    train(config(pictures, tmp_path / "run", teacher=(teacher,)))
    other = dataclasses.replace(
        read_config(tmp_path / "run"), steps=8, teacher=(tmp_path / "first" / "last.safetensors",)
    )
    shutil.copy(tmp_path / "run" / "last.safetensors", tmp_path / "first" / "last.safetensors")
    with pytest.raises(InputError, match="are not those that the run"):
        train(other, resume=True)


def test_two_runs_into_one_folder_are_refused(pictures: Path, tmp_path: Path) -> None:
    running = config(pictures, tmp_path / "run")

    def start_another() -> bool:
        with pytest.raises(InputError, match="another process trains into"):
            train(running, resume=True)
        return False

    assert train(running, stop=start_another) is not None
    assert not (running.out / ".lock").exists()


def test_a_bounded_number_of_validations_is_kept(pictures: Path, tmp_path: Path) -> None:
    train(config(pictures, tmp_path / "run", steps=8, val_every=2, keep=2))
    kept = sorted(path.name for path in (tmp_path / "run").glob("step_*"))
    assert kept == ["step_6.safetensors", "step_8.safetensors"]


def test_a_run_ends_early_when_validation_gets_no_better(pictures: Path, tmp_path: Path) -> None:
    still = config(
        pictures, tmp_path / "run", steps=40, val_every=2, patience=3, learning_rate=1e-12
    )
    result = train(dataclasses.replace(still, ema_decay=0.0))
    assert result is not None
    assert result.finished
    assert result.step < 40
    best = read_state(still.out).progress.best
    assert best is not None
    assert result.step == best.step + 2 * 3


def test_a_flat_picture_does_not_choose(pictures: Path, tmp_path: Path) -> None:
    val = write_pictures(tmp_path / "val", 1, seed=7)
    alone = config(pictures, tmp_path / "alone", val=val)
    train(alone)
    Image.new("RGB", (44, 44)).save(val / "fade_to_black.png")
    both = config(pictures, tmp_path / "both", val=val)
    result = train(both)
    assert result is not None
    assert result.num_validation == 1
    assert read_state(both.out).progress.best == read_state(alone.out).progress.best
    for path in val.glob("0*"):
        path.unlink()
    with pytest.raises(InputError, match="are flat, such as fade_to_black"):
        train(config(pictures, tmp_path / "none", val=val))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"patch_size": 100}, "--patch-size"),
        ({"test": (Path("nowhere"),)}, "--test: no folder at nowhere"),
        ({"val": Path("nowhere")}, "--val: no folder at nowhere"),
        ({"init": Path("nowhere.pth")}, "--init: no file at nowhere"),
        ({"teacher": (Path("nowhere.pth"),)}, "--teacher: no file at nowhere"),
        ({"degradation": "jpg"}, "unknown degradation 'jpg'"),
        ({"scale": 1}, "bicubic changes nothing"),
        ({"lr": (Path("a"),), "degradation": "noise-jpeg"}, "lr is a"),
        ({"val_lr": (Path("a"),)}, "val_lr is 1 folders"),
        ({"model": "spandrel"}, "with model spandrel, a checkpoint"),
    ],
)
def test_the_option_at_fault_is_named_before_anything_is_measured(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    complaint: str,
) -> None:
    def measure(*_: object, **__: object) -> tuple[str, str]:
        assert "patch_size" in settings, "measured before the paths were checked"
        return "fp32", "here"

    monkeypatch.setattr("swise_deploy.training.loop.resolve_precision", measure)
    with pytest.raises(InputError, match=complaint):
        train(config(pictures, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


FACTORIES = """
import torch
from torch import nn
from torch.nn import functional as F


class Own(nn.Module):
    def __init__(self, channels=3, scale=2):
        super().__init__()
        self.scale = scale
        self.body = nn.Conv2d(channels, channels * scale**2, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels * scale**2)

    def forward(self, x):
        up = F.interpolate(x, scale_factor=self.scale) if self.scale > 1 else x
        return up + F.pixel_shuffle(self.norm(self.body(x)), self.scale)


def rgb(): return Own()
def luma(): return Own(1)
def alpha(): return Own(4)
def x8(): return Own(3, 8)
def restore(): return Own(3, 1)
"""


@pytest.mark.parametrize(
    ("factory", "settings"),
    [
        ("rgb", {}),
        ("luma", {}),
        ("alpha", {"loss": "charbonnier"}),
        ("x8", {"scale": 8, "patch_size": 2}),
        ("restore", {"scale": 1, "degradation": "noise-jpeg"}),
    ],
)
def test_a_network_of_ones_own_trains_resumes_and_opens_again(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    factory: str,
    settings: dict[str, object],
) -> None:
    (tmp_path / "own_networks.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    model = f"own_networks:{factory}"
    whole = config(pictures, tmp_path / "whole", model=model, **settings)
    scale = whole.scale
    result = train(whole)
    assert result is not None
    assert result.weights.name == f"own_x{scale}.safetensors"
    assert "body.weight" in load_file(result.weights)
    parts = dataclasses.replace(whole, out=tmp_path / "parts")
    asked = iter([False, False, True])
    train(parts, stop=lambda: next(asked, False))
    train(read_config(parts.out), resume=True)
    assert_same_weights(whole.out, parts.out)
    opened = open_any(model, scale=scale, weights=result.weights)
    assert opened.module(torch.zeros(1, 3, 5, 6)).shape == (1, 3, 5 * scale, 6 * scale)
    started = dataclasses.replace(whole, out=tmp_path / "next", init=result.weights)
    assert train(started) is not None
    with pytest.raises(InputError, match=f"upscales x{scale}, not x3"):
        train(dataclasses.replace(whole, scale=3, out=tmp_path / "other"))


def test_a_checkpoint_that_spandrel_knows_trains_and_resumes_without_it(
    pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torchvision", reason="spandrel needs torchvision")
    architecture = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG")
    theirs = architecture.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=2)
    start = tmp_path / "compact.pth"
    torch.save({"params": theirs.state_dict()}, start)
    whole = config(pictures, tmp_path / "whole", model="spandrel", init=start)
    train(whole)
    parts = dataclasses.replace(whole, out=tmp_path / "parts")
    asked = iter([False, False, True])
    train(parts, stop=lambda: next(asked, False))
    start.unlink()
    result = train(read_config(parts.out), resume=True)
    assert result is not None
    assert_same_weights(whole.out, parts.out)
    assert open_any("spandrel", scale=2, weights=result.weights).name == "compact"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 on this system")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_without_scoring_anything(
    pictures: Path, tmp_path: Path, number: str
) -> None:
    large = write_pictures(tmp_path / "large", 12, side=400)
    out = tmp_path / "run"
    arguments = ["--data", pictures, "--val", large, "--test", large, "--out", out]
    arguments += ["--cache", tmp_path / "cache", "--model", "fsrcnn", "--steps", 10**6]
    arguments += ["--batch-size", 2, "--patch-size", 8, "--precision", "fp32", "--save-every", 5]
    arguments += ["--val-every", 10**6, "--accelerator", "cpu", "--no-tensorboard"]
    process = subprocess.Popen(
        [sys.executable, "-m", "swise_deploy.training.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "state.pt").is_file():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, "no state in 2 minutes"
        time.sleep(0.01)
    process.send_signal(getattr(signal, number))
    _, shown = process.communicate(timeout=60)
    assert process.returncode == STOPPED, shown
    assert "go on with: swise-train --resume" in shown
    assert not [record for record in read_log(out) if record["kind"] == "val"]
    card = (out / "README.md").read_text()
    assert "| large |" not in card
    state = read_state(out).progress
    assert state.best is None
    assert not state.validation_due


def test_a_name_that_is_no_utf_8_is_trained_on(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / os.fsdecode(b"pict\xe9"), 6)
    (folder / "0000.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    result = train(config(folder, tmp_path / os.fsdecode(b"r\xfcn")))
    assert result is not None
    assert result.num_pictures + result.num_validation == 6
    again = train(dataclasses.replace(read_config(result.config.out), steps=8), resume=True)
    assert again is not None
    assert again.step == 8


def test_the_pictures_of_a_degradation_are_written_the_same_every_time(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for name in ("first", "second"):
        arguments = ["--data", pictures, "--degradation", "noise-jpeg", "--write-lr"]
        assert main([*map(str, arguments), str(tmp_path / name)]) == 0
        made.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert "6 pictures in" in capsys.readouterr().out
    assert made[0] == made[1]
    assert set(made[0]) == {path.name for path in pictures.iterdir()}
    assert read_rgb(tmp_path / "first" / "0000.png").shape == (22, 22, 3)


def _start_node(rank: int, port: int, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A machine of its own, as torchrun sees it: a launcher with one process."""
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)]
    launcher += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "run"]
    launcher += ["--rdzv-endpoint", f"localhost:{port}", "-m", "swise_deploy.training.cli"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *launcher, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
        )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ps") is None, reason="finds a launcher's process with ps")
def test_of_two_nodes_one_is_killed_and_both_go_on(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words: list[object] = ["--data", pictures, "--out", out, "--cache", tmp_path / "cache"]
    words += ["--model", "fsrcnn", "--steps", 10**6, "--batch-size", 4, "--patch-size", 8]
    words += ["--holdout", 2, "--optimizer", "adam", "--precision", "fp32", "--accelerator", "cpu"]
    words += ["--log-every", 5, "--save-every", 10, "--no-tensorboard"]
    port = _free_port()
    first, second = (
        _start_node(rank, port, list(map(str, words)), tmp_path / f"log{rank}.txt")
        for rank in (0, 1)
    )
    deadline = time.monotonic() + 240
    while not (out / "state.pt").is_file():
        assert first.poll() is None, (tmp_path / "log0.txt").read_text()[-2000:]
        assert time.monotonic() < deadline, "no state in 4 minutes"
        time.sleep(0.05)
    listed = subprocess.run(
        [shutil.which("ps") or "ps", "-o", "pid=", "--ppid", str(second.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    for number in [second.pid, *map(int, listed.stdout.split())]:
        os.kill(number, signal.SIGKILL)
    second.wait()
    assert first.wait(timeout=240) != 0
    shown = (tmp_path / "log0.txt").read_text()
    assert "another process of the run is gone" in shown
    step = read_state(out).progress.step
    more = ["--resume", "--out", str(out), "--steps", str(step + 10)]
    port = _free_port()
    nodes = [_start_node(r, port, more, tmp_path / f"log{r}.txt") for r in (0, 1)]
    assert [node.wait(timeout=240) for node in nodes] == [0, 0]
    assert read_state(out).progress.step == step + 10
