import json
import logging
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from swise_deploy.command.cpus import OtherPrograms
from swise_deploy.errors import BackendMissingError, InputError, SwiseError
from swise_engines.choosing import fastest
from swise_engines.choosing.candidates import Candidate, candidates_for
from swise_engines.choosing.fastest import choose_fastest, measure_fastest
from swise_engines.cuda.boundary import Device, GpuAtHand
from swise_engines.running import runner as engine_runner
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_engines.upscaling.upscaler import Upscaler
from swise_export.runtimes import onnxruntime_cuda
from swise_export.runtimes.onnxruntime import OnnxRunner

MakeOnnx = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save_repeating(path: Path, *, width: int = 3, shift: float = 0.0, bad: bool = False) -> Path:
    """An x2 upscaler: pixels repeated, `shift` added, after 3x3 convolutions of `width` channels.

    The work grows with the square of `width`, the result does not. `bad` gives NaN at pixel values
    under 0.5.
    """
    into = np.zeros((width, 3, 3, 3), np.float32)
    across = np.zeros((width, width, 3, 3), np.float32)
    out = np.zeros((12, width, 1, 1), np.float32)
    for channel in range(3):
        into[channel, channel, 1, 1] = across[channel, channel, 1, 1] = 1
        out[4 * channel : 4 * channel + 4, channel] = 1
    node = helper.make_node
    nodes = [
        node("Conv", ["lr", "into"], ["wide"], pads=[1] * 4),
        node("Conv", ["wide", "across"], ["again"], pads=[1] * 4),
        node("Conv", ["again", "out"], ["deep"]),
        node("DepthToSpace", ["deep"], ["up"], blocksize=2, mode="CRD"),
        node("Add", ["up", "shift"], ["sum" if bad else "sr"]),
    ]
    if bad:
        nodes += [node("Sub", ["sum", "half"], ["signed"]), node("Sqrt", ["signed"], ["sr"])]
    arrays = {"into": into, "across": across, "out": out}
    scalars = {"shift": np.array(shift, np.float32), "half": np.array(0.5, np.float32)}
    graph = helper.make_graph(
        nodes,
        "repeat",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ("n", 3, "h2", "w2"))],
        [numpy_helper.from_array(array, name) for name, array in {**arrays, **scalars}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def in_onnxruntime(path: Path) -> Candidate:
    return Candidate(path.stem, "onnxruntime", path, partial(OnnxRunner, path, threads=1))


@pytest.mark.parametrize("order", [1, -1])
def test_the_faster_candidate_is_chosen(tmp_path: Path, order: int) -> None:
    # 3 against 64 channels: over a hundred times the work, so that noise decides nothing.
    heavy = in_onnxruntime(save_repeating(tmp_path / "heavy.onnx", width=64))
    light = in_onnxruntime(save_repeating(tmp_path / "light.onnx"))
    choice = measure_fastest([heavy, light][::order])
    assert choice.candidate is light
    assert "heavy" in choice.reason
    assert "times as long" in choice.reason


def test_one_slow_run_in_the_first_estimate_does_not_decide(tmp_path: Path) -> None:
    class Hiccup(OnnxRunner):
        """Its third run, the first that is timed, takes a second; two find scale and picture."""

        num_runs = 0

        def infer(self, lr: np.ndarray) -> np.ndarray:
            self.num_runs += 1
            if self.num_runs == 3:
                time.sleep(1)
            return super().infer(lr)

    heavy = in_onnxruntime(save_repeating(tmp_path / "heavy.onnx", width=64))
    path = save_repeating(tmp_path / "light.onnx")
    light = Candidate("light", "onnxruntime", path, partial(Hiccup, path, threads=1))
    assert measure_fastest([heavy, light]).candidate is light


@pytest.mark.parametrize(
    ("shift", "bad", "message"),
    [(2 / 255, False, "2/255"), (0.0, True, "nan/255")],
)
def test_a_fast_candidate_with_another_picture_is_refused(
    tmp_path: Path, shift: float, bad: bool, message: str
) -> None:
    heavy = in_onnxruntime(save_repeating(tmp_path / "heavy.onnx", width=64))
    other = in_onnxruntime(save_repeating(tmp_path / "other.onnx", shift=shift, bad=bad))
    choice = measure_fastest([heavy, other])
    assert choice.candidate is heavy
    assert message in choice.refused["other"]


def test_a_network_whose_output_is_nan_is_refused_in_every_runtime(tmp_path: Path) -> None:
    files = [save_repeating(tmp_path / f"{name}.onnx", bad=True) for name in "ab"]
    with pytest.raises(SwiseError, match=r"a\.onnx .*NaN"):
        measure_fastest([in_onnxruntime(path) for path in files])


def test_less_than_one_8_bit_value_is_the_same_picture(tmp_path: Path) -> None:
    heavy = in_onnxruntime(save_repeating(tmp_path / "heavy.onnx", width=64))
    other = in_onnxruntime(save_repeating(tmp_path / "other.onnx", shift=0.5 / 255))
    assert measure_fastest([heavy, other]).candidate is other


def test_a_candidate_that_does_not_run_is_refused_with_its_reason(tmp_path: Path) -> None:
    good = in_onnxruntime(save_repeating(tmp_path / "good.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    broken = in_onnxruntime(tmp_path / "broken.onnx")
    choice = measure_fastest([good, broken])
    assert choice.candidate is good
    assert "cannot read" in choice.refused["broken"]
    with pytest.raises(InputError, match="cannot read"):
        measure_fastest([broken, good])


def test_a_choice_is_cached_for_the_same_files_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_onnxruntime(save_repeating(tmp_path / "first.onnx", width=64))
    second = in_onnxruntime(save_repeating(tmp_path / "second.onnx"))
    cache = tmp_path / "verdicts"
    measured = []

    def measure(
        candidates: list[Candidate],
        *,
        limit_s: float | None = None,
        max_drift_db: float | None = None,
    ) -> fastest.Choice:
        measured.append([candidate.label for candidate in candidates])
        return measure_fastest(candidates, limit_s=limit_s, max_drift_db=max_drift_db)

    monkeypatch.setattr(fastest, "measure_fastest", measure)
    others_take(0.0, monkeypatch)
    choice = choose_fastest([first, second], cache=cache, threads=1)
    assert choose_fastest([first, second], cache=cache, threads=1) == choice
    assert len(measured) == 1
    choose_fastest([first, second], cache=cache, threads=2)
    save_repeating(tmp_path / "second.onnx", width=4)
    choose_fastest([first, second], cache=cache, threads=1)
    assert len(measured) == 3
    for kept in cache.iterdir():
        kept.write_text(
            json.dumps({"schema_version": fastest.SCHEMA_VERSION, "winner": "nobody"}),
            encoding="utf-8",
        )
    assert choose_fastest([first, second], cache=cache, threads=1).candidate is second
    choose_fastest([first, second], cache=cache, threads=1, remeasure=True)
    assert len(measured) == 5


def others_take(share: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OtherPrograms, "share", lambda _: share)


def test_a_choice_on_a_busy_machine_is_used_but_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = in_onnxruntime(save_repeating(tmp_path / "heavy.onnx", width=64))
    light = in_onnxruntime(save_repeating(tmp_path / "light.onnx"))
    cache = tmp_path / "verdicts"
    others_take(0.6, monkeypatch)
    choice = choose_fastest([heavy, light], cache=cache, threads=1)
    assert choice.candidate is light
    assert not choice.is_certain
    assert "60%" in choice.reason
    assert not cache.exists()
    others_take(0.01, monkeypatch)
    assert choose_fastest([heavy, light], cache=cache, threads=1).is_certain
    assert len(list(cache.iterdir())) == 1


class Sleeper(OnnxRunner):
    """A runner whose every call takes as long as it is given."""

    seconds = 0.0

    def infer(self, lr: np.ndarray) -> np.ndarray:
        sr = super().infer(lr)
        time.sleep(self.seconds)
        return sr


def sleeping(path: Path, label: str, times_s: list[float]) -> Candidate:
    """Takes the times in turn, again and again."""

    def start() -> Sleeper:
        runner = Sleeper(path, threads=1)
        count = iter(range(10**6))
        turns = iter(lambda: times_s[next(count) % len(times_s)], None)
        infer = runner.infer

        def timed(lr: np.ndarray) -> np.ndarray:
            runner.seconds = next(turns) or 0.0
            return infer(lr)

        runner.infer = timed  # type: ignore[method-assign]  # a runner made for this test
        return runner

    return Candidate(label, "onnxruntime", path, start)


def test_without_a_certain_winner_the_first_candidate_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now the one and now the other is faster, so that the interval of their ratio crosses 1."""
    path = save_repeating(tmp_path / "light.onnx")
    others_take(0.0, monkeypatch)
    first = sleeping(path, "first", [0.020])
    second = sleeping(path, "second", [0.014, 0.029, 0.015, 0.028])
    cache = tmp_path / "verdicts"
    choice = choose_fastest([first, second], cache=cache, threads=1)
    assert choice.candidate is first
    assert not choice.is_certain
    assert "second takes" in choice.reason
    assert "as long as first" in choice.reason
    assert not cache.exists()


def test_a_first_run_starts_nothing_new_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_repeating(tmp_path / "light.onnx")
    others_take(0.0, monkeypatch)
    slow = sleeping(path, "slow", [0.4])
    other = sleeping(path, "other", [0.0])
    start = time.perf_counter()
    choice = choose_fastest([slow, other], cache=tmp_path / "verdicts", limit_s=0.5)
    assert time.perf_counter() - start < 3
    assert choice.candidate is slow
    assert "other: not measured" in choice.reason
    assert not (tmp_path / "verdicts").exists()
    assert choose_fastest([slow, other], cache=tmp_path / "verdicts").candidate is other


def test_both_runtimes_compete_for_a_file_and_the_choice_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the optional runtime")
    path = save_repeating(tmp_path / "wide.onnx", width=48)
    runners = [candidate.runtime for candidate in candidates_for(path, threads=1)]
    assert runners[0] == "onnxruntime"
    assert "openvino" in runners
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with Upscaler.open(path, threads=1) as upscaler:
        assert "times as long" in upscaler.reason
        np.testing.assert_array_equal(upscaler(image), image.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("runner", ["onnxruntime", "openvino"])
def test_a_requested_runner_is_used_without_a_measurement(tmp_path: Path, runner: str) -> None:
    pytest.importorskip(runner, reason="an optional runtime")
    path = save_repeating(tmp_path / "light.onnx")
    with Upscaler.open(path, runner=runner) as upscaler:
        assert upscaler.name.startswith(runner)
        assert not upscaler.reason
    assert not (tmp_path / "cache" / "swise-deploy" / "fastest").exists()


def test_an_unknown_runner_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = save_repeating(tmp_path / "light.onnx")
    with pytest.raises(InputError, match="Did you mean 'openvino'"):
        candidates_for(path, "openvno")


def test_an_engine_beside_its_file_is_left_out_where_no_gpu_is(
    engine: Path,
    make_onnx: MakeOnnx,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engine_runner, "find_gpu", lambda: GpuAtHand(None, "for this test"))
    path = Path(shutil.copy(make_onnx("fp16"), engine.with_suffix(".onnx")))
    with caplog.at_level(logging.INFO, "swise_engines"):
        runners = {candidate.runtime for candidate in candidates_for(path)}
    assert "tensorrt" not in runners
    assert f"{engine.name} is not considered: no GPU" in caplog.text


def test_an_engine_of_this_very_file_competes_and_one_of_another_does_not(
    engine: Path, make_onnx: MakeOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    ampere = Device("some GPU", "8.6", is_integrated=False, driver_cuda="13.0")
    cuda = SimpleNamespace(device=ampere)  # nothing else of it is used before an engine is opened
    monkeypatch.setattr(engine_runner, "find_gpu", lambda: GpuAtHand(cuda))
    path = Path(shutil.copy(make_onnx("fp16"), engine.with_suffix(".onnx")))
    found = [c for c in candidates_for(path) if c.runtime == "tensorrt"]
    assert [(c.path, c.label) for c in found] == [
        (engine, "tiny.engine on some GPU, driver for CUDA 13.0")
    ]
    shutil.copy(make_onnx("fp32"), path)
    assert all(c.runtime != "tensorrt" for c in candidates_for(path))


def test_onnxruntime_s_cuda_competes_only_where_a_gpu_is_visible(
    make_onnx: MakeOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime_cuda, "probe_cuda", lambda: {"devices": []})
    assert "cuda" not in [c.runtime for c in candidates_for(make_onnx())]
    with pytest.raises(BackendMissingError, match="no GPU"):
        candidates_for(make_onnx(), "cuda")
    monkeypatch.setattr(onnxruntime_cuda, "probe_cuda", lambda: {"devices": [{"name": "some GPU"}]})
    (found,) = candidates_for(make_onnx(), "cuda")
    assert found.runtime == "cuda"
    assert found.label.endswith("CUDAExecutionProvider on some GPU")


@pytest.mark.gpu
def test_an_engine_for_this_gpu_takes_part_in_the_measurement(
    build_here: Callable[..., Path], make_onnx: MakeOnnx, tmp_path: Path
) -> None:
    built = build_here(
        make_onnx("fp16"), Profile(Extent(1, 8, 8), Extent(1, 96, 96), Extent(1, 200, 200))
    )
    path = Path(shutil.copy(make_onnx("fp16"), tmp_path / "tiny.onnx"))
    for suffix in (".engine", ".json"):
        shutil.copy(built.with_suffix(suffix), tmp_path / f"tiny.here{suffix}")
    choice = measure_fastest(candidates_for(path))
    assert "tiny.here.engine" in choice.candidate.label + choice.reason
    refused = [why for label, why in choice.refused.items() if "tiny.here.engine" in label]
    assert all("times as long in a first estimate" in why for why in refused)
