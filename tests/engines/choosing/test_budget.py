"""A drift budget opens the choice to lower precisions."""

from pathlib import Path

import numpy as np
import pytest

from swise_deploy.errors import InputError
from swise_deploy.runner import Runner
from swise_engines.choosing.candidates import Candidate, candidates_for
from swise_engines.choosing.fastest import measure_fastest
from swise_engines.upscaling.config import UpscaleConfig
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.runtimes.table import RUNTIMES, is_installed, load_runtime
from tests.engines.choosing.test_fastest import save_repeating


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def candidate(label: str, path: Path) -> Candidate:
    def opened() -> Runner:
        return OnnxRunner(path)

    return Candidate(label, "onnxruntime", path, opened)


def test_a_faster_candidate_within_the_budget_wins_and_one_beyond_it_does_not(
    tmp_path: Path,
) -> None:
    slow = candidate("slow", save_repeating(tmp_path / "slow.onnx", width=128))
    # 0.01 of white brighter: 2.55 of 255, beyond 1 of 255, and a few tenths of a dB.
    near = candidate("near", save_repeating(tmp_path / "near.onnx", shift=0.01))
    far = candidate("far", save_repeating(tmp_path / "far.onnx", shift=0.2))
    assert measure_fastest([slow, near, far]).candidate == slow
    choice = measure_fastest([slow, near, far], max_drift_db=2.0)
    assert choice.candidate == near
    assert "near:" in choice.reason
    assert "dB on the photographs" in choice.reason
    assert "allowed: -2 dB" in choice.refused["far"]


def test_bf16_is_considered_within_a_budget_alone(tmp_path: Path) -> None:
    path = save_repeating(tmp_path / "net.onnx")
    assert "openvino-bf16" not in {c.runtime for c in candidates_for(path)}
    if not is_installed(RUNTIMES["openvino-bf16"]):
        pytest.skip("the openvino extra is not installed")
    usable = not load_runtime("openvino-bf16").unusable_reason()
    found = {c.runtime for c in candidates_for(path, within_budget=True)}
    assert ("openvino-bf16" in found) == usable


def test_bf16_rounds_weights_to_eight_bits(tmp_path: Path) -> None:
    if not is_installed(RUNTIMES["openvino-bf16"]):
        pytest.skip("the openvino extra is not installed")
    module = load_runtime("openvino-bf16")
    if module.unusable_reason():
        pytest.skip("this CPU has no bf16")
    path = save_repeating(tmp_path / "net.onnx", width=32)
    grey = np.full((1, 3, 32, 32), 0.3, np.float32)
    with module.open_runner(path) as runner:
        assert (runner.runtime, runner.precision) == ("openvino-bf16", "bf16")
        sr = runner.infer(grey)
    # bf16 has 8 significant bits: 0.3 becomes 0.30078125.
    np.testing.assert_allclose(sr[0, :, 16:48, 16:48], 0.30078125, atol=1e-6)


def test_a_budget_beside_a_named_runner_is_refused() -> None:
    with pytest.raises(InputError, match="--max-drift"):
        UpscaleConfig(inputs=("a.png",), output="b.png", runner="openvino", max_drift_db=0.05)
