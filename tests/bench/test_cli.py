import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_bench.cli import main
from swise_bench.results.document import read_benchmark
from swise_deploy.pictures.files import write_image


def _arguments(*subjects: Path | str, tmp_path: Path) -> list[str]:
    how = ["--size", "12x10", "--runs", "5", "--seconds", "0.2", "--cache", str(tmp_path / "cache")]
    return [*map(str, subjects), *how]


def test_json_on_stdout_is_all_there_is_on_stdout(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*_arguments(nearest, tmp_path=tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["schema_version"] == 1
    assert document["subjects"][0]["latencies"][0]["timing"]["p50_ms"] > 0
    assert f"latency of {nearest} in turn" in captured.err


def test_every_kind_of_report_is_written(
    nearest: Path, blurred: Path, pictures: Path, tmp_path: Path
) -> None:
    files = {
        kind: tmp_path / f"r.{kind}" for kind in ("html", "csv", "markdown", "output", "figure")
    }
    options = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    arguments = _arguments(nearest, blurred, tmp_path=tmp_path)
    target = ["--target", "jetson-orin-nano"]
    assert main([*arguments, "--images", str(pictures), *target, *options]) == 0
    assert files["html"].read_text().startswith("<!doctype html>")
    assert len(list(csv.reader(files["csv"].read_text().splitlines()))) == 3
    assert "### Latency in ms" in files["markdown"].read_text()
    assert files["figure"].read_bytes().startswith(b"\x89PNG")
    document = json.loads(files["output"].read_text())
    predicted = {(p["device"], p["precision"]) for p in document["predictions"]}
    assert predicted == {("jetson-orin-nano", "fp16"), ("jetson-orin-nano", "int8")}


def test_the_terminal_shows_the_counts_and_how_they_were_taken(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_arguments(nearest, tmp_path=tmp_path)) == 0
    text = capsys.readouterr().out
    assert "640x360" in text
    assert "0.07" in text  # 640 * 360 pixels of 12 * 27 MACs each: 0.0746 G
    assert "1 Mult-Add = 1 MAC" in text


def test_a_much_slower_run_fails_the_gate_with_exit_code_4(
    nearest: Path, blurred: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "old.json"
    arguments = _arguments(nearest, blurred, tmp_path=tmp_path)
    assert main([*arguments, "--output", str(baseline)]) == 0
    document = json.loads(baseline.read_text())
    for ratio in document["ratios"]:
        ratio["times_slower"] = {"value": 1e-3, "low": 1e-3, "high": 1e-3, "confidence": 0.95}
        ratio["quietness"] |= {"other_share": 0.0}
    baseline.write_text(json.dumps(document))
    now = tmp_path / "now.json"
    gate = ["--baseline", str(baseline), "--max-regress", "5%", "--output", str(now)]
    code = main([*arguments, *gate])
    if _is_unreliable(now):
        assert code == 5
        assert "UNDECIDED" in capsys.readouterr().err
    else:
        assert code == 4
        assert "REGRESSION" in capsys.readouterr().err


def _is_unreliable(document: Path) -> bool:
    """True where other programs took so much of this machine that nothing can be decided."""
    return read_benchmark(document).quietness.reliability == "unreliable"


def test_the_same_speed_passes_the_gate(nearest: Path, blurred: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "old.json"
    arguments = _arguments(nearest, blurred, tmp_path=tmp_path)
    assert main([*arguments, "--output", str(baseline)]) == 0
    now = tmp_path / "now.json"
    gate = ["--baseline", str(baseline), "--max-regress", "900%", "--output", str(now)]
    code = main([*arguments, *gate])
    assert code == (5 if _is_unreliable(now) or _is_unreliable(baseline) else 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure"),
        (["nothing.onnx"], "no file at nothing.onnx"),
        (["--suite", "table1"], "--data DIR"),
        (["--suite", "table1", "--data", "nowhere"], "no folder for Set5"),
    ],
)
def test_usage_errors_have_exit_code_2_and_say_what_to_do(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["--threads=0", "--size=0x0", "--max-regress=-1%", "--runs=x"])
def test_impossible_options_are_refused(bad: str, nearest: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(nearest), bad])
    assert stop.value.code == 2


@pytest.mark.parametrize("option", [["--seconds", "nan"], ["--seconds", "0"]])
def test_no_time_to_measure_is_a_usage_error(option: list[str], nearest: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(nearest), *option])
    assert stop.value.code == 2


def test_a_file_for_one_size_is_measured_at_that_size(
    make_nearest: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = make_nearest(tmp_path / "only.onnx", size=(20, 14))
    quick = ["--runs", "3", "--seconds", "0.1", "--cache", str(tmp_path / "cache")]
    assert main([str(only), *quick, "--json"]) == 0
    (subject,) = json.loads(capsys.readouterr().out)["subjects"]
    assert [latency["lr_size"] for latency in subject["latencies"]] == [[20, 14]]
    other = make_nearest(tmp_path / "other.onnx", size=(16, 16))
    assert main([str(only), str(other), *quick]) == 2
    assert "other.onnx takes 16x16 alone, which does not go with 20x14" in capsys.readouterr().err
    assert main([str(only), *quick, "--size", "30x30"]) == 2
    assert "takes 20x14 alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "/nowhere"], "no folder at /nowhere"),
        (["--target", "rtx4090"], "Did you mean 'rtx-4090'"),
        (["--figure", "figure.png"], "--figure needs pictures"),
        (["--html", "/"], "/ is a folder"),
        (["--max-regress", "5%"], "--max-regress 5.0% needs --baseline"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_measured(
    arguments: list[str], message: str, nearest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(nearest), *arguments]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert "latency of" not in stderr


def test_pictures_of_one_colour_and_networks_without_mult_adds_are_reported_too(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their PSNR is infinite, their cost is 0: neither has a place on a logarithmic axis."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    graph = helper.make_graph(
        [helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="linear")],
        "resize",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ("n", 3, "h2", "w2"))],
        [scales],
    )
    opsets = [helper.make_opsetid("", 17)]
    resize = tmp_path / "resize.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), resize)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for name, picture in (("flat", np.full_like(noise, 90)), ("noise", noise)):
        write_image(tmp_path / name / "picture.png", picture)
        page = tmp_path / f"{name}.html"
        options = ["--images", str(tmp_path / name), "--html", str(page), "--json"]
        assert main([*_arguments(nearest, resize, tmp_path=tmp_path), *options]) == 0
        assert page.read_text().startswith("<!doctype html>")
        document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        found = [subject["quality"][0]["psnr_y_db"] for subject in document["subjects"]]
        assert all(isinstance(value, float) for value in found)


