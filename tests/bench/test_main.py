import importlib
import sys

import pytest

from swise_bench.main import COMMANDS, main


def test_without_arguments_every_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_a_misspelt_command_is_a_usage_error_that_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bulid"]) == 2
    assert "Did you mean 'build'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself_without_loading_torch(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    had_torch = "torch" in sys.modules
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out
    assert had_torch or "torch" not in sys.modules


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_offers_main(name: str) -> None:
    assert callable(importlib.import_module(COMMANDS[name][0]).main)
