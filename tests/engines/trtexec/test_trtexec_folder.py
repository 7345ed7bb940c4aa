"""A folder for trtexec: written, run by sh with a stand-in trtexec, read back.

The stand-in takes the options of its release, runs the model in ONNX Runtime, and writes the files
that trtexec documents (samples/common/sampleReporting.cpp of TensorRT 8.2 and 8.6).
"""

import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from swise_bench.cli import main as bench_main
from swise_deploy.errors import InputError
from swise_engines.building.cli import main as build_main
from swise_engines.targets.catalogue import find_target
from swise_engines.tensorrt.onnx_source import read_source
from swise_engines.trtexec.folder import read_folder, write_folder
from swise_engines.trtexec.results import read_results
from swise_engines.trtexec.script import precision_options
from swise_engines.trtexec.weak_form import weak_form_of

OLD_HELP = "--onnx --saveEngine --loadEngine --fp16 --int8 --noTF32 --exportTimes --exportProfile"
NEW_HELP = f"{OLD_HELP} --precisionConstraints --layerPrecisions --separateProfileRun"

STAND_IN = """#!{python}
import json, sys
import numpy as np
arguments = sys.argv[1:]
open({log!r}, "a").write(json.dumps(arguments) + "\\n")
options = dict(a.split("=", 1) for a in arguments if "=" in a)
if "--help" in arguments:
    print({help!r}); sys.exit(0)
layers = [a for a in arguments if a.startswith("--layer")]
if (layers and "--layer" not in {help!r}) or ({fails!r} and {fails!r} in " ".join(arguments)):
    print("[E] no implementation obeys"); sys.exit(1)
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec")
if "--saveEngine" in options:
    import onnxruntime
    session = onnxruntime.InferenceSession(options["--onnx"])
    name, _, path = options["--loadInputs"].partition(":")
    (info,) = session.get_inputs()
    assert info.name == name
    lr = np.fromfile(path, np.float32).reshape(info.shape)
    sr = session.run(None, {{name: lr}})[0] + {offset}
    open(options["--saveEngine"], "wb").write(b"plan")
    times = [{times} for i in range(1, 101)]
    open(options["--exportTimes"], "w").write(json.dumps(times))
    output = {{"name": session.get_outputs()[0].name, "dimensions": "x".join(map(str, sr.shape)),
              "values": [float(v) for v in sr.ravel()]}}
    open(options["--exportOutput"], "w").write(json.dumps([output]))
else:
    open(options["--exportProfile"], "w").write(json.dumps([{{"count": 3}},
        {{"name": "first", "timeMs": 3.0, "averageMs": 1.0, "percentage": 25.0}},
        {{"name": "second", "timeMs": 9.0, "averageMs": 3.0, "percentage": 75.0}}]))
"""
OLD_TIMES = (
    '{"startInMs": 0, "endInMs": 1, "inMs": 0.5, "computeMs": i, "outMs": 0.5, '
    '"latencyMs": i + 1, "endToEndMs": 2 * i}'
)
NEW_TIMES = '{"startEnqMs": 0, "h2dMs": 0.5, "computeMs": i, "d2hMs": 0.5, "latencyMs": i + 1}'


@pytest.fixture
def device(tmp_path):
    """Puts a stand-in trtexec and an nvpmodel on the PATH of run.sh."""

    def make(help_text=NEW_HELP, times=NEW_TIMES, version="8601", *, offset=0.0, fails=""):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        log = tmp_path / "arguments"
        text = STAND_IN.format(
            python=sys.executable, log=str(log), help=help_text, times=times, version=version,
            offset=offset, fails=fails,
        )  # fmt: skip
        for name, content in (
            ("trtexec", text),
            ("nvpmodel", "#!/bin/sh\necho 'NV Power Mode: MAXN'; echo 0\n"),
        ):
            (folder / name).write_text(content)
            (folder / name).chmod(0o755)

        def run(target):
            done = subprocess.run(
                ["/bin/sh", str(target / "run.sh")],
                env={**os.environ, "PATH": f"{folder}:/usr/bin:/bin"},
                capture_output=True,
                text=True,
                check=False,
            )
            lines = log.read_text().splitlines() if log.exists() else []
            return done, [json.loads(line) for line in lines]

        return run

    return make


@pytest.fixture
def folder(make_onnx, tmp_path):
    def write(kind="fp32", **options):
        sizes = {"sides": (1, 12, 16), **options}
        return write_folder(make_onnx(kind, **sizes), tmp_path / "folder.trtexec", None)

    return write


