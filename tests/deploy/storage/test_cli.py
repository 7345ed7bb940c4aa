import json
from pathlib import Path

import pytest

from swise_bench.main import main as swise
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.cli import main


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, size in (("fastest/a.json", 10), ("fastest/b.json", 20), ("exported/c.onnx", 300)):
        path = cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))


def test_caches_are_shown_with_their_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert swise(["cache", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kinds"]["fastest"] == {"num_files": 2, "size_bytes": 30}
    assert document["kinds"]["exported"] == {"num_files": 1, "size_bytes": 300}
    assert document["kinds"]["int8"] == {"num_files": 0, "size_bytes": 0}
    assert main([]) == 0
    assert str(cache_folder()) in capsys.readouterr().out
    assert (cache_folder("fastest") / "a.json").exists()


def test_one_kind_is_cleared_and_then_all() -> None:
    assert main(["--clear", "fastest"]) == 0
    assert not cache_folder("fastest").exists()
    assert cache_folder("exported").exists()
    assert main(["--clear"]) == 0
    assert not cache_folder("exported").exists()


def test_an_unknown_kind_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fastes"]) == 2
    assert "Did you mean 'fastest'?" in capsys.readouterr().err
