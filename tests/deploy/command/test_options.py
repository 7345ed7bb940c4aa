import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swise_deploy.command.options import CommandParser, add_old_spelling


def _parser() -> CommandParser:
    parser = CommandParser(prog="swise-test")
    size = parser.add_argument("--size", type=int, action="append", default=[])
    add_old_spelling(parser, "--lr", size)
    parser.add_argument("--images")
    parser.add_argument("--json", action="store_true")
    return parser


def test_an_old_spelling_fills_the_new_option_and_warns(capsys: pytest.CaptureFixture[str]) -> None:
    parsed = _parser().parse_args(["--lr", "3", "--size", "4"])
    assert parsed.size == [3, 4]
    assert "--lr is now --size" in capsys.readouterr().err


def test_help_does_not_list_an_old_spelling() -> None:
    assert "--lr" not in _parser().format_help()


@pytest.mark.parametrize(("wrong", "right"), [("--imges", "--images"), ("--sise", "--size")])
def test_a_misspelt_option_is_answered_with_the_nearest(
    wrong: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        _parser().parse_args([wrong, "x"])
    assert stop.value.code == 2
    assert f"Did you mean {right}?" in capsys.readouterr().err


def test_a_misspelt_option_is_named_before_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = _parser()
    parser.add_argument("-o", "--output", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--imges", "x"])
    error = capsys.readouterr().err
    assert "--imges" in error
    assert "Did you mean --images?" in error
    for known in (["--images=x"], ["--imag", "x"], ["--", "--imges"]):
        with pytest.raises(SystemExit):
            parser.parse_args(known)
        assert "Did you mean" not in capsys.readouterr().err


def test_an_old_spelling_is_never_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["--lrr", "3"])
    assert "--lr?" not in capsys.readouterr().err


def test_with_json_errors_of_usage_are_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["--json", "--imges", "x"])
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 2
    assert "--imges" in found["error"]


def test_without_json_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["--imges", "x"])
    assert capsys.readouterr().out == ""


def test_a_value_of_a_wrong_type_is_refused_as_by_argparse() -> None:
    with pytest.raises(SystemExit) as stop:
        _parser().parse_args(["--size", "large"])
    assert stop.value.code == 2
    assert isinstance(_parser(), argparse.ArgumentParser)


def test_the_shell_completes_options(tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    line = "swise-bench --im"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run(
        [sys.executable, "-m", "swise_bench.cli"], env=environment, check=False, timeout=60
    )
    assert "--images" in (tmp_path / "answer").read_text()


HELP = """examples:
  swise-test my.onnx                 the short way, explained in a few words
  swise-test --images folder/with/a/long/name --size 320x180 --size 640x360 my.onnx

exit codes: 0 done, 1 failed, 2 usage, 3 a backend is missing, 4 a quality gate refused
"""


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_examples_come_before_the_options_and_fit_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    parser = CommandParser(prog="swise-test", description="word " * 30, epilog=HELP)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--images", help="a folder")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"])
    text = parser.format_help()
    assert text.startswith("usage: swise-test --out DIR FILE [options]\n")
    assert text.index("examples:") < text.index("options:") < text.index("exit codes:")
    assert max(map(len, text.splitlines())) <= columns
    joined = " ".join(text.replace("\\\n", " ").replace("# ", "").split())
    assert "swise-test --images folder/with/a/long/name --size 320x180 --size 640x360" in joined
    assert "the short way, explained in a few words" in joined
