"""The interface to CUDA, without a GPU and with one."""

import importlib.util

import numpy as np
import pytest

from swise_deploy.errors import BackendMissingError, SwiseError
from swise_engines.cuda import boundary
from swise_engines.cuda.boundary import find_gpu, open_cuda, out_of_memory


@pytest.fixture
def without_gpu():
    if find_gpu().cuda is not None:
        pytest.skip("this machine has a GPU")


@pytest.mark.usefixtures("without_gpu")
def test_a_machine_without_a_gpu_gives_the_reason_of_the_driver():
    gpu = find_gpu()
    assert gpu.device is None
    assert gpu.reason
    if importlib.util.find_spec("cuda") is not None:
        assert "cuda-python" in gpu.reason
        reasons = ("no NVIDIA driver", "Update the driver", "CUDA error", "the machine has 0")
        assert any(reason in gpu.reason for reason in reasons)


@pytest.mark.usefixtures("without_gpu")
def test_a_binding_that_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(boundary.BINDINGS, "pycuda", ("no_such_package", "nowhere"))
    with pytest.raises(BackendMissingError, match=r"needs pycuda.*pip install .*\[rtx\]"):
        open_cuda("pycuda")


def test_out_of_memory_states_the_sizes():
    mib = 1 << 20
    text = str(out_of_memory(300 * mib, 100 * mib, 8192 * mib, "a device buffer"))
    assert "needs 300 MiB, but 100 of 8192 MiB are free" in text
    assert "--size" in text


@pytest.mark.gpu
def test_bytes_come_back_from_the_gpu(cuda):
    rng = np.random.default_rng(0)
    with cuda.use():
        stream = cuda.create_stream()
        source = cuda.allocate_host((3, 1000), np.float32, mapped=False)
        target = cuda.allocate_host((3, 1000), np.float32, mapped=False)
        memory = cuda.allocate(source.array.nbytes)
        source.array[:] = rng.random((3, 1000))
        cuda.upload(stream, memory, source.array)
        cuda.download(stream, target.array, memory)
        cuda.synchronize(stream)
        np.testing.assert_array_equal(target.array, source.array)
        for allocated in (source, target, memory, stream):
            allocated.release()


@pytest.mark.gpu
def test_mapped_memory_has_an_address_on_the_gpu(cuda):
    with cuda.use():
        memory = cuda.allocate_host((16,), np.uint8, mapped=True)
        assert memory.pointer != 0
        memory.release()


@pytest.mark.gpu
def test_an_allocation_that_is_too_large_is_refused_and_the_gpu_still_works(cuda):
    with cuda.use():
        _, total = cuda.free_memory()
        with pytest.raises(SwiseError, match="out of GPU memory"):
            cuda.allocate(4 * total)
        cuda.allocate(1 << 20).release()


@pytest.mark.gpu
def test_the_device_is_described(cuda):
    assert cuda.device.name
    major, minor = cuda.device.sm.split(".")
    assert int(major) >= 5
    assert int(minor) >= 0
    with cuda.use():
        assert cuda.free_memory()[1] > 1 << 30
