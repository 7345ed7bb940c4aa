from pathlib import Path

import numpy as np
import pytest

from swise_bench.measuring.latency import DeviceClock, compare_latencies, measure_latency
from swise_bench.results.values import NotMeasured
from swise_bench.subjects.spec import file_subject, open_subject, parse_subject
from swise_deploy.errors import BackendMissingError, InputError
from swise_deploy.runner import Runner


def test_a_file_goes_to_the_runtime_of_its_kind(nearest: Path) -> None:
    subject = parse_subject(str(nearest))
    assert (subject.runner, subject.path) == ("onnxruntime", nearest)
    assert parse_subject(f"{nearest}@openvino").runner == "openvino"


def test_a_network_is_named_with_its_scale() -> None:
    subject = parse_subject("swisenet:2@plain-openvino")
    assert (subject.network, subject.scale, subject.runner) == ("swisenet", 2, "plain-openvino")
    assert parse_subject("fsrcnn:x2").runner == "torch"
    assert parse_subject("swisenet:x4").runner == "onnxruntime"  # a file of it ships


def test_weights_are_named_with_a_scale_where_they_serve_several(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip("swise_deploy.checkpoints.load", reason="needs torch")
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    vdsr = checkpoint.build_network("vdsr", 2)
    path = tmp_path / "any.safetensors"
    safetensors.save_file(vdsr.state_dict(), path)
    assert parse_subject(f"{path}@deploy").scale is None
    subject = parse_subject(f"{path}:x4@torch")
    assert (subject.weights, subject.scale, subject.runner) == (path, 4, "torch")
    with open_subject(subject, threads=1, folder=tmp_path) as runner:
        assert runner.infer(np.zeros((1, 3, 5, 6), np.float32)).shape == (1, 3, 20, 24)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.onnx", "no file at missing.onnx"),
        ("swisnet:2", "Did you mean 'swisenet'"),
        ("swisenet:2@torhc", "Did you mean 'torch'"),
        ("swisenet", "NETWORK:SCALE"),
        ("swisenet:two", "NETWORK:SCALE"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_hint(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_subject(text)


def test_a_file_of_another_runtime_is_refused(nearest: Path) -> None:
    with pytest.raises(InputError, match="unknown runner 'torch'"):
        parse_subject(f"{nearest}@torch")


TORCH_ON_GPU = ("torch-cuda", "compile-cuda", "torch-cuda-fp16", "compile-cuda-fp16")


@pytest.mark.parametrize("runner", TORCH_ON_GPU)
def test_torch_on_a_gpu_states_that_it_sees_none(runner: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the optional runtime")
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    subject = parse_subject(f"swisenet:2@{runner}")
    with pytest.raises(BackendMissingError, match="sees no NVIDIA GPU: it was built"):
        open_subject(subject, threads=1, folder=tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("runner", TORCH_ON_GPU)
def test_torch_on_a_gpu_gives_the_pictures_of_the_cpu(runner: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the optional runtime")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that torch can use")
    lr = np.random.default_rng(0).random((1, 3, 24, 32), np.float32)
    with open_subject(parse_subject("swisenet:2@torch"), threads=1, folder=tmp_path) as cpu:
        expected = cpu.infer(lr)
    with open_subject(parse_subject(f"swisenet:2@{runner}"), threads=1, folder=tmp_path) as gpu:
        found = [gpu.infer(lr) for _ in range(4)]  # compiled ones are recorded, then replayed
        assert isinstance(gpu, DeviceClock)
        assert gpu.gpu_ms > 0
    # fp32 sums in another order; fp16 has 11 bits of mantissa.
    tolerance = 2e-2 if runner.endswith("fp16") else 1e-4
    for sr in found:
        np.testing.assert_allclose(sr, expected, atol=tolerance)


@pytest.mark.parametrize("runner", ["no-graphs", "pycuda", "trtexec"])
def test_an_engine_has_several_ways_to_run(runner: str, tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    engine.touch()
    assert parse_subject(f"{engine}@{runner}").runner == runner


@pytest.mark.parametrize("size", [(5, 3), (16, 12)])
def test_openvino_and_onnx_runtime_give_the_same_pictures(
    nearest: Path, size: tuple[int, int], tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the optional runtime")
    lr = np.random.default_rng(0).random((2, 3, *size), np.float32)
    pictures = []
    for runtime in ("onnxruntime", "openvino"):
        subject = parse_subject(f"{nearest}@{runtime}")
        with open_subject(subject, threads=1, folder=tmp_path) as runner:
            assert (runner.scale, runner.io) == (2, "float")
            pictures.append(runner.infer(lr))
    np.testing.assert_array_equal(pictures[0], lr.repeat(2, 2).repeat(2, 3))
    # Both copy single values; a multiply-add of zeros may differ in the last bit.
    np.testing.assert_allclose(pictures[1], pictures[0], atol=1e-6)


def test_openvino_follows_a_change_of_size(nearest: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the optional runtime")
    subject = parse_subject(f"{nearest}@openvino")
    with open_subject(subject, threads=1, folder=tmp_path) as runner:
        for height, width in ((4, 6), (7, 5), (4, 6)):
            sr = runner.infer(np.ones((1, 3, height, width), np.float32))
            assert sr.shape == (1, 3, 2 * height, 2 * width)


def test_a_file_names_itself_for_the_process_that_measures_memory(
    nearest: Path, tmp_path: Path
) -> None:
    subject = parse_subject(str(nearest))
    assert file_subject(subject, tmp_path) == f"{nearest}@onnxruntime"


class _Device:
    """A runner whose device reports 3 ms."""

    name = "device"
    scale = 1
    io = "float"
    gpu_ms = 3.0

    def infer(self, lr: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> object:
        return lr


def test_the_devices_own_clock_is_kept_beside_the_wall_clock(nearest: Path, tmp_path: Path) -> None:
    device: Runner = _Device()  # type: ignore[assignment]  # all that is used
    with open_subject(parse_subject(str(nearest)), threads=1, folder=tmp_path) as file:
        found = measure_latency(
            {"device": device, "file": file}, lr_size=(8, 8), min_runs=6, max_seconds=0.3
        )
    samples = found["device"].timing.samples_ms
    assert found["device"].device_ms == (3.0,) * len(samples)
    assert isinstance(found["file"].device_ms, NotMeasured)
    (ratio,) = compare_latencies(found, "file")
    assert (ratio.subject, ratio.reference) == ("device", "file")
