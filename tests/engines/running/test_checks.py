"""Refusals before anything is deserialised, each on a real engine file."""

import dataclasses
import json
import os

import pytest

from swise_deploy.errors import BackendMissingError, BuildError, InputError
from swise_engines.cuda.boundary import Device
from swise_engines.running.checks import accepts_version, check_device, check_file, check_version
from swise_engines.running.loaded_engine import LoadedEngine
from swise_engines.running.read_back import check_validity
from swise_engines.running.runner import EngineRunner
from swise_engines.tensorrt.api import Messages, load_tensorrt
from swise_export.manifest import manifest_path
from tests.engines.conftest import HostCuda, manifest_of


def device(sm: str) -> Device:
    return Device("Test GPU", sm, is_integrated=False, driver_cuda="12.6")


def test_a_whole_engine_is_admitted_with_its_manifest(engine):
    manifest = check_file(engine)
    assert manifest is not None
    assert manifest.engine_bytes == engine.stat().st_size
    check_version(engine, manifest, manifest.backend_version)
    check_device(engine, manifest, device("8.6"))


def test_one_changed_byte_is_refused(engine):
    plan = bytearray(engine.read_bytes())
    plan[len(plan) // 2] ^= 1
    engine.write_bytes(plan)
    with pytest.raises(InputError, match="was changed after it was built"):
        check_file(engine)


def test_a_truncated_engine_is_refused_with_both_sizes(engine):
    whole = engine.stat().st_size
    os.truncate(engine, whole - 100)
    with pytest.raises(InputError, match=f"truncated: {whole - 100} bytes.*{whole}"):
        check_file(engine)


def test_a_longer_engine_is_refused(engine):
    with engine.open("ab") as file:
        file.write(b"metadata glued to the end")
    with pytest.raises(InputError, match="is changed"):
        check_file(engine)


def test_without_manifest_only_trust_admits(engine):
    manifest_path(engine).unlink()
    with pytest.raises(InputError, match=r"has no manifest.*trust=True"):
        check_file(engine)
    assert check_file(engine, trust=True) is None


def test_trust_does_not_accept_a_changed_engine(engine):
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        check_file(engine, trust=True)


def test_no_engine_at_all_names_the_command(tmp_path):
    with pytest.raises(InputError, match="swise-build"):
        check_file(tmp_path / "absent.engine")


def test_a_manifest_of_something_else_is_refused(engine):
    manifest_path(engine).write_text('{"kind": "onnx", "schema_version": 1}')
    with pytest.raises(InputError, match="expected 'engine'"):
        check_file(engine)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
def test_a_manifest_that_is_no_object_is_refused(engine, text):
    manifest_path(engine).write_text(text)
    with pytest.raises(InputError, match="manifest"):
        check_file(engine)


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 99}, {"surprise": 1}, {"profiles": [[1, 2]]}, {"profiles": []}],
)
def test_a_manifest_with_other_contents_is_refused(engine, change):
    path = manifest_path(engine)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"schema_version|surprise|damaged|profile"):
        check_file(engine)


def test_a_manifest_lacking_a_key_is_refused(engine):
    path = manifest_path(engine)
    document = json.loads(path.read_text())
    del document["sms"]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="sms"):
        check_file(engine)


@pytest.mark.parametrize("sm", ["8.9", "7.5", "12.0", "8.7"])
def test_another_sm_is_refused_with_the_command_that_builds_for_it(engine, sm):
    manifest = manifest_of(engine)
    with pytest.raises(InputError, match=rf"built for SM 8\.6.*SM {sm}.*swise-build tiny\.onnx"):
        check_device(engine, manifest, device(sm))


@pytest.mark.parametrize(
    ("sm", "runs"), [("8.0", True), ("12.0", True), ("99.0", True), ("7.5", False)]
)
def test_a_portable_engine_runs_from_8_0_on(engine, sm, runs):
    manifest = dataclasses.replace(manifest_of(engine), sms=(), compatibility="ampere_plus")
    if runs:
        check_device(engine, manifest, device(sm))
    else:
        with pytest.raises(InputError, match=r"SM 8\.0 and later"):
            check_device(engine, manifest, device(sm))


def test_a_portable_engine_of_rtx_does_not_run_between_its_gpus(engine):
    manifest = dataclasses.replace(manifest_of(engine), sms=(), compatibility="ampere_plus")
    hopper = device("9.0")
    with pytest.raises(BackendMissingError, match=r"runs no engine on SM 9\.0.*--backend tensorrt"):
        check_device(engine, manifest, hopper)
    check_device(engine, dataclasses.replace(manifest, backend="tensorrt"), hopper)


