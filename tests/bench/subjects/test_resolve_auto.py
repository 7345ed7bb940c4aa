import json
from pathlib import Path

import pytest

from swise_bench.cli import main
from swise_bench.subjects.resolve_auto import resolve_auto
from swise_bench.subjects.spec import NETWORK_RUNNERS, open_subject, parse_subject


def test_auto_becomes_an_installed_runtime_and_states_the_reason(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="the optional runtime")
    subject = parse_subject(f"{nearest}@auto")
    resolved = resolve_auto(subject, threads=1, cache=tmp_path)
    assert (resolved.name, resolved.path) == (subject.name, nearest)
    assert resolved.runner in ("onnxruntime", "openvino")
    assert "times as long" in capsys.readouterr().err
    assert resolve_auto(subject, threads=1, cache=tmp_path) == resolved


def test_auto_of_a_network_chooses_among_its_exports(tmp_path: Path) -> None:
    resolved = resolve_auto(parse_subject("bicubic:2@auto"), threads=1, cache=tmp_path)
    assert resolved.runner in NETWORK_RUNNERS
    assert resolved.runner != "auto"
    with open_subject(resolved, threads=1, folder=tmp_path / "exported") as runner:
        assert runner.scale == 2


def test_what_is_named_is_left_as_it_is(nearest: Path, tmp_path: Path) -> None:
    subject = parse_subject(f"{nearest}@onnxruntime")
    assert resolve_auto(subject, threads=1, cache=tmp_path) is subject


def test_auto_is_measured_under_its_own_name(
    nearest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--size", "8x6", "--runs", "5", "--seconds", "0.2", "--threads", "1", "--json"]
    subjects = [f"{nearest}@auto", str(nearest)]
    assert main([*subjects, *arguments, "--cache", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [subject["name"] for subject in document["subjects"]] == subjects
    assert document["ratios"][0]["reference"] == subjects[0]


def test_ncnn_of_a_network_is_its_deploy_form() -> None:
    assert parse_subject("swisenet:2@ncnn").runner == "deploy-ncnn"
