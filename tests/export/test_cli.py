import json
import os
import pickle
import platform
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from swise_deploy.checkpoints.shipped import shipped_weights
from swise_deploy.pictures.files import write_image
from swise_export.cli import main

REPORT_KEYS = {
    "artifact", "manifest", "model", "scale", "precision", "io", "params", "mult_adds_g", "lr_size",
    "size_bytes", "parity", "drift", "latency", "seconds",
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with one small picture, so that a whole export takes seconds."""
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    write_image(tmp_path / "pictures" / "blocks.png", smooth)
    return tmp_path / "pictures"


def test_json_report_is_whole(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "net.onnx"
    assert main(["--fp16", "--images", str(pictures), "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) >= REPORT_KEYS
    assert report["params"] == 924_836
    assert report["lr_size"] == [640, 360]
    # Counted by torch's FlopCounterMode as well, over two.
    assert report["mult_adds_g"] == pytest.approx(178.4, abs=0.1)
    assert report["drift"]["images"] == 1
    assert abs(report["drift"]["psnr_y_db"]) < 0.05
    assert report["parity"]["max_abs"] < 0.01
    assert report["latency"]["p90_ms"] >= report["latency"]["p50_ms"] > 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["net.json", "net.onnx"]
    assert out.stat().st_size == report["size_bytes"]


def test_published_mult_adds_do_not_stand_beside_those_at_another_size(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.onnx"
    assert main(["--images", str(pictures), "-o", str(out), "--size", "16x12"]) == 0
    report = capsys.readouterr().out
    assert "924,836 counted (published: 1077 K)" in report
    assert "236.5" not in report


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have half kernels")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_latency_of_half_precision_on_x86_is_said_to_be_no_measure_of_a_gpu(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    arguments = ["--model", "bicubic", "--images", str(pictures), "-o", str(tmp_path / "net.onnx")]
    assert main([*arguments, f"--{precision}"]) == 0
    assert ("no measure of a GPU" in capsys.readouterr().out) == (precision == "fp16")


@pytest.mark.parametrize(
    ("flag", "allowed"),
    [("--max-drift", "allowed: -100"), ("--max-worst", "allowed: 0.05 dB, -100.0 dB on any one")],
)
def test_gate_refuses_and_leaves_nothing(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str], flag: str, allowed: str
) -> None:
    out = tmp_path / "net.onnx"
    out.write_text("an older artefact")
    # No artefact gains 100 dB.
    arguments = ["--images", str(pictures), "-o", str(out), flag, "-100"]
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 4
    stderr = capsys.readouterr().err
    assert allowed in stderr
    assert f"Allow more with {flag}" in stderr
    assert out.read_text() == "an older artefact"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "pictures"]


def broken_weights(folder: Path, kind: str) -> Path:
    """A checkpoint that cannot be used, of some kind."""
    shipped = shipped_weights("swisenet", 2)
    assert shipped is not None
    path = folder / f"{kind}.safetensors"
    if kind == "truncated":
        path.write_bytes(shipped.read_bytes()[:100_000])
    elif kind == "foreign":
        save_file({"classifier.weight": torch.zeros(3, 3)}, path)
    elif kind == "incomplete":
        state = load_file(shipped)
        del state["fuse.weight"]
        save_file(state, path)
    elif kind == "pickle":
        path = folder / "pickle.pth"
        torch.save({"code": Path("/")}, path)
    elif kind == "module":
        path = folder / "module.pth"
        torch.save(torch.nn.Conv2d(3, 3, 3), path)
    elif kind == "text":
        path = folder / "text.pth"
        path.write_text("hello")
    elif kind == "onnx":
        path = folder / "net.onnx"
        path.write_bytes(b"\x08\x08\x12\x07pytorch")
    elif kind == "folder":
        path = folder / "folder.pth"
        path.mkdir()
    elif kind == "cut":
        path = folder / "cut.pth"
        torch.save(load_file(shipped), path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "old":
        path = folder / "old.pth"
        path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no weights at"),
        ("truncated", "truncated.safetensors is no checkpoint, or is damaged"),
        ("foreign", "holds no network that is known"),
        ("foreign", "--model package.module:factory"),
        ("foreign", "--model spandrel"),
        ("module", "holds a torch.nn.modules.conv.Conv2d"),
        ("module", "state_dict()"),
        ("text", "text.pth is no checkpoint, or is damaged. Expected a whole .safetensors"),
        ("old", "old.pth is no checkpoint, or is damaged"),
        ("cut", "cut.pth is no checkpoint, or is damaged"),
        ("onnx", "swise-build, swise-bench and swise-upscale take ONNX files"),
        ("folder", "folder.pth is a folder"),
        ("incomplete", "fuse.weight"),
        ("pickle", "pickle.pth holds no tensors"),
    ],
)
def test_bad_checkpoint_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    weights = broken_weights(tmp_path, kind)
    assert main(["--weights", str(weights), "-o", str(tmp_path / "a.onnx")]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert "weights_only" not in stderr  # advice for programs that call torch
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "swisnet"], "Did you mean 'swisenet'?"),
        (
            ["--weights", str(shipped_weights("swisenet", 2)), "--scale", "3"],
            "weights for x2, not x3",
        ),
        (["--scale", "5"], "no weights for swisenet x5"),
        (["--images", "/nowhere"], "no folder at /nowhere"),
    ],
)
def test_wrong_choice_is_explained(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0x0", "12", "-3x4", "axb"])
def test_impossible_size_is_a_usage_error(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([f"--size={size}"])
    assert stop.value.code == 2
    assert repr(size) in capsys.readouterr().err


def test_folder_without_a_picture_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--images", str(tmp_path)]) == 2
    assert "no picture in" in capsys.readouterr().err


def test_unwritable_place_is_named(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "a.onnx"
    assert main(["--images", str(pictures), "-o", str(out)]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["net.png", "net.json", "net", "folder.onnx"])
def test_an_output_that_is_no_onnx_file_is_refused_at_once(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert main(["-o", str(tmp_path / name)]) == 2
    stderr = capsys.readouterr().err
    assert "NAME.onnx" in stderr
    assert "exporting" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_a_size_too_small_to_score_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A border of `scale` pixels is left out of PSNR: at 2x2 nothing would remain."""
    assert main(["--size", "2x2", "-o", str(tmp_path / "net.onnx")]) == 2
    assert "2x2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [["--max-drift", "nan"], ["--max-worst", "nan"], ["--threads", "-3"], ["--threads", "0"]],
)
def test_impossible_numbers_are_usage_errors(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(option)
    assert stop.value.code == 2
    assert f"'{option[1]}': expected" in capsys.readouterr().err


def test_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "swise_export.cli", "-o", str(tmp_path / "a.onnx")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "verifying" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import sys, contextlib\n"
        "from swise_export.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0
    assert "--max-drift" in done.stdout


def test_the_checkpoint_is_an_argument_as_in_the_other_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fsrcnn:2"]) == 2
    assert "Shipped: swisenet:2, swisenet:3, swisenet:4" in capsys.readouterr().err
    assert main([str(tmp_path / "no.pth")]) == 2
    assert "no weights at" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["swisenet:2", "--weights", "swisenet:3"])
    assert stop.value.code == 2
    assert "expected one checkpoint" in capsys.readouterr().err


def test_bf16_is_verified_with_its_rounding_and_not_timed_on_a_cpu(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.onnx"
    arguments = ["--model", "bicubic", "--images", str(pictures), "-o", str(out)]
    assert main([*arguments, "--bf16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["precision"], report["latency"]) == ("bf16", None)
    assert report["drift"]["measured_in"].endswith("rounding as a device")
    assert sum(report["mult_adds_shares"].values()) == pytest.approx(1)
    assert report["parity"]["max_abs"] < 2**-7  # 8 bits of values up to 1
    assert main([*arguments, "--bf16", "--overwrite"]) == 0
    assert "not measured: no runtime on a CPU computes in bf16" in capsys.readouterr().out


def test_bf16_for_a_runtime_without_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bf16", "--for", "onnxruntime"]) == 2
    assert "no bf16 file for onnxruntime; expected --for tensorrt" in capsys.readouterr().err
