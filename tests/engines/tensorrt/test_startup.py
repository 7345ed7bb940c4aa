"""The start of TensorRT in a process of its own, with stand-ins that fail as 8.6.0 does.

TensorRT 8.6.0 without a driver: `Builder` raises a TypeError, `Runtime` ends the process.
"""

import importlib.util

import pytest

from swise_deploy.errors import BackendMissingError
from swise_engines.doctor.imports import probe_package
from swise_engines.tensorrt import startup
from swise_engines.tensorrt.startup import check_start, reason_of_failed_start

STAND_IN = """
import os, signal
__version__ = "8.6.0"
class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)
class Builder:
    def __init__(self, logger):
        {builder}
class Runtime:
    def __init__(self, logger):
        {runtime}
"""
NULL = "logger.log(1, 'CUDA initialization failure with error: 35'); raise TypeError('nullptr')"
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a module named tensorrt in front of a real one."""

    def make(builder="pass", runtime="pass"):
        text = STAND_IN.format(builder=builder, runtime=runtime)
        (tmp_path / "tensorrt.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        check_start.cache_clear()

    yield make
    check_start.cache_clear()


def test_a_tensorrt_that_starts_has_no_reason(stand_in):
    stand_in()
    assert reason_of_failed_start(["Builder", "Runtime"]) == ""
    check_start("Builder")
    assert probe_package("tensorrt").start_error == ""


def test_a_builder_that_raises_gives_the_error_of_tensorrt(stand_in):
    stand_in(builder=NULL)
    with pytest.raises(BackendMissingError, match=r"Builder: CUDA initialization failure.*35"):
        check_start("Builder")
    package = probe_package("tensorrt")
    assert package.version == "8.6.0"
    assert "error: 35" in package.start_error


def test_a_runtime_that_crashes_ends_the_other_process_only(stand_in):
    stand_in(runtime=CRASH)
    check_start("Builder")
    with pytest.raises(BackendMissingError, match=r"at Runtime \(SIGSEGV\)"):
        check_start("Runtime")
    package = probe_package("tensorrt")
    assert package.version == "8.6.0"
    assert "after Builder" in package.start_error


def test_a_start_that_hangs_is_given_up(stand_in, monkeypatch):
    stand_in(runtime="import time; time.sleep(600)")
    monkeypatch.setattr(startup, "LIMIT_S", 2.0)
    assert reason_of_failed_start(["Runtime"]) == "it takes longer than 2 s"


def test_an_absent_tensorrt_is_named():
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    assert reason_of_failed_start(["Runtime"]) == "No module named 'tensorrt'"


def test_the_installed_tensorrt_starts_exactly_where_there_is_a_driver():
    pytest.importorskip("tensorrt", reason="needs the package tensorrt")
    has_driver = probe_package("cuda").works
    for part in startup.PARTS:
        assert (reason_of_failed_start([part]) == "") is has_driver
