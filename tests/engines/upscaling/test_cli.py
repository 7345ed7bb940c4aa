import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_engines.upscaling.cli import main

ROOT = Path(__file__).resolve().parents[3]


def command(*arguments):
    return [sys.executable, "-m", "swise_engines.upscaling.cli", *map(str, arguments)]


def environment(tmp_path):
    rooms = [str(ROOT / room) for room in (".", "export", "engines", "bench")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(rooms),
        "XDG_CACHE_HOME": str(tmp_path / "c"),
    }


def save(path, size=(6, 4), value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def test_a_folder_with_bad_files_is_summed_up_and_exits_with_1(tmp_path, small_network, capsys):
    save(tmp_path / "in/good.png")
    (tmp_path / "in/bad.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    model = str(small_network())
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", model]
    assert main([*arguments, "--json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["done"] == 1
    assert document["scale"] == 2
    assert list(document["failed"]) == [str(tmp_path / "in/bad.jpg")]
    assert "bad.jpg" in captured.err
    assert "Traceback" not in captured.err
    (tmp_path / "in/bad.jpg").unlink()
    assert main(arguments) == 0
    summary = "0 done, 1 there already (--overwrite does it again), 0 failed; nothing to do"
    assert summary in capsys.readouterr().out
    assert main([*arguments, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.png", "-o", "out"], 2, "no picture at missing.png"),
        (["holidya.png", "-o", "sr.png"], 2, "no picture at holidya.png"),
        (["holidya.mp4", "b.png", "-o", "sr.png"], 2, "no video at holidya.mp4"),
        (["in/*.png", "-o", "sr.png"], 2, "no file matches in/*.png"),
        (["missing.mp4", "-o", "out.mp4"], 2, "no video at missing.mp4"),
        (["-", "b.png", "-o", "-"], 2, "give one input"),
        (["nowhere.png", "-o", "-"], 2, "no picture at nowhere.png"),
    ],
)
def test_usage_that_cannot_work_is_refused_in_one_line(
    arguments, code, message, *, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert message in capsys.readouterr().err


def broken_weights(tmp_path):
    """Weights that are refused when the network is opened."""
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    return ["--model", str(tmp_path / "broken.pth"), "--scale", "2"]


def save_transparent(path):
    Image.new("RGBA", (6, 4), (1, 2, 3, 100)).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("cut.png", "sr.png", "cut.png: .*truncated"),
        ("text.jpg", "sr.jpg", "text.jpg: no PNG, JPEG"),
        ("transparent.png", "sr.jpg", "transparent.png: it is transparent, which jpg cannot hold"),
        ("good.png", "good.png/sr.png", "cannot write .*sr.png: Not a directory"),
        ("good.png", f"{'n' * 300}.png", "its name has 304 bytes"),
        ("text.mp4", "sr.mp4", "cannot open .*text.mp4 as a video"),
        ("video.mp4", "sr.qqq", "sr.qqq is not named like one"),
    ],
)
def test_what_no_network_can_do_is_refused_before_one_is_opened(
    name, output, message, *, tmp_path, capsys
):
    save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-30])
    for text in ("text.jpg", "text.mp4", "video.mp4"):
        (tmp_path / text).write_text("no picture")
    save_transparent(tmp_path / "transparent.png")
    arguments = [str(tmp_path / name), "-o", str(tmp_path / output), *broken_weights(tmp_path)]
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) in {1, 2}
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert "broken.pth" not in captured.err
    assert "nothing to do" not in captured.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_from_stdin_is_read_before_the_network_is_opened(tmp_path):
    done = subprocess.run(
        command("-", "-o", "-", *broken_weights(tmp_path)),
        input=b"no picture",
        capture_output=True,
        env=environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"no PNG, JPEG" in done.stderr


def test_refused_pictures_before_a_good_one_stop_only_themselves(tmp_path, small_network, capsys):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    save(tmp_path / "c.png")
    inputs = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    arguments = [*inputs, "-o", str(tmp_path / "out"), "--model", str(small_network())]
    assert main([*arguments, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert list(document["failed"]) == inputs[:2]
    assert document["done"] == 1


def test_an_impossible_quality_is_refused_with_the_range(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["a.png", "-o", "b.jpg", "--quality", "101"])
    assert stop.value.code == 2
    assert "'101': expected 1 to 100" in capsys.readouterr().err


def test_tile_and_memory_exclude_each_other(capsys):
    assert main(["a.png", "-o", "b.png", "--tile", "64", "--memory", "512"]) == 2
    error = capsys.readouterr().err
    assert "--tile" in error
    assert "--memory" in error


def test_a_picture_goes_through_pipes(tmp_path, small_network):
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (10, 200, 30)).save(file, "BMP")
    done = subprocess.run(
        command("-", "-o", "-", "--model", small_network(radius=0)),
        input=file.getvalue(),
        capture_output=True,
        env=environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == (10, 200, 30)).all()
        assert image.size == (10, 8)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_stderr_that_is_closed_or_full_stops_no_work(tmp_path, small_network, redirection):
    save(tmp_path / "a.png")
    words = command(tmp_path / "a.png", "-o", tmp_path / "b.png", "--model", small_network())
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join([*words, '--runner', 'onnxruntime'])} {redirection}"],  # noqa: S607
        env=environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (12, 8)


def test_a_picture_for_a_closed_stdout_is_an_error(tmp_path, small_network):
    save(tmp_path / "a.png")
    words = command(tmp_path / "a.png", "-o", "-", "--model", small_network())
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join([*words, '--runner', 'onnxruntime'])} >&-"],  # noqa: S607
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "stdout is closed" in done.stderr


def test_ctrl_c_leaves_whole_files_and_the_next_run_goes_on(tmp_path, small_network):
    for i in range(200):
        save(tmp_path / f"in/{i:03}.png", size=(80, 60), value=i % 256)
    arguments = ["in", "-o", "out", "--model", small_network(radius=0), "--quiet"]
    # The command sends the signal itself, at its fifth picture, as if the user pressed Ctrl-C.
    code = f"""
import os, sys
from swise_engines.upscaling.cli import main
from swise_engines.upscaling.meter import Meter
def interrupt(self, done, total, label=""):
    if done == 5:
        os.kill(os.getpid(), {signal.SIGINT.value})
Meter.update = interrupt
sys.exit(main())
"""
    interrupted = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        cwd=tmp_path,
        env=environment(tmp_path),
        text=True,
        timeout=120,
        check=False,
    )
    assert interrupted.returncode == 130, interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    done = list((tmp_path / "out").iterdir())
    assert 5 <= len(done) < 200
    assert all(path.suffix == ".png" and not path.name.startswith(".") for path in done)
    for path in done:
        with Image.open(path) as image:
            assert (np.asarray(image) == int(path.stem) % 256).all()
    rest = subprocess.run(
        command(*arguments, "--json"),
        capture_output=True,
        cwd=tmp_path,
        env=environment(tmp_path),
        timeout=120,
        check=True,
    )
    summary = json.loads(rest.stdout)
    assert summary["skipped"] == len(done)
    assert summary["done"] == 200 - len(done)