def test_a_baseline_that_is_another_document_is_refused(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "net.json"
    manifest.write_text(json.dumps({"schema_version": 1, "model": "swisenet"}))
    assert main([str(nearest), "--baseline", str(manifest)]) == 2
    assert "net.json is not a result of swise-bench" in capsys.readouterr().err


def test_a_truncated_file_is_an_error_and_no_traceback(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(nearest.read_bytes()[:100])
    assert main([str(broken)]) == 2
    assert "broken.onnx" in capsys.readouterr().err


def test_a_figure_without_pictures_is_refused_before_anything_is_measured(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(nearest, tmp_path=tmp_path)
    assert main([*arguments, "--figure", str(tmp_path / "figure.png")]) == 2
    error = capsys.readouterr().err
    assert "--images DIR" in error
    assert "latency of" not in error


def test_what_was_measured_is_kept_though_a_report_cannot_be_written(
    nearest: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    arguments = [*_arguments(nearest, tmp_path=tmp_path), "--output", str(tmp_path / "r.json")]
    assert main([*arguments, "--html", str(tmp_path / "file" / "r.html")]) == 1
    assert json.loads((tmp_path / "r.json").read_text())["subjects"]


def _window(path: Path) -> Path:
    """A network that fails on pictures wider than 200 pixels: "zeros" of a negative length."""
    nodes = [
        helper.make_node("Shape", ["lr"], ["size"]),
        helper.make_node("Gather", ["size", "last"], ["width"]),
        helper.make_node("Sub", ["most", "width"], ["left"]),
        helper.make_node("Reshape", ["left", "one"], ["count"]),
        helper.make_node("ConstantOfShape", ["count"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
        helper.make_node("Resize", ["lr", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Add", ["large", "nothing"], ["sr"]),
    ]
    stored = {
        "last": np.array(3),
        "most": np.array(200),
        "one": np.array([1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "window",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_subject_that_fails_at_one_size_costs_only_that(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    window = _window(tmp_path / "window.onnx")
    output = tmp_path / "r.json"
    sizes = ["--size", "48x32", "--size", "300x16", "--runs", "3", "--seconds", "0.1"]
    arguments = [*map(str, (nearest, window)), *sizes, "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "-o", str(output)]) == 1
    good, bad = read_benchmark(output).subjects
    assert [latency.lr_size for latency in good.latencies] == [(48, 32), (300, 16)]
    assert [latency.lr_size for latency in bad.latencies] == [(48, 32)]
    assert list(bad.failures) == ["latency at LR 300x16, batch 1"]
    assert "300x16" in capsys.readouterr().err


def test_a_subject_that_cannot_be_opened_costs_only_itself(nearest: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(nearest.read_bytes()[:100])
    output = tmp_path / "r.json"
    arguments = _arguments(nearest, broken, tmp_path=tmp_path)
    assert main([*arguments, "-o", str(output), "--html", str(tmp_path / "r.html")]) == 1
    good, bad = read_benchmark(output).subjects
    assert good.latencies
    assert "broken.onnx" in bad.failures["opening"]


def test_a_file_that_cannot_be_counted_is_measured_all_the_same(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NonMaxSuppression and its like: sizes within the graph that only a run shows."""
    nodes = [
        helper.make_node("NonZero", ["lr"], ["places"]),
        helper.make_node("Size", ["places"], ["many"]),
        helper.make_node("Cast", ["many"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["count", "zero"], ["nothing"]),
        helper.make_node("Add", ["factors", "nothing"], ["scales"]),
        helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest"),
    ]
    stored = {"zero": np.array(0, np.float32), "factors": np.array([1, 1, 2, 2], np.float32)}
    graph = helper.make_graph(
        nodes,
        "data",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "data.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    assert main([*_arguments(nearest, path, tmp_path=tmp_path), "--json"]) == 0
    good, other = json.loads(capsys.readouterr().out)["subjects"]
    assert good["costs"][0]["mult_adds"] > 0
    assert other["latencies"]
    assert other["costs"]["not_measured"]


def test_ctrl_c_keeps_the_sizes_that_are_finished(nearest: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    sizes = ["--size", "16x12", "--size", "64x48", "--runs", "1000000", "--seconds", "2"]
    command = [sys.executable, "-m", "swise_bench.cli", str(nearest), *sizes]
    process = subprocess.Popen(
        [*command, "--cache", str(tmp_path / "cache"), "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not output.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    found = read_benchmark(output)
    assert not found.is_complete
    assert [latency.lr_size for latency in found.subjects[0].latencies] == [(16, 12)]
    assert "16x12" in stdout


def test_a_file_of_a_fixed_batch_is_measured_at_that_batch(
    nearest: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(nearest)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    fixed = tmp_path / "batch4.onnx"
    onnx.save(model, fixed)
    arguments = _arguments(fixed, tmp_path=tmp_path)
    assert main([*arguments, "--images", str(pictures), "--memory", "--json"]) == 0
    (subject,) = json.loads(capsys.readouterr().out)["subjects"]
    assert [latency["batch"] for latency in subject["latencies"]] == [4]
    assert subject["costs"][0]["mult_adds"] == 640 * 360 * 12 * 27  # of one picture
    assert subject["quality"][0]["psnr_y_db"] > 10
    assert subject["memory"]["peak_rss_bytes"] > 0
    assert main([*arguments, "--batch", "2"]) == 2
    assert "--batch 4" in capsys.readouterr().err


def test_an_older_spelling_works_with_a_warning(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--runs", "3", "--seconds", "0.1", "--cache", str(tmp_path / "cache")]
    assert main([str(nearest), "--lr", "16x12", *quick, "--json"]) == 0
    captured = capsys.readouterr()
    assert "--lr is now --size" in captured.err
    (subject,) = json.loads(captured.out)["subjects"]
    assert subject["latencies"][0]["lr_size"] == [16, 12]


@pytest.mark.slow
def test_a_loaded_machine_decides_nothing(
    nearest: Path, blurred: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four busy programs for each processor take more than half of it, whatever we do."""
    baseline, now = tmp_path / "old.json", tmp_path / "now.json"
    arguments = _arguments(nearest, blurred, tmp_path=tmp_path)
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(4 * (os.cpu_count() or 1))
    ]
    try:
        assert main([*arguments, "--output", str(baseline)]) == 0
        gate = ["--baseline", str(baseline), "--max-regress", "900%", "--output", str(now)]
        assert main([*arguments, *gate]) == 5
    finally:
        for program in busy:
            program.kill()
            program.wait()
    assert _is_unreliable(now)
    captured = capsys.readouterr()
    assert "UNDECIDED" in captured.err
    assert "[fastest]" not in captured.out
