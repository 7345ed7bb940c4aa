import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swise_bench.cli import main
from swise_bench.table1 import (
    TableRow,
    find_sets,
    measure_table,
    published_table,
    stated_scales,
    text_from_rows,
)
from swise_deploy.errors import InputError
from swise_deploy.evaluation.metrics import METRICS, Quality


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("Set5/HR", "Set14"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        noise = generator.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(noise).resize((40, 36), Image.Resampling.BICUBIC).save(folder / "a.png")
    return tmp_path / "data"


def measured(
    data: Path,
    sets: list[str],
    networks: list[str],
    cache: Path,
    *,
    scales: Sequence[int] = (2, 3, 4),
    runner: str = "torch",
) -> list[TableRow]:
    """Rows of shipped weights alone."""
    return list(
        measure_table(
            find_sets(data, sets),
            weights=None,
            networks=networks,
            threads=1,
            cache=cache,
            scales=scales,
            runner=runner,
        )
    )


def test_the_shipped_table_is_the_papers(shared: Path) -> None:
    paper = json.loads((shared / "table1.json").read_text())
    table = published_table()
    for scale in (2, 3, 4):
        for name, (params, mult_adds, *scores) in paper[f"x{scale}"].items():
            row = table[name, scale]
            assert (row.params_k, row.mult_adds_g) == (params, mult_adds)
            assert [row.scores[s] for s in ("Set5", "Set14", "B100", "Urban100")] == [
                Quality(dict(zip(METRICS, score, strict=True))) for score in scores
            ]
    figure_only = {name for name, _ in table} - set(paper["x2"])
    assert figure_only == {"fsrcnn", "vdsr", "drcn", "carn_m", "lbnet_t"}


def test_sets_are_found_with_and_without_an_hr_folder(data: Path) -> None:
    assert set(find_sets(data, [])) == {"Set5", "Set14"}
    assert set(find_sets(data, ["Set5"])) == {"Set5"}
    with pytest.raises(InputError, match="no folder for B100 in"):
        find_sets(data, ["B100"])
    with pytest.raises(InputError, match="no folder for Set6 in"):
        find_sets(data, ["Set5", "Set6"])


def test_a_set_that_the_paper_has_not_got_is_measured_without_a_printed_score(
    data: Path, tmp_path: Path
) -> None:
    (data / "Set5").rename(data / "Manga109")
    arguments = ["--suite", "table1", "--data", str(data), "--set", "Manga109"]
    output = ["--network", "bicubic", "--cache", str(tmp_path / "c"), "--output"]
    assert main([*arguments, *output, str(tmp_path / "t.json")]) == 0
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [row["image_set"] for row in rows] == ["Manga109"] * 3


@pytest.mark.parametrize(
    ("network", "message"),
    [("swisnet", "Did you mean 'swisenet'"), ("fsrcnn", "no weights of fsrcnn ship")],
)
def test_a_network_that_cannot_be_measured_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], network: str, message: str
) -> None:
    arguments = ["--suite", "table1", "--data", str(data), "--cache", str(tmp_path / "c")]
    assert main([*arguments, "--network", network]) == 2
    assert message in capsys.readouterr().err


def test_bicubic_has_a_row_for_each_scale_and_set_beside_the_printed_one(
    data: Path, tmp_path: Path
) -> None:
    rows = measured(data, [], ["bicubic"], tmp_path / "cache")
    assert [(r.scale, r.image_set) for r in rows] == [
        (scale, name) for scale in (2, 3, 4) for name in ("Set5", "Set14")
    ]
    first = text_from_rows(rows).rows[0]
    assert first[0] == "bicubic x2"
    assert first[5] == "33.66"  # printed
    assert isinstance(rows[0].measured, Quality)
    assert float(first[6]) == pytest.approx(rows[0].measured.psnr_y_db - 33.66, abs=0.006)


@pytest.mark.parametrize(
    ("sidecar", "scales"),
    [
        ('{"scale": "x2"}', {2}),
        ('{"scale": "x2, x3, x4 (one network)"}', {2, 3, 4}),
        ('{"scale": 4}', {4}),
        ('{"scale": "x4 (48 = 3*4^2 channels)"}', {4}),
        ("{}", {2, 3, 4}),
        ("[]", {2, 3, 4}),
        ("not json", {2, 3, 4}),
    ],
)
def test_weights_are_measured_at_the_scales_that_they_are_for(
    sidecar: str, scales: set[int], tmp_path: Path
) -> None:
    (tmp_path / "weights.json").write_text(sidecar)
    assert stated_scales(tmp_path / "weights.safetensors") == scales


def test_the_command_resumes_from_what_is_known(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--suite", "table1", "--data", str(data), "--network", "bicubic"]
    arguments += ["--cache", str(tmp_path / "cache"), "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)["rows"]
    assert main(arguments) == 0
    second = json.loads(capsys.readouterr().out)["rows"]
    assert [row["num_known"] for row in first] == [0] * 6
    assert [row["num_known"] for row in second] == [1] * 6
    assert [row["measured"] for row in first] == [row["measured"] for row in second]


def test_swisenet_scores_above_bicubic_and_its_counts_stand_beside_the_printed_ones(
    data: Path, tmp_path: Path
) -> None:
    rows = measured(data, ["Set5"], ["swisenet"], tmp_path / "cache")
    x2 = next(row for row in rows if row.scale == 2)
    assert x2.params == 924_836
    cells = text_from_rows([x2]).rows[0]
    assert cells[2] == "924.8K (1077K)"
    assert cells[3] == "178.4G (236.5G)"


def test_networks_without_weights_have_their_row_its_counts_and_its_reason(
    data: Path, tmp_path: Path
) -> None:
    rows = measured(data, ["Set5"], ["srcnn", "bicubic"], tmp_path / "cache", scales=[4])
    assert [(row.network, row.scale) for row in rows] == [("bicubic", 4), ("srcnn", 4)]
    table = text_from_rows(rows)
    name, image_set, params, mult_adds, score, printed, *_ = table.rows[1]
    assert (name, image_set, score, printed) == ("srcnn x4", "Set5", "-", "30.48")
    assert (params, mult_adds) == ("57.3K (57K)", "52.8G (52.7G)")
    assert "srcnn x4: not measured, no weights: give a folder of them with --weights" in table.notes


def test_the_reason_why_a_count_differs_stands_below_the_table(data: Path, tmp_path: Path) -> None:
    rows = measured(data, ["Set5"], ["vdsr"], tmp_path / "cache", scales=[2])
    assert "vdsr: the printed parameters leave the biases out" in text_from_rows(rows).notes


def test_another_runner_gives_the_same_scores(data: Path, tmp_path: Path) -> None:
    scores = {}
    for runner in ("torch", "deploy"):
        (row,) = measured(
            data, ["Set5"], ["swisenet"], tmp_path / runner, scales=[4], runner=runner
        )
        assert ("onnxruntime" in row.runner) == (runner == "deploy")
        assert isinstance(row.measured, Quality)
        scores[runner] = row.measured
    # Outputs 3e-7 apart: a level of 255 may round the other way in a few of 4,000 values.
    assert scores["deploy"].psnr_y_db == pytest.approx(scores["torch"].psnr_y_db, abs=0.01)
