"""`swise-export --int8`, on FSRCNN, whose eight layers are searched within seconds."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file

from swise_deploy.evaluation.pairs import Pair
from swise_deploy.networks import fsrcnn
from swise_deploy.pictures.files import write_image
from swise_deploy.timing import Interval
from swise_export import job
from swise_export.cli import main
from swise_export.config import ExportConfig
from swise_export.job import reason_to_fall_back
from swise_export.manifest import read_manifest
from swise_export.precision.plan import read_plan
from swise_export.precision.search.half_search import HalfSearch
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.verification.budget import DriftBudget


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments for a network with seeded weights, three pictures, a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "small.safetensors"
    torch.manual_seed(0)
    save_file(fsrcnn.build(2).state_dict(), weights)
    rng = np.random.default_rng(0)
    for i in range(3):
        blocks = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        write_image(tmp_path / "pictures" / f"{i}.png", blocks)
    pictures = str(tmp_path / "pictures")
    return ["--int8", "--weights", str(weights), "--images", pictures, "--calib", pictures,
            "--threads", "1"]  # fmt: skip


def export(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_report_manifest_and_graph_agree(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plan = tmp_path / "out" / "net.onnx", tmp_path / "plan.json"
    arguments = [*small, "-o", str(out), "--precision-plan", str(plan), "--max-drift", "0.2"]
    report = export(arguments, capsys)
    facts = report["int8"]
    assert 0.5 < facts["mult_adds_share"] <= 1
    assert facts["calibration"]["images"] == 2
    assert len(facts["calibration"]["sha256"]) == 64
    assert facts["calibration"]["method"] in {"minmax", "percentile", "entropy", "mse"}
    assert facts["time_against_fp32"]["low"] <= facts["time_against_fp32"]["value"]
    assert max(s["mult_adds_share"] for s in facts["drift_by_step"]) > 0.9
    assert report["drift"]["psnr_y_db"] >= -0.2
    manifest = read_manifest(out)
    assert manifest.precision == "int8"
    assert manifest.opset == 19
    assert manifest.int8 is not None
    assert manifest.int8.layers == facts["layers"]
    model = onnx.load(out)
    producers = {name: node for node in model.graph.node for name in node.output}
    in_int8 = [
        node.name
        for node in model.graph.node
        if node.op_type.startswith("Conv")
        and producers.get(node.input[1], node).op_type.startswith("Deq")
    ]
    assert len(in_int8) == facts["layers"]
    assert not set(in_int8) & set(facts["layers_fp16"])
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "net.json", "net.onnx", "net.pareto.png",
    ]  # fmt: skip
    # Replayed: the same file, without a search.
    again = tmp_path / "again.onnx"
    assert main([*arguments, "-o", str(again)]) == 0
    captured = capsys.readouterr()
    assert "replaying the precision plan" in captured.err
    assert "sensitivity" not in captured.err
    assert again.read_bytes() == out.read_bytes()
    # 8-bit pictures in and out, with the same layers; other settings than the plan's are refused.
    assert main([*arguments, "-o", str(tmp_path / "u8.onnx"), "--io", "uint8"]) == 0
    lr = np.random.default_rng(1).integers(0, 256, (1, 9, 11, 3), np.uint8)
    with OnnxRunner(tmp_path / "u8.onnx", as_device=True) as runner:
        assert runner.infer(lr).shape == (1, 18, 22, 3)
    capsys.readouterr()
    assert main([*arguments, "-o", str(again), "--rest", "fp32"]) == 2
    assert "made for rest fp16, not fp32" in capsys.readouterr().err
    other = tmp_path / "other.onnx"
    assert main(["--int8", "--precision-plan", str(plan), "-o", str(other)]) == 2
    assert "was made for model fsrcnn, not swisenet" in capsys.readouterr().err


def test_rest_in_fp32_stays_at_the_opset_that_tensorrt_8_6_reads(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.onnx"
    export([*small, "-o", str(out), "--rest", "fp32", "--calib-method", "mse",
            "--max-drift", "0.2"], capsys)  # fmt: skip
    assert read_manifest(out).opset == 17
    assert {t.data_type for t in onnx.load(out).graph.initializer} <= {
        onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.INT64,
    }  # fmt: skip


def test_fp8_goes_the_way_of_int8(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plan = tmp_path / "net.onnx", tmp_path / "plan.json"
    arguments = ["--fp8", *small[1:], "--precision-plan", str(plan), "--max-drift", "0.2"]
    report = export([*arguments, "-o", str(out)], capsys)
    facts = report["fp8"]
    assert 0.5 < facts["mult_adds_share"] <= 1
    assert facts["calibration"]["method"] == "minmax"
    assert (report["precision"], report["latency"]) == ("fp8", None)
    assert report["drift"]["psnr_y_db"] >= -0.2
    assert report["drift"]["measured_in"].endswith("rounding as a device")
    manifest = read_manifest(out)
    assert (manifest.precision, manifest.opset, manifest.int8) == ("fp8", 19, None)
    assert manifest.fp8 is not None
    assert manifest.fp8.layers == facts["layers"]
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    stored = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT8E4M3FN]
    assert sum(len(tensor.dims) == 4 for tensor in stored) == facts["layers"]
    # Replayed: the same file. A plan of one format is none of another.
    again = tmp_path / "again.onnx"
    assert main([*arguments, "-o", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()
    capsys.readouterr()
    assert main(["--int8", *arguments[1:], "-o", str(again)]) == 2
    assert "was made for precision fp8, not int8" in capsys.readouterr().err


def test_fp8_refuses_what_is_for_int8_and_for_cpus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--fp8", "--calib-method", "entropy"]) == 2
    assert "entropy is not for fp8; expected minmax" in capsys.readouterr().err
    assert main(["--fp8", "--for", "openvino"]) == 2
    assert "no fp8 file for openvino; expected --for tensorrt" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_budget_that_no_placement_fits_names_the_layer_in_the_way(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    out = tmp_path / "net.onnx"
    # No placement gains 100 dB.
    arguments = [f"--{precision}", *small[1:], "-o", str(out), "--calib-method", "minmax"]
    assert main([*arguments, "--max-drift", "-100"]) == 4
    message = capsys.readouterr().err
    assert f"no layer can be {precision.upper()} within -100.0 dB" in message
    assert "dB alone" in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fp16", "--calib", "."], "--calib . is for INT8 and FP8, not fp16"),
        (["--precision-plan", "p.json"], "precision plan p.json is for INT8 and FP8, not fp32"),
        (["--fp16", "--rest", "fp32"], "rest fp32 is for INT8 and FP8, not fp16"),
    ],
)
def test_settings_of_int8_are_refused_without_it(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_operations_that_lose_most_in_fp16_return_to_fp32() -> None:
    # 0.9 * 2^-26 is nothing in fp16, whose smallest number is 2^-24; the next two layers would have
    # brought it back. Neither the layer that gives it nor the one that reads it can be fp16.
    shape: list[int | str] = ["n", 3, "h", "w"]
    gains = {"shrink": 0.9 * 2.0**-26, "grow": 2.0**13, "restore": 2.0**13}
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    tensors = ["lr", "x", "y", "sr"]
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", [tensors[i], f"w_{name}"], [tensors[i + 1]], name=name)
                for i, name in enumerate(gains)
            ],
            "chain",
            [helper.make_tensor_value_info("lr", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("sr", onnx.TensorProto.FLOAT, shape)],
            [
                numpy_helper.from_array(eye * np.float32(gain), f"w_{name}")
                for name, gain in gains.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    image = np.random.default_rng(0).integers(64, 256, (16, 16, 3)).astype(np.uint8)
    search = partial(HalfSearch, model, [Pair("noise", image, image)], scale=1, threads=1)
    budget = DriftBudget(0.01)
    assert set(search(precision="fp16", kept=()).nodes_for_fp32(budget) or ()) == {"grow", "shrink"}
    assert search(precision="fp16", kept=("shrink",)).nodes_for_fp32(budget) == ("grow",)
    assert search(precision="fp16", kept=("shrink", "grow")).nodes_for_fp32(budget) == ()
    # bf16 has the exponents of fp32, and its 8 bits cost some 0.1 dB of a perfect picture.
    assert search(precision="bf16", kept=()).nodes_for_fp32(DriftBudget(100)) == ()
    # No placement gains 100 dB.
    assert search(precision="bf16", kept=()).nodes_for_fp32(DriftBudget(-100)) is None


def test_a_file_for_openvino_is_measured_in_openvino(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    out, plan = tmp_path / "net.onnx", tmp_path / "plan.json"
    arguments = [*small, "-o", str(out), "--calib-method", "mse", "--max-drift", "0.2",
                 "--precision-plan", str(plan), "--keep-slower"]  # fmt: skip
    report = export([*arguments, "--for", "openvino"], capsys)
    assert report["made_for"] == "openvino"
    assert report["int8"]["rest"] == "fp32"
    assert report["int8"]["layers_unsigned"] == [x.name for x in read_plan(plan).unsigned_layers]
    assert report["int8"]["layers_unsigned"]
    assert report["drift"]["measured_in"].startswith("openvino")
    assert report["latency"]["runtime"].startswith("openvino")
    manifest = read_manifest(out)
    assert (manifest.runtime, manifest.max_drift_db) == ("openvino", 0.2)
    assert manifest.drift is not None
    assert manifest.drift.measured_in == report["drift"]["measured_in"]
    # Activations as uint8 around 128, or from 0 where none is negative; weights stored as int8.
    model = onnx.load(out)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    zeros = [stored[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert zeros
    assert {(zero.dtype.name, int(zero)) for zero in zeros} == {("uint8", 0), ("uint8", 128)}
    # A plan belongs to its runtime.
    assert main([*arguments, "--overwrite"]) == 2
    assert "made for runtime openvino, not tensorrt" in capsys.readouterr().err


def test_a_plan_for_onnx_runtime_replays_the_same_file(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    arguments = [*small, "--calib-method", "mse", "--max-drift", "0.2", "--for", "onnxruntime",
                 "--precision-plan", str(plan), "--keep-slower"]  # fmt: skip
    report = export([*arguments, "-o", str(tmp_path / "a.onnx")], capsys)
    assert report["int8"]["rest"] == "fp32"
    saved = read_plan(plan)
    assert saved.spans
    # Outputs of layers are quantised too: more tensors than there are layers that read one.
    kinds = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert kinds.count("QuantizeLinear") > len(saved.quantised_layers) > 0
    export([*arguments, "-o", str(tmp_path / "b.onnx")], capsys)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_a_runtime_that_is_not_installed_ends_with_the_command_that_installs_it(
    small: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main([*small, "-o", str(tmp_path / "net.onnx"), "--for", "openvino"]) == 3
    message = capsys.readouterr().err
    assert "--for openvino" in message
    assert "openvino]" in message
    assert not (tmp_path / "net.onnx").exists()


def test_a_precision_that_a_runtime_lacks_is_refused_before_the_search(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*small, "-o", str(tmp_path / "net.onnx"), "--for", "ncnn"]) == 2
    message = capsys.readouterr().err
    assert "no int8 file for ncnn" in message
    assert "openvino" in message


@pytest.mark.parametrize(
    ("runtime", "ratio", "keeps", "falls_back"),
    [
        ("openvino", 0.9, False, False),
        ("openvino", 1.1, False, True),
        ("openvino", 1.1, True, False),
        ("tensorrt", 1.1, False, False),  # this machine does not measure TensorRT
    ],
)
def test_int8_that_wins_no_time_in_its_own_runtime_falls_back_to_fp32(
    runtime: str, ratio: float, keeps: bool, falls_back: bool
) -> None:
    config = ExportConfig(precision="int8", runtime=runtime, keep_slower=keeps)
    reason = reason_to_fall_back(config, Interval(ratio, ratio, ratio, 0.95), "OpenVINO")
    assert bool(reason) == falls_back
    assert not falls_back or "1.10" in reason


def test_a_file_that_fell_back_is_a_whole_fp32_export(
    small: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whichever is faster on this machine.
    monkeypatch.setattr(
        job, "reason_to_fall_back", lambda config, *_: "" if config.precision == "fp32" else "slow"
    )
    out = tmp_path / "out" / "net.onnx"
    report = export([*small, "-o", str(out), "--calib-method", "mse", "--max-drift", "0.2",
                     "--for", "onnxruntime"], capsys)  # fmt: skip
    assert report["fallback"] == "slow"
    assert read_manifest(out).precision == "fp32"
    assert sorted(p.name for p in out.parent.iterdir()) == ["net.json", "net.onnx"]
