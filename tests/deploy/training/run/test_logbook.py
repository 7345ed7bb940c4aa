"""The log of a run, and the trackers that get its numbers: installed ones, and failing ones."""

import json
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from swise_deploy.errors import BackendMissingError, SwiseError
from swise_deploy.training.config import Tracker, TrainConfig
from swise_deploy.training.run.logbook import Logbook


def config(out: Path, *track: Tracker) -> TrainConfig:
    out.mkdir(exist_ok=True)
    return TrainConfig(data=out, out=out, tensorboard=False, track=track)


class FailingRun:
    """A tracker whose server goes away."""

    def log(self, values: object, step: int) -> None:
        raise RuntimeError(f"server is gone: {values}, {step}")

    def finish(self) -> None:
        raise RuntimeError("still gone")


def fake_wandb(init: Callable[..., FailingRun], monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]  # a package that fails on purpose
    monkeypatch.setitem(sys.modules, "wandb", module)


def no_network(**_: object) -> FailingRun:
    raise OSError("no network")


def test_a_tracker_that_cannot_start_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wandb(no_network, monkeypatch)
    with pytest.raises(SwiseError, match="--track wandb cannot start: no network"):
        Logbook(config(tmp_path / "run", "wandb"), first_step=0)


def test_a_tracker_that_fails_later_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_wandb(lambda **_: FailingRun(), monkeypatch)
    caplog.set_level(logging.WARNING)
    with Logbook(config(tmp_path / "run", "wandb"), first_step=0) as logbook:
        for step in (1, 2):
            logbook.record("train", step, {"loss": 0.5, "note": "text"})
    assert caplog.text.count("server is gone") == 1
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(BackendMissingError, match=r"\[mlflow\]"):
        Logbook(config(tmp_path / "run", "mlflow"), first_step=0)


def test_wandb_itself_takes_the_numbers_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with Logbook(config(tmp_path / "run", "wandb"), first_step=0) as logbook:
        logbook.record("val", 3, {"psnr_y_db": 30.25})
    assert list((tmp_path / "run").rglob("*.wandb"))


def test_mlflow_itself_takes_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with Logbook(config(tmp_path / "run", "mlflow"), first_step=0) as logbook:
        logbook.record("val", 3, {"psnr_y_db": 30.25})
    (metric,) = (tmp_path / "mlruns").rglob("val.psnr_y_db")
    assert " 30.25 3" in metric.read_text()
