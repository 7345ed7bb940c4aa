"""Small networks of spandrel's architectures, from their checkpoint to an upscaled picture."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "bench" / "scripts"
RESULTS = SCRIPTS.parent / "results" / "zoo.json"

# fp16 has 11 bits: one rounding of an activation ten times white is 0.005 of white.
FP16_PARITY = 0.03


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


zoo = load("zoo")


def test_results_are_those_of_the_zoo_in_its_order() -> None:
    results = zoo.read_results(RESULTS)
    run = [network for network in zoo.ZOO if network.name in results]
    assert list(results) == [network.name for network in run]
    assert len({network.architecture for network in run}) >= 25


def test_the_documentation_has_the_table_of_the_results() -> None:
    table = "\n".join(zoo.table(zoo.read_results(RESULTS)))
    assert table in (SCRIPTS.parents[1] / "docs" / "networks.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of foreign code
@pytest.mark.parametrize("network", zoo.ZOO, ids=lambda network: network.name)
def test_a_network_is_exported_as_the_documentation_states(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision", reason="spandrel needs torchvision")
    pytest.importorskip("spandrel", reason="spandrel builds the networks")
    monkeypatch.setattr("swise_export.job._LATENCY_SECONDS", 0.05)
    found = zoo.export_zoo_network(network, tmp_path)
    documented = zoo.read_results(RESULTS).get(network.name, found)
    assert (found.scale, found.sizes, found.note) == (
        documented.scale,
        documented.sizes,
        documented.note,
    )
    if found.sizes == "none":
        assert found.reason
        return
    assert found.parity_fp32 <= zoo.PARITY
    assert found.parity_fp16 <= FP16_PARITY
    if found.sizes == "any":
        assert found.upscaled <= 1  # rounding falls to either side
    else:
        assert "--size" in found.reason