def test_the_graph_is_fp32_of_opset_13_and_one_size(make_onnx):
    form = weak_form_of(read_source(make_onnx("fp16")), (1, 3, 12, 16))
    assert [(o.domain, o.version) for o in form.model.opset_import] == [("", 13)]
    types = {t.data_type for t in form.model.graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types
    assert not [n for n in form.model.graph.node if n.op_type == "Cast"]
    dims = form.model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3, 12, 16]
    convolutions = {n.name for n in form.model.graph.node if n.op_type == "Conv"}
    assert {form.precisions[name] for name in convolutions} == {"fp16"}


def test_mixed_precision_is_a_list_of_layers(make_onnx):
    form = weak_form_of(read_source(make_onnx("mixed")), (1, 3, 12, 16))
    assert (form.precisions["first"], form.precisions["second"]) == ("fp32", "fp16")
    options = precision_options(form.precisions, has_int8=False)
    assert {"--fp16", "--precisionConstraints=obey"} <= set(options)
    (layers,) = (o for o in options if o.startswith("--layerPrecisions="))
    assert {"first:fp32", "second:fp16"} <= set(layers.partition("=")[2].split(","))


def test_int8_keeps_its_scales(make_onnx):
    form = weak_form_of(read_source(make_onnx("int8")), (1, 3, 12, 16))
    kinds = [node.op_type for node in form.model.graph.node]
    assert kinds.count("QuantizeLinear") == 2
    assert precision_options(form.precisions, has_int8=True) == ["--int8", "--noTF32"]


def test_what_opset_13_lacks_is_refused_by_name(make_onnx, tmp_path):
    model = onnx.load(make_onnx("fp32"))
    scale = numpy_helper.from_array(np.ones(3, np.float32), "ones")
    model.graph.initializer.append(scale)
    first = next(n for n in model.graph.node if n.op_type == "Conv")
    before = onnx.helper.make_node("Transpose", ["lr"], ["turned"], perm=[0, 2, 3, 1])
    norm = onnx.helper.make_node("LayerNormalization", ["turned", "ones"], ["normed"])
    after = onnx.helper.make_node("Transpose", ["normed"], ["back"], perm=[0, 3, 1, 2])
    first.input[0] = "back"
    for node in (after, norm, before):
        model.graph.node.insert(0, node)
    path = tmp_path / "norm.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match="LayerNormalization, which opset 13 lacks"):
        weak_form_of(read_source(path), (1, 3, 12, 16))


def test_a_device_without_the_precision_is_refused(make_onnx, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [str(make_onnx("int8")), "--trtexec", "-o", str(out)]
    assert build_main([*arguments, "--target", "jetson-nano"]) == 2
    assert "int8, which Jetson Nano 4GB does not have" in capsys.readouterr().err
    assert not out.exists()
    assert build_main([*arguments, "--target", "jetson-xavier-nx", "--size", "16x12"]) == 0
    assert read_folder(out).target == "jetson-xavier-nx"


def test_uint8_files_are_refused(make_onnx, tmp_path):
    with pytest.raises(InputError, match="Export with --io float"):
        write_folder(make_onnx("fp32", io="uint8"), tmp_path / "out", None)


def test_a_folder_of_something_else_is_not_replaced(make_onnx, tmp_path):
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").touch()
    assert build_main([str(make_onnx("fp32")), "--trtexec", "-o", str(other)]) == 1
    assert (other / "thesis.txt").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "mixed"])
def test_the_reference_is_the_picture_repeated(folder, kind):
    """The network repeats every pixel twice both ways, in whatever precision."""
    path = folder(kind)
    facts = read_folder(path)
    lr = np.fromfile(path / "input.raw", np.float32).reshape(3, 12, 16)
    sr = np.fromfile(path / "reference.raw", np.float32).reshape(facts.output_shape)
    np.testing.assert_allclose(sr[0], lr.repeat(2, 1).repeat(2, 2), atol=1 / 127)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "mixed"])
