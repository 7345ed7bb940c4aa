import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "library.md"
REFERENCE = PAGE.with_name("reference.md")
ROOMS = ["swise_deploy", "swise_export", "swise_engines", "swise_bench"]
NAMES = re.findall(r"`(swise_\w+(?:\.\w+)+)`", PAGE.read_text(encoding="utf-8"))
MODULES = {"swise_deploy.errors"}


@pytest.mark.parametrize("room", ROOMS)
def test_the_pages_list_every_public_name(room: str) -> None:
    public = importlib.import_module(room).PUBLIC
    listed = {name for name in NAMES if name.count(".") == 1} - MODULES
    assert {name for name in listed if name.startswith(f"{room}.")} == {
        f"{room}.{name}" for name in public
    }
    documented = re.findall(r"^::: (\S+)$", REFERENCE.read_text(encoding="utf-8"), re.M)
    assert {f"{module}.{name}" for name, module in public.items()} <= set(documented)


@pytest.mark.parametrize("name", sorted(set(NAMES) - MODULES))
def test_every_name_of_the_library_is_there_documented_and_typed(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, Mapping):
        return  # a table, documented beside its dict literal
    assert inspect.getdoc(found)
    called = found.__init__ if inspect.isclass(found) else found
    parameters = inspect.signature(called).parameters.values()
    untyped = [p.name for p in parameters if p.annotation is p.empty and p.name != "self"]
    assert untyped in ([], ["args", "kwargs"])  # a protocol's and an exception's own


def test_the_example_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = re.findall(r"```(?:python)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    exec(compile(code, str(PAGE), "exec"), {})  # noqa: S102  # our own page
    assert capsys.readouterr().out == printed