def test_another_tensorrt_is_refused(engine):
    manifest = manifest_of(engine)
    with pytest.raises(InputError, match=r"TensorRT for RTX .* the installed 1\.6\.0\.1"):
        check_version(engine, manifest, "1.6.0.1")


# NVIDIA, TensorRT documentation, "Version compatibility".
@pytest.mark.parametrize(
    ("built", "running", "runs"),
    [
        ("10.3.0", "10.16.1", True),
        ("10.3.0", "11.4.1", True),
        ("8.6.1", "10.3.0", True),
        ("8.6.1", "11.4.1", False),
        ("10.16.1", "10.3.0", False),
        ("11.4.1", "10.3.0", False),
    ],
)
def test_version_compatible_engines_run_forward(engine, built, running, runs):
    assert accepts_version(built, running) is runs
    manifest = dataclasses.replace(
        manifest_of(engine), backend_version=built, version_compatible=True
    )
    if runs:
        check_version(engine, manifest, running)
    else:
        with pytest.raises(InputError):
            check_version(engine, manifest, running)


def test_loading_refuses_another_gpu_before_it_touches_it(engine):
    other = HostCuda()
    other.device = device("8.9")
    with pytest.raises(InputError, match=r"built for SM 8\.6"):
        LoadedEngine(engine, cuda=other)
    assert other.num_taken == 0


def test_loading_refuses_a_changed_file_before_it_looks_for_a_gpu(engine):
    with engine.open("r+b") as file:
        file.seek(200)
        file.write(b"\0\1\2\3")
    with pytest.raises(InputError, match="was changed"):
        EngineRunner(engine).activate()


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("plan", [b"x" * 200, b"\0" * 5000])
def test_tensorrt_itself_refuses_what_is_no_engine(plan):
    trt = load_tensorrt("tensorrt_rtx")
    messages = Messages(trt)
    runtime = trt.Runtime(messages.sink)
    with pytest.raises(BuildError, match="malformed_engine"):
        check_validity(trt, runtime, plan, messages)


# What 1.7.1.116 says of a portable engine on an H100, in its own words.
ON_AN_H100 = (
    "The engine cannot run on this GPU, which has compute capability 9.0. Supported compute "
    "capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0. TensorRT-RTX does not support this compute "
    "capability, so the engine cannot be rebuilt for it."
)


@pytest.mark.usefixtures("rtx")
def test_a_gpu_that_tensorrt_does_not_serve_gives_the_log_of_tensorrt():
    trt = load_tensorrt("tensorrt_rtx")
    messages = Messages(trt)

    class Runtime:
        def get_engine_validity(self, _):
            messages.sink.log(trt.ILogger.INFO, ON_AN_H100)
            return trt.EngineValidity.INVALID, trt.EngineInvalidityDiagnostics.UNSUPPORTED_CC

    with pytest.raises(BackendMissingError) as caught:
        check_validity(trt, Runtime(), b"plan", messages)
    assert f"refuses the engine: unsupported_cc ({ON_AN_H100})" in str(caught.value)
    assert "pip install 'tensorrt<12'" in str(caught.value)


def test_a_whole_engine_gets_as_far_as_the_missing_gpu(engine):
    from swise_engines.cuda.boundary import find_gpu

    if find_gpu().cuda is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendMissingError, match=r"GPU|not installed"):
        EngineRunner(engine).activate()


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("validity", "reasons", "is_skipped"),
    [
        ("INVALID", ("UNSUPPORTED_CC",), True),
        ("INVALID", ("UNSUPPORTED_CC", "CUDA_ERROR"), False),
        ("INVALID", ("MALFORMED_ENGINE",), False),
        ("VALID", (), False),
    ],
)
def test_gpu_tests_are_skipped_for_nothing_but_an_unserved_gpu(
    ask_refusal, monkeypatch, validity, reasons, is_skipped
):
    trt = load_tensorrt("tensorrt_rtx")
    flags = trt.EngineInvalidityDiagnostics

    class Runtime:
        def __init__(self, sink):
            sink.log(trt.ILogger.INFO, ON_AN_H100)

        def get_engine_validity(self, _):
            diagnostics = sum(int(getattr(flags, reason)) for reason in reasons)
            return getattr(trt.EngineValidity, validity), diagnostics

    monkeypatch.setattr(trt, "Runtime", Runtime)
    assert ask_refusal(trt, b"plan") == (ON_AN_H100 if is_skipped else "")
