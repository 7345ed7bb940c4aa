import json
from pathlib import Path

import pytest

from swise_bench.cli import main
from swise_bench.measuring.trtexec import measure_trtexec, parse_trtexec
from swise_bench.results.values import NotMeasured
from swise_bench.subjects.spec import parse_subject
from swise_deploy.errors import SwiseError

# First line: github.com/NVlabs/FoundationStereo/issues/90, a Jetson Orin NX, 2025-04-21. The rest:
# github.com/NVIDIA/TensorRT/issues/4177, comment of 2024-10-03.
TENSORRT_10 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # /usr/src/tensorrt/bin/trtexec --loadEngine=e
[10/03/2024-10:47:59] [I] === Performance summary ===
[10/03/2024-10:47:59] [I] Throughput: 130.298 qps
[10/03/2024-10:47:59] [I] Latency: min = 5.38672 ms, max = 13.3664 ms, mean = 7.60628 ms, median = 7.16092 ms, percentile(90%) = 10.2996 ms, percentile(95%) = 10.8698 ms, percentile(99%) = 12.9675 ms
[10/03/2024-10:47:59] [I] Enqueue Time: min = 2.72876 ms, max = 15.0201 ms, mean = 7.63062 ms, median = 7.86694 ms, percentile(90%) = 10.1792 ms, percentile(95%) = 11.7217 ms, percentile(99%) = 14.1848 ms
[10/03/2024-10:47:59] [I] H2D Latency: min = 0.0065918 ms, max = 0.0698242 ms, mean = 0.0122212 ms, median = 0.00814819 ms, percentile(90%) = 0.0253906 ms, percentile(95%) = 0.0270996 ms, percentile(99%) = 0.0515137 ms
[10/03/2024-10:47:59] [I] GPU Compute Time: min = 5.34595 ms, max = 13.3388 ms, mean = 7.58404 ms, median = 7.14139 ms, percentile(90%) = 10.2881 ms, percentile(95%) = 10.8175 ms, percentile(99%) = 12.9485 ms
[10/03/2024-10:47:59] [I] D2H Latency: min = 0.00390625 ms, max = 0.110596 ms, mean = 0.0100141 ms, median = 0.00439453 ms, percentile(90%) = 0.0254517 ms, percentile(95%) = 0.0319824 ms, percentile(99%) = 0.0994873 ms
[10/03/2024-10:47:59] [I] Total Host Walltime: 3.00082 s
[10/03/2024-10:47:59] [I] Total GPU Compute Time: 2.96536 s
"""  # noqa: E501  # as printed

# github.com/WongKinYiu/yolov7, deploy/triton-inference-server/README.md: an RTX 3070, TensorRT 8.4
# of the container 22.07, which gives one percentile only.
TENSORRT_8 = """\
[09/11/2022-22:54:32] [I] === Performance summary ===
[09/11/2022-22:54:32] [I] Throughput: 1004.27 qps
[09/11/2022-22:54:32] [I] Latency: min = 1.17474 ms, max = 4.4541 ms, mean = 1.20348 ms, median = 1.1897 ms, percentile(99%) = 1.50061 ms
[09/11/2022-22:54:32] [I] GPU Compute Time: min = 0.965637 ms, max = 4.24448 ms, mean = 0.993252 ms, median = 0.97998 ms, percentile(99%) = 1.29016 ms
[09/11/2022-22:54:32] [I] Total Host Walltime: 3.0022 s
"""  # noqa: E501  # as printed


def test_the_summary_of_tensorrt_10_is_read() -> None:
    summary = parse_trtexec(TENSORRT_10)
    assert summary.version == "10.3.0"
    assert summary.throughput_qps == 130.298
    assert set(summary.rows_ms) == {
        "Latency",
        "Enqueue Time",
        "H2D Latency",
        "GPU Compute Time",
        "D2H Latency",
    }
    assert summary.rows_ms["Latency"]["median"] == 7.16092
    assert summary.rows_ms["GPU Compute Time"] == {
        "min": 5.34595,
        "max": 13.3388,
        "mean": 7.58404,
        "median": 7.14139,
        "p90": 10.2881,
        "p95": 10.8175,
        "p99": 12.9485,
    }


def test_the_summary_of_tensorrt_8_is_read_with_the_percentile_that_it_has() -> None:
    summary = parse_trtexec(TENSORRT_8)
    assert summary.version == ""
    assert summary.throughput_qps == 1004.27
    assert summary.rows_ms["GPU Compute Time"]["p99"] == 1.29016
    assert "p90" not in summary.rows_ms["GPU Compute Time"]


# "v8601" and "v9100": lines of github.com/NVIDIA/TensorRT/issues/3083 and 3364.
@pytest.mark.parametrize(
    ("digits", "release"), [("8601", "8.6.1"), ("9100", "9.1.0"), ("101401", "10.14.1")]
)
def test_the_version_in_the_first_line_is_spelt_out(digits: str, release: str) -> None:
    printed = TENSORRT_10.replace("v100300", f"v{digits}")
    assert parse_trtexec(printed).version == release


def test_something_else_than_a_summary_is_refused() -> None:
    with pytest.raises(SwiseError, match=r"no performance summary but 'Killed'"):
        parse_trtexec("Killed\n")


@pytest.fixture
def named_engine(tmp_path: Path) -> Path:
    """A manifest is all that is read before trtexec is looked for."""
    manifest = {
        "schema_version": 2,
        "engine_sha256": "0" * 64,
        "engine_bytes": 3,
        "onnx_name": "a.onnx",
        "onnx_sha256": "0" * 64,
        "model": "",
        "interface": {
            "input": {"name": "lr", "dtype": "float32"},
            "output": {"name": "sr", "dtype": "float32"},
            "scale": 2,
        },
        "precision_asked": "fp16",
        "precision_found": {"origin": "parsed network", "rows": [], "unattributed_share": 0},
        "precision_read_back": None,
        "read_back_note": "",
        "backend": "tensorrt",
        "backend_version": "10.3.0",
        "sms": ["8.7"],
        "gpu": "Orin",
        "compatibility": "none",
        "version_compatible": False,
        "profiles": [
            {
                name: {"batch": 1, "width": width, "height": height}
                for name, width, height in (("min", 16, 16), ("opt", 160, 90), ("max", 320, 180))
            }
        ],
        "workspace_mib": None,
        "optimization_level": None,
        "dla_core": None,
        "dla_fallback": [],
        "build_seconds": 1.0,
        "drift": None,
        "drift_note": "",
        "source": {},
        "versions": {},
        "kind": "engine",
    }
    (tmp_path / "a.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "a.engine").write_bytes(b"...")
    return tmp_path / "a.engine"


def test_without_trtexec_there_is_a_reason_and_no_number(
    named_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "swise_bench.measuring.trtexec.USUAL_PLACE", named_engine.with_name("trtexec")
    )
    monkeypatch.setenv("PATH", str(named_engine.parent))
    result = measure_trtexec("a@trtexec", named_engine, lr_size=(160, 90), batch=1)
    assert isinstance(result.summary, NotMeasured)
    assert "not installed" in result.summary.not_measured


def test_trtexec_gets_the_engine_and_the_shape_of_its_input(
    named_engine: Path,
    nearest: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Stands in for trtexec, which needs a GPU: notes its arguments and prints the recorded text.
    (tmp_path / "printed.txt").write_text(TENSORRT_10, encoding="utf-8")
    program = tmp_path / "trtexec"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n/bin/cat {tmp_path}/printed.txt\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["--size", "16x12", "--batch", "2", "--runs", "5", "--seconds", "0.2", "--json"]
    subjects = [str(nearest), f"{named_engine}@trtexec"]
    assert main([*subjects, *arguments, "--cache", str(tmp_path / "cache")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["trtexec"][0]["summary"]["throughput_qps"] == 130.298
    asked = (tmp_path / "asked").read_text().split()
    assert asked == [f"--loadEngine={named_engine}", "--shapes=lr:2x3x12x16"]


def test_trtexec_alone_is_refused(named_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_subject(f"{named_engine}@trtexec").runner == "trtexec"
    assert main([f"{named_engine}@trtexec"]) == 2
    assert "Give the engine too" in capsys.readouterr().err
