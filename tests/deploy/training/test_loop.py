import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from swise_deploy.checkpoints.load import open_network
from swise_deploy.checkpoints.shipped import shipped_weights
from swise_deploy.errors import InputError
from swise_deploy.training.cli import main
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.loop import DivergedError, train
from swise_deploy.training.run.run_files import read_config, read_log, read_state
from swise_deploy.training.step.network import build_network

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Smooth random pictures, so that a few steps learn something."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((44, 40), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in the same order everywhere: runs are compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(pictures, out, **settings):
    """FSRCNN at x2: 12 thousand weights, a step in milliseconds."""
    base = TrainConfig(
        data=pictures,
        out=out,
        cache=out.parent / "cache",
        model="fsrcnn",
        steps=60,
        batch_size=4,
        patch_size=8,
        learning_rate=1e-3,
        warmup_steps=5,
        weight_norm=("*",),
        holdout=2,
        precision="fp32",
        accelerator="cpu",
        workers=1,
        log_every=5,
        save_every=10,
        val_every=20,
        tensorboard=False,
    )
    return dataclasses.replace(base, **settings)


def flags(settings):
    """A config as command line arguments."""
    arguments = []
    for name, value in dataclasses.asdict(settings).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None and value not in ((), "") and name not in HIDDEN:
            if name in REPEATED:
                items = value if isinstance(value, tuple) else (value,)
                arguments += [word for item in items for word in (flag, str(item))]
                continue
            text = ",".join(value) if isinstance(value, tuple) else value
            arguments += [flag, str(text)]
    return arguments


REPEATED = {"data", "lr", "val", "val_lr", "test", "test_lr", "teacher", "track"}
HIDDEN = {"final_learning_rate", "betas", "weight_decay", "halve_every"}


