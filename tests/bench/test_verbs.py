"""The verbs that look at files: info, compare, list, deploy."""

import json
from pathlib import Path

import pytest

from swise_bench.main import main
from swise_deploy.checkpoints.shipped import shipped_weights


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_info_of_a_foreign_onnx_file(nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "info", str(nearest))
    assert found["kind"] == "ONNX file"
    assert (found["scale"], found["sizes"], found["batch"]) == (2, "any", "any")
    assert found["parameters"] == 324
    assert found["mult_adds"] == 640 * 360 * 324
    assert found["precision_by_share"] == {"fp32": 1.0}
    assert "onnxruntime" in str(found["runs_in"])


def test_info_of_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    weights = shipped_weights("swisenet", 2)
    assert weights is not None
    found = _json(capsys, "info", str(weights))
    assert (found["kind"], found["network"], found["scale"]) == ("checkpoint", "swisenet", 2)
    assert found["parameters"] == 924_836


def test_info_is_readable_without_json(nearest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(nearest)]) == 0
    text = capsys.readouterr().out
    assert "nearest.onnx: ONNX file" in text
    assert "float32" in text


@pytest.mark.parametrize(("name", "content"), [("x.json", "{}"), ("x.txt", ""), ("x.onnx", "no")])
def test_info_of_something_else_is_a_usage_error_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert main(["info", str(path)]) == 2
    assert name in capsys.readouterr().err


def test_compare_shows_pixels_quality_and_time(
    nearest: Path, blurred: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--images", str(pictures), "--size", "16x12", "--seconds", "0.2"]
    cache = ["--cache", str(tmp_path / "cache")]
    found = _json(capsys, "compare", str(nearest), str(blurred), *how, *cache)
    assert found["scale"] == 2
    first, second = found["first_quality"], found["second_quality"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["psnr_y_db"] > second["psnr_y_db"] + 1
    assert found["pictures"][0]["max_difference"] > 10  # type: ignore[index]  # plain JSON
    assert found["ratio"]["times_slower"]["value"] > 0  # type: ignore[index]  # plain JSON


def test_a_file_compared_with_itself_is_equal(
    nearest: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--images", str(pictures), "--size", "16x12", "--seconds", "0.1"]
    arguments = [str(nearest), str(nearest), *how, "--cache", str(tmp_path / "cache")]
    assert main(["compare", *arguments]) == 0
    assert "equal on all 2 pictures" in capsys.readouterr().out


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "list")
    assert set(found) == {"networks", "weights", "targets", "runtimes"}
    for name, expected in (
        ("networks", "swisenet"),
        ("weights", "swisenet:2"),
        ("targets", "jetson-orin-nano"),
        ("runtimes", "openvino"),
    ):
        rows = found[name]
        assert isinstance(rows, list)
        assert expected in [row["name"] for row in rows]


def test_list_takes_one_kind_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "runtimes"]) == 0
    assert capsys.readouterr().out.startswith("runtimes:")
    assert main(["list", "runtims"]) == 2
    assert "Did you mean 'runtimes'?" in capsys.readouterr().err


def test_deploy_states_its_steps_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["deploy", "--target", "sm86", "--dry-run"]) == 0
    steps = capsys.readouterr().out.splitlines()
    assert [step.split()[0] for step in steps] == ["export", "build", "measure"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_deploy_makes_a_file_an_engine_where_it_can_and_a_page(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--target", "sm86", "--images", str(pictures), "--seconds", "0.2"]
    assert main(["deploy", *how, "-o", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (tmp_path / "swisenet_x2_fp16.onnx").is_file()
    assert (tmp_path / "swisenet_x2_fp16.html").read_text().startswith("<!doctype html>")
    assert found["report"] == str(tmp_path / "swisenet_x2_fp16.html")