def test_the_script_is_clean(folder, kind):
    shellcheck = shutil.which("shellcheck")
    assert shellcheck is not None
    done = subprocess.run(
        [shellcheck, "-s", "sh", str(folder(kind) / "run.sh")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("stand_in", "release"),
    [((OLD_HELP, OLD_TIMES, "8201"), "8.2.1"), ((NEW_HELP, NEW_TIMES, "8601"), "8.6.1")],
    ids=["8.2", "8.6"],
)
def test_the_script_runs_and_its_results_are_read(folder, device, stand_in, release):
    path, help_text = folder("fp16"), stand_in[0]
    done, calls = device(*stand_in)(path)
    assert done.returncode == 0, done.stderr
    help_call, build, profile = calls
    assert help_call == ["--help"]
    assert {"--onnx=model.onnx", "--fp16", "--noTF32"} <= set(build)
    has_constraints = any(a.startswith("--layerPrecisions=") for a in build)
    assert has_constraints is (help_text is NEW_HELP)
    assert ("--separateProfileRun" in profile) is (help_text is NEW_HELP)
    results = read_results(path)
    assert results.version == release
    assert results.constraints == ("obey" if help_text is NEW_HELP else "none")
    assert results.power_mode == ("MAXN", "MAXN")
    assert results.compute_ms == tuple(range(1, 101))
    assert results.rows_ms()["Latency"]["median"] == 51.5
    # 1 to 100: numpy's linear percentile.
    assert results.rows_ms()["GPU Compute Time"]["p90"] == pytest.approx(90.1)
    assert results.layers == (("first", 1.0), ("second", 3.0))
    assert results.psnr_db == math.inf
    assert not (path / "results" / "model.engine").exists()
    assert not (path / "results.new").exists()


def test_the_drift_of_the_device_is_measured(folder, device):
    path = folder("fp32")
    done, _ = device(offset=0.01)(path)
    assert done.returncode == 0, done.stderr
    # An offset of 1% of white is 20 log10(100) = 40 dB; white pixels clip, which adds a little.
    assert read_results(path).psnr_db == pytest.approx(40, abs=1.0)


def test_constraints_that_no_kernel_obeys_are_left_out_and_said(folder, device):
    path = folder("fp16")
    done, calls = device(fails="--precisionConstraints")(path)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 4
    assert read_results(path).constraints == "none"
    assert (path / "results" / "build.obey.log").exists()


def test_a_failed_build_keeps_the_log_and_the_older_results(folder, device):
    path = folder("fp32")
    assert device()(path)[0].returncode == 0
    done, _ = device(fails="--onnx")(path)
    assert done.returncode == 1
    assert "no implementation obeys" in done.stderr
    assert read_results(path).psnr_db == math.inf


def test_without_trtexec_the_script_says_where_it_looks(folder, tmp_path):
    done = subprocess.run(
        ["/bin/sh", str(folder() / "run.sh")],
        env={"PATH": "/usr/bin:/bin", "TRTEXEC": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert str(tmp_path / "none") in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("times.json", "[]", "has no times"),
        ("times.json", '[{"latencyMs": 1}]', "expected computeMs"),
        ("times.json", '[{"latencyMs": -1, "computeMs": 1}]', "latencyMs, a number from 0"),
        ("times.json", '[{"latencyMs": "x", "computeMs": 1}]', "times.json"),
        ("times.json", "[" * 100_000, "times.json"),
        ("output.json", '[{"name": "sr", "values": [nan]}]', "NaN or infinity"),
        ("output.json", '[{"name": "other", "values": [1]}]', "output 'sr'"),
        ("output.json", '[{"name": "sr", "values": ["a"]}]', "expected 2304 values"),
        ("profile.json", '[{"count": 1}, {"name": "a"}]', "no averageMs"),
    ],
)
def test_damaged_results_are_refused_by_name(folder, device, name, content, message):
    path = folder("fp32")
    assert device()(path)[0].returncode == 0
    (path / "results" / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(path)


@pytest.mark.parametrize("name", ["model.onnx", "input.raw", "reference.raw"])
def test_results_of_changed_files_are_refused(folder, device, name):
    path = folder("fp32")
    assert device()(path)[0].returncode == 0
    (path / name).write_bytes((path / name).read_bytes() + b"\0")
    with pytest.raises(InputError, match=f"{name} was changed"):
        read_results(path)


def test_a_folder_without_results_names_the_command(folder):
    with pytest.raises(InputError, match=r"sh run\.sh"):
        read_results(folder())


def test_swise_bench_reports_the_device_beside_the_file(make_onnx, device, tmp_path, capsys):
    onnx_file = make_onnx("fp32")
    path = write_folder(onnx_file, tmp_path / "folder.trtexec", None)
    done, _ = device()(path)
    assert done.returncode == 0, done.stderr
    options = ["--lr", "16x12", "--runs", "1", "--seconds", "0.05"]
    assert bench_main([str(onnx_file), *options, "--trtexec-results", str(path)]) == 0
    out = capsys.readouterr().out
    assert "MAXN" in out
    assert "8.6.1" in out


def test_the_folder_of_a_shipped_file_is_written_here_not_into_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["swisenet:2", "--trtexec", "--target", "jetson-nano", "--size", "16x12"]
    assert build_main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["swisenet_x2_fp16.jetson-nano.trtexec"]


@pytest.mark.parametrize(
    ("kind", "target"),
    [("bf16", None), ("bf16", "jetson-orin-nano"), ("fp8", None), ("fp8", "jetson-thor")],
)
def test_newer_formats_go_to_trtexec_without_a_folder(make_onnx, tmp_path, kind, target):
    device = None if target is None else find_target(target)
    with pytest.raises(
        InputError, match=rf"computes in {kind}.*TensorRT 10 or later.*--stronglyTyped"
    ):
        write_folder(make_onnx(kind), tmp_path / "out", device)
    assert not (tmp_path / "out").exists()
