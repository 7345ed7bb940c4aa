import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "bench" / "scripts" / "upscale_tables.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("upscale_tables", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["upscale_tables"] = module
    spec.loader.exec_module(module)
    return module


script = load()


def test_the_documentation_has_the_tables_of_the_results() -> None:
    page = (ROOT / "docs" / "upscaling.md").read_text(encoding="utf-8")
    for lines in script.tables(script.read_tables(script.RESULTS)):
        assert "\n".join(lines) in page


def test_what_was_measured_is_within_its_budget() -> None:
    found = script.read_tables(script.RESULTS)
    assert {(row.scale, row.runner) for row in found.memory} == {
        (scale, runner) for scale in script.SCALES for runner in script.RUNNERS
    }
    for row in found.memory:
        assert row.measured_mib <= row.budget_mib, row


def test_exact_tiles_were_measured_closer_than_tiles_with_their_own_averages() -> None:
    found = script.read_tables(script.RESULTS)
    for own in (row for row in found.tiles if row.way == "own"):
        for row in found.tiles:
            if row.picture == own.picture and row.way.startswith("exact"):
                assert row.psnr_db > own.psnr_db + 10
                assert row.within < own.within
