import dataclasses
from pathlib import Path

import pytest

from swise_deploy.errors import InputError
from swise_deploy.training.config import TrainConfig
from swise_deploy.training.resuming import refuse_other_run
from swise_deploy.training.settings import (
    config_from_layers,
    recipe_names,
    recipe_text,
    settings_from_toml,
    toml_from_config,
)

PLACES = {"data": "pictures", "out": "run"}


def recipe(name: str) -> TrainConfig:
    return config_from_layers(
        {"recipe": settings_from_toml(recipe_text(name), source=name), "flags": PLACES}
    )


def test_paper_recipe_is_what_the_paper_states():
    paper = recipe("paper")
    assert (paper.steps, paper.batch_size, paper.patch_size) == (600_000, 64, 64)
    assert (paper.optimizer, paper.learning_rate) == ("adamp", 1e-3)
    assert (paper.schedule, paper.halve_every, paper.clip_norm) == ("step", 150_000, 10.0)


def test_every_recipe_is_a_valid_config():
    assert set(recipe_names()) == {"paper", "gpu", "quick-cpu"}
    for name in recipe_names():
        assert recipe(name).steps > 0


def test_later_layers_win():
    config = config_from_layers({"file": {**PLACES, "steps": 5, "scale": 3}, "flags": {"steps": 7}})
    assert (config.steps, config.scale) == (7, 3)


def test_a_config_survives_toml():
    config = TrainConfig(
        data=Path('odd "name"\\folder'),
        out=Path("run"),
        val=Path("ü 🌄 \x7f"),
        test=(Path("a"), Path("b")),
        weight_norm=("head", "up*"),
        learning_rate=3e-7,
        betas=(0.5, 0.25),
        compile=True,
    )
    text = toml_from_config(config)
    assert config_from_layers({"file": settings_from_toml(text, source="file")}) == config


def test_misspelt_setting_names_the_nearest():
    with pytest.raises(InputError, match=r"setting in my.toml 'batchsize'.*'batch_size'"):
        config_from_layers({"my.toml": {**PLACES, "batchsize": 4}})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 1.5),
        ("steps", True),
        ("steps", "ten"),
        ("schedule", "linear"),
        ("betas", [0.9]),
        ("betas", [0.9, "x"]),
        ("compile", 1),
        ("data", 3),
    ],
)
def test_value_of_the_wrong_type_is_refused_with_its_source(setting, value):
    with pytest.raises(InputError, match=rf"{setting} in flags is .*; expected"):
        config_from_layers({"flags": {**PLACES, setting: value}})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("ema_decay", 1.0),
        ("clip_norm", -1.0),
        ("seed", 2**32),
        ("betas", [0.9, 1.0]),
        ("teacher_share", 0.0),
        ("teacher_share", 1.1),
    ],
)
def test_value_out_of_range_is_refused(setting, value):
    with pytest.raises(InputError, match=rf"{setting} is .*; expected"):
        config_from_layers({"flags": {**PLACES, setting: value}})


def test_data_and_out_have_to_be_given():
    with pytest.raises(InputError, match="--out DIR"):
        config_from_layers({"flags": {"data": "pictures"}})


def test_broken_toml_names_the_file():
    with pytest.raises(InputError, match=r"my\.toml is no valid TOML"):
        settings_from_toml("steps = ", source="my.toml")


def test_resume_tells_what_changed_and_refuses_another_run():
    stored = TrainConfig(data=Path("pictures"), out=Path("run"))
    longer = dataclasses.replace(stored, steps=77, out=Path("moved"))
    assert refuse_other_run(stored, longer) == [f"steps is now 77, was {stored.steps}"]
    with pytest.raises(InputError, match="seed = 5"):
        refuse_other_run(stored, dataclasses.replace(stored, seed=5))