def command(*launcher):
    return [sys.executable, *launcher, "-m", "swise_deploy.training.cli"]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def weights_of(out):
    return load_file(out / "last.safetensors")


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
    """60 steps without a break."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = train(config(pictures, tmp_path_factory.mktemp("runs") / "straight"))
    torch.set_num_threads(threads)
    return result


def test_a_killed_run_resumed_ends_with_the_weights_of_one_never_killed(
    straight, pictures, tmp_path
):
    settings = config(pictures, tmp_path / "killed")
    process = subprocess.Popen(
        [*command(), *flags(settings)], env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not any(r["step"] >= 30 for r in read_log(settings.out)):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no 30 steps in 2 minutes"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = read_state(settings.out).progress.step
    assert 20 <= killed_at < 60
    result = train(read_config(settings.out), resume=True)
    assert result is not None
    assert result.finished
    assert_same_weights(weights_of(settings.out), weights_of(straight.config.out))
    a, b = read_state(settings.out), read_state(straight.config.out)
    for name, tensor in a.network.items():
        assert torch.equal(tensor, b.network[name]), name
    assert a.progress.best == b.progress.best
    losses = [
        [(r["step"], r["loss"]) for r in read_log(out) if r["kind"] == "train"]
        for out in (settings.out, straight.config.out)
    ]
    assert losses[0] == losses[1]


def test_two_processes_end_with_the_weights_of_one(pictures, tmp_path):
    # The sums over two halves and over the whole differ in their last bits. Adam's first steps are
    # as long as the learning rate, 1e-3, whatever the gradient: 1e-5 is 1 % of one step.
    settings = config(
        pictures, tmp_path / "one", steps=10, optimizer="adam", weight_norm=(), ema_decay=0.0
    )
    train(settings)
    pair = dataclasses.replace(settings, out=tmp_path / "two")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(
        [*command(*launcher), *flags(pair)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("fsrcnn_x2.safetensors") == 1
    alone, together = weights_of(settings.out), weights_of(pair.out)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-5, rtol=0, msg=name)
    untrained = build_network(settings).module.state_dict()
    assert all((alone[n] - untrained[n]).abs().max() > 1e-3 for n in alone if "weight" in n)


def test_a_run_learns_and_leaves_weights_that_open(straight):
    log = [r for r in read_log(straight.config.out) if r["kind"] == "train"]
    assert np.mean([r["loss"] for r in log[-3:]]) < 0.5 * log[0]["loss"]
    assert all(r["data_ms_per_step"] >= 0 and r["steps_per_s"] > 0 for r in log)
    assert straight.num_pictures == 4
    assert straight.num_validation == 2
    opened = open_network(scale=2, weights=straight.weights)
    assert opened.name == "fsrcnn"
    val = {r["step"]: r["psnr_y_db"] for r in read_log(straight.config.out) if r["kind"] == "val"}
    assert set(val) == {20, 40, 60}
    assert straight.best_psnr_y_db == max(val.values())


@pytest.mark.parametrize("model", ["swisenet", "swisenet_no_sum"])
def test_swisenet_trains_with_the_papers_weight_norm_and_is_saved_plain(pictures, tmp_path, model):
    settings = config(
        pictures,
        tmp_path / "run",
        model=model,
        scale=3,
        steps=2,
        batch_size=1,
        patch_size=5,
        weight_norm=("head", "*reductions*", "upsampler*"),
        holdout=0,
        optimizer="adamp",
    )
    result = train(settings)
    assert result is not None
    opened = open_network(weights=result.weights)
    assert (opened.name, opened.scale) == (model, 3)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(pictures, tmp_path):
    settings = config(
        pictures, tmp_path / "run", steps=40, save_every=5, weight_norm=(), clip_norm=0.0
    )
    train(dataclasses.replace(settings, steps=10, schedule="constant"))
    good = (settings.out / "state.pt").read_bytes()
    wild = dataclasses.replace(
        read_config(settings.out), steps=40, learning_rate=1e30, clip_norm=0.0
    )
    with pytest.raises(DivergedError, match=r"The state of step 10 is good.*--learning-rate"):
        train(wild, resume=True)
    assert (settings.out / "state.pt").read_bytes() == good
    assert read_log(settings.out)[-1]["event"] == "diverged"
    calm = dataclasses.replace(wild, learning_rate=1e-4, steps=15)
    result = train(calm, resume=True)
    assert result is not None
    assert result.step == 15


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_later(pictures, tmp_path):
    settings = config(pictures, tmp_path / "run", steps=30)
    asked = iter([False] * 6 + [True])
    result = train(settings, stop=lambda: next(asked))
    assert result is not None
    assert (result.step, result.finished) == (7, False)
    assert read_state(settings.out).progress.step == 7
    assert [r["step"] for r in read_log(settings.out) if r["kind"] == "val"] == []
    result = train(read_config(settings.out), resume=True)
    assert result is not None
    assert result.finished


def test_other_pictures_are_not_taken_for_the_ones_a_run_began_with(pictures, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in pictures.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    settings = config(folder, tmp_path / "run", steps=2)
    train(settings)
    (folder / "0.png").unlink()
    longer = dataclasses.replace(read_config(settings.out), steps=4)
    with pytest.raises(InputError, match="are not those that the run"):
        train(longer, resume=True)


def test_a_folder_with_a_run_is_not_overwritten(straight):
    with pytest.raises(InputError, match=r"holds a run already\. Continue it with --resume"):
        train(straight.config)


def test_a_batch_that_processes_cannot_share_is_refused(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="batch_size is 4, which 3 processes cannot share"):
        train(config(pictures, tmp_path / "run"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "bicubic", "weight_norm": ()}, "no weights to train"),
        ({"scale": 5}, "has no x5"),
        ({"holdout": 4}, "holdout is 4, of 6 usable pictures"),
        ({"patch_size": 100}, "no picture is large enough"),
        ({"accelerator": "abacus"}, "cannot start 1 x 1 processes on 'abacus'"),
    ],
)
def test_what_cannot_be_trained_is_refused(pictures, tmp_path, settings, message):
    changed = {"holdout": 0, **settings}
    with pytest.raises(InputError, match=message):
        train(config(pictures, tmp_path / "run", **changed))


def test_command_line_trains_resumes_and_writes_a_card(pictures, tmp_path, capsys):
    settings = config(pictures, tmp_path / "run", steps=6, test=(), tensorboard=True)
    test_set = tmp_path / "Tiny" / "HR"
    test_set.mkdir(parents=True)
    (test_set / "a.png").write_bytes((pictures / "0.png").read_bytes())
    assert main([*flags(settings), "--test", str(test_set), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["step"] == 6
    assert facts["test"]["Tiny"]["psnr_y_db"] > 10
    card = (settings.out / "README.md").read_text()
    assert "# FSRCNN x2" in card
    assert f"| Tiny | {facts['test']['Tiny']['psnr_y_db']:.2f} |" in card
    assert str(tmp_path) not in card
    with Image.open(settings.out / "curve.png") as curve:
        assert curve.size == (960, 480)
    assert list((settings.out / "tensorboard").glob("events.*"))

    assert main(["--resume", "--out", str(settings.out), "--steps", "8", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["step"] == 8
    assert "steps is now 8, was 6" in output.err
    assert main(["--resume", "--out", str(settings.out), "--seed", "9"]) == 2
    assert "--resume with seed = 9" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [2, 30])
def test_command_line_learns_from_teachers_and_the_card_says_so(
    straight, pictures, tmp_path, capsys, steps
):
    teacher, other = straight.weights, tmp_path / "same.safetensors"
    other.write_bytes(teacher.read_bytes())
    settings = config(
        pictures,
        tmp_path / "run",
        steps=steps,
        weight_norm=(),
        teacher=(teacher, other),
        teacher_share=0.25,
    )
    assert main(flags(settings)) == 0
    shown = capsys.readouterr().err
    assert "learning 25% from FSRCNN and FSRCNN\n" in shown
    assert f"and {straight.best_psnr_y_db:.3f} dB of its teacher" in shown
    card = (settings.out / "README.md").read_text()
    assert f"Learnt 25% from the mean of the pictures of {teacher.name}, {other.name}, the" in card
    assert str(teacher.parent) not in card
    # 30 steps of 4 crops of 8x8 pixels are more than the 6 pictures of 22x20 have.
    assert bool(list(settings.cache.glob("*/teacher_x2_*.bin"))) == (steps == 30)


def test_a_loss_below_zero_has_a_curve(pictures, tmp_path):
    settings = config(pictures, tmp_path / "run", steps=10, loss="psnr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a logarithmic axis warns of them, and shows nothing
        assert main(flags(settings)) == 0
    assert (settings.out / "curve.png").is_file()
    losses = [record["loss"] for record in read_log(settings.out) if record["kind"] == "train"]
    assert max(losses) < 0


def test_a_teacher_in_all_orientations_is_said_and_cached_apart(straight, pictures, tmp_path):
    shown = {}
    for ensemble in (False, True):
        settings = config(
            pictures,
            tmp_path / f"run_{ensemble}",
            steps=30,
            weight_norm=(),
            teacher=(straight.weights,),
            teacher_ensemble=ensemble,
        )
        assert main(flags(settings)) == 0
        shown[ensemble] = (settings.out / "README.md").read_text()
    assert "each in 8 orientations" in shown[True]
    assert "orientations" not in shown[False].replace("teacher_ensemble", "")
    outputs = sorted(file.read_bytes() for file in settings.cache.glob("*/teacher_x2_*.bin"))
    assert len(outputs) == 2
    assert outputs[0] != outputs[1]


def test_a_stop_ends_the_upscaling_by_a_teacher_and_leaves_no_file(straight, pictures, tmp_path):
    settings = config(pictures, tmp_path / "run", weight_norm=(), teacher=(straight.weights,))
    with pytest.raises(KeyboardInterrupt):
        train(settings, stop=lambda: True)
    assert not [file for file in settings.cache.glob("*/*") if "teacher_" in file.name]
    assert not settings.out.exists()


def test_a_teacher_of_a_smaller_scale_is_refused(pictures, tmp_path):
    teacher = shipped_weights("swisenet", 2)
    assert teacher is not None
    settings = config(pictures, tmp_path / "run", scale=3, holdout=0, teacher=(teacher,))
    with pytest.raises(InputError, match=f"{teacher.name}.* x2"):
        train(settings)


def test_recipe_is_shown_and_missing_settings_are_usage_errors(capsys, tmp_path):
    assert main(["--show-recipe", "--recipe", "paper"]) == 0
    assert "adamp" in capsys.readouterr().out
    assert main(["--out", str(tmp_path)]) == 2
    assert "--data DIR" in capsys.readouterr().err
    assert main(["--resume", "--out", str(tmp_path / "none")]) == 2
    assert "nothing to resume" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_learns_in_every_number_format_and_goes_on_where_it_stopped(
    pictures, tmp_path, precision
):
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that torch can use")
    out = tmp_path / "run"
    # fp16 begins with a loss scale that overflows: its first steps are skipped by design.
    gpu = config(pictures, out, steps=40, precision=precision, accelerator="cuda")
    asked = iter([False] * 19 + [True])
    stopped = train(gpu, stop=lambda: next(asked, False))
    assert stopped is not None
    assert (stopped.step, stopped.finished) == (20, False)
    finished = train(read_config(out), resume=True)
    assert finished is not None
    assert (finished.step, finished.finished) == (40, True)
    assert finished.config.precision == precision
    losses = [record["loss"] for record in read_log(out) if record["kind"] == "train"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_recorded_steps_end_with_the_weights_of_plain_ones(pictures, tmp_path, precision):
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that torch can use")
    weights = {}
    for recorded in (False, True):
        out = tmp_path / f"{recorded}"
        gpu = config(pictures, out, steps=12, precision=precision, accelerator="cuda")
        train(dataclasses.replace(gpu, cuda_graph=recorded, ema_decay=0.0))
        weights[recorded] = load_file(out / "last.safetensors")
    # Gradients are summed in any order; 12 steps of Adam at 1e-3 move weights by up to 1e-2.
    for name, plain in weights[False].items():
        torch.testing.assert_close(weights[True][name], plain, rtol=0, atol=1e-4)


def test_a_cuda_graph_without_a_gpu_is_left_out_with_a_word(pictures, tmp_path, capsys):
    train(config(pictures, tmp_path / "run", steps=5, cuda_graph=True, loss="mse"))
    assert "cuda_graph is for one GPU" in capsys.readouterr().err
