from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from swise_bench.measuring import peaks
from swise_deploy.timing import Timing


def test_peaks_follow_from_the_fastest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 ms for 256*256*9*64*64 MACs are 604 GMAC/s; 2 x 64 MiB a thread in 8 ms are 33.6 GB/s."""
    samples = {"ONNX Runtime": (5.0, 4.0, 9.0), "copy": (8.0, 8.5, 20.0), "OpenVINO": (5.0, 4.5)}
    timings = {name: Timing(times, times[0], 1, True) for name, times in samples.items()}
    monkeypatch.setattr(peaks, "time_calls", lambda calls, **_: {n: timings[n] for n in calls})
    device = peaks.measure_peaks(2)
    assert device.tera_ops["fp32"] == pytest.approx(2 * 0.60397977)
    assert device.bandwidth_gb_s == pytest.approx(2 * 2 * 67.108864 / 8)
    assert device.tera_ops["int8"] is None
    assert "604.0 GMAC/s in a 256-channel 3x3 convolution of ONNX Runtime" in device.origin


def test_every_thread_copies_64_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    copy = np.copyto

    def count(target: NDArray[np.float32], source: NDArray[np.float32]) -> None:
        copy(target, source)
        copied.append(target.nbytes if target.all() else 0)

    monkeypatch.setattr(np, "copyto", count)
    with ThreadPoolExecutor(2) as pool:
        peaks._copies(pool, 2)()
    assert copied == [64 * 2**20] * 2


def test_both_runtimes_compute_the_same_convolution() -> None:
    pytest.importorskip("openvino", reason="the optional runtime")
    model = peaks._convolution_model()
    x = np.random.default_rng(0).standard_normal((1, 256, 64, 64), np.float32)
    expected = peaks._in_onnxruntime(model, x, 1)()
    # Sums of 2304 products of unit variance, about 48 in size, in another order.
    np.testing.assert_allclose(peaks._in_openvino(model, x, 1)(), expected, atol=1e-2)
