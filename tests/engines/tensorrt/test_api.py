import gc
import importlib.util
import weakref

import pytest

from swise_deploy.errors import BackendMissingError
from swise_engines.tensorrt.api import (
    Messages,
    create_builder,
    create_runtime,
    load_tensorrt,
    plan_typing,
    release_of,
)


@pytest.mark.parametrize(
    ("backend", "version"),
    [
        ("tensorrt_rtx", "1.2.0.54"),
        ("tensorrt_rtx", "1.7.1.116"),
        ("tensorrt", "10.3.0.30"),
        ("tensorrt", "10.16.1"),
        ("tensorrt", "11.4.1"),
    ],
)
@pytest.mark.parametrize("precisions", [{"fp32"}, {"fp16", "fp32"}, {"int8", "fp16"}])
def test_from_10_on_the_graph_alone_decides(backend, version, precisions):
    plan = plan_typing(backend, version, precisions)
    assert plan.creation_flags == ("STRONGLY_TYPED",)
    assert plan.creation_flags == ("STRONGLY_TYPED",)
    assert plan.builder_flags == ()
    assert not plan.pins_layers


@pytest.mark.parametrize(
    ("precisions", "flags"),
    [
        ({"fp32"}, ("OBEY_PRECISION_CONSTRAINTS",)),
        ({"fp16"}, ("FP16", "OBEY_PRECISION_CONSTRAINTS")),
        ({"int8", "fp32"}, ("INT8", "OBEY_PRECISION_CONSTRAINTS")),
        ({"int8", "fp16"}, ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS")),
    ],
)
@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.2.3"])
def test_tensorrt_8_gets_flags_and_pinned_layers(version, precisions, flags):
    plan = plan_typing("tensorrt", version, precisions)
    assert "STRONGLY_TYPED" not in plan.creation_flags
    assert plan.creation_flags == ("EXPLICIT_BATCH",)
    assert plan.builder_flags == flags
    assert plan.pins_layers


def test_dla_is_weakly_typed_on_10_and_strongly_on_11():
    assert plan_typing("tensorrt", "10.3.0", {"fp16"}, on_dla=True).pins_layers
    plan = plan_typing("tensorrt", "11.4.1", {"fp16"}, on_dla=True)
    assert plan.creation_flags == ("STRONGLY_TYPED",)


@pytest.mark.parametrize("version", ["8.2.1.8", "7.1.3", "8.4.1.5"])
def test_what_lacks_named_tensors_is_too_old(version):
    with pytest.raises(BackendMissingError, match=r"8\.5 or later"):
        plan_typing("tensorrt", version, {"fp32"})


def test_bf16_is_refused_where_there_is_none():
    with pytest.raises(BackendMissingError, match="no bf16"):
        plan_typing("tensorrt", "8.6.1", {"bf16"})


def test_versions_compare_as_numbers():
    assert release_of("10.16.1.2") == (10, 16)
    assert release_of("10.3") < release_of("10.16")


@pytest.mark.usefixtures("rtx")
def test_errors_are_kept_in_order_and_once():
    trt = load_tensorrt("tensorrt_rtx")
    messages = Messages(trt)
    assert messages.explain() == "TensorRT gave no reason"
    messages.sink.log(trt.ILogger.ERROR, "first\n  line")
    messages.sink.log(trt.ILogger.WARNING, "not an error")
    messages.sink.log(trt.ILogger.ERROR, "second")
    messages.sink.log(trt.ILogger.ERROR, "second")
    assert messages.explain() == "first line; second"


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("create", [create_builder, create_runtime])
def test_tensorrt_that_does_not_start_is_a_missing_backend(create):
    trt = load_tensorrt("tensorrt_rtx")
    messages = Messages(trt)
    messages.errors.append("CUDA initialization failure with error: 35")
    messages.sink = None  # what the bindings refuse as they refuse a null pointer
    with pytest.raises(
        BackendMissingError, match=r"does not start: CUDA init.*error: 35\. It needs"
    ):
        create(trt, messages)


@pytest.mark.usefixtures("rtx")
def test_each_keeps_its_own_errors_and_outlives_what_tensorrt_may_hold():
    trt = load_tensorrt("tensorrt_rtx")
    first, second = Messages(trt), Messages(trt)
    sink = weakref.ref(first.sink)
    create_runtime(trt, second).get_engine_validity(b"x" * 300)
    second.sink.log(trt.ILogger.ERROR, "of the second")
    assert (first.errors, second.errors) == ([], ["of the second"])
    del first
    gc.collect()
    assert sink() is not None


def test_a_missing_tensorrt_is_not_looked_for_in_an_extra_that_does_not_bring_it():
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("this machine has TensorRT")
    with pytest.raises(BackendMissingError, match=r"does not import.*pip install 'tensorrt<12'"):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize(
    ("version", "on_dla", "who"),
    [("8.6.1", False, "TensorRT 8.6.1 has no"), ("10.3.0", True, "a DLA core has no")],
)
def test_newer_formats_are_refused_for_weak_typing(precision, version, on_dla, who):
    with pytest.raises(BackendMissingError, match=f"{who} {precision}; expected.*--fp16"):
        plan_typing("tensorrt", version, {"fp32", precision}, on_dla=on_dla)
    assert plan_typing("tensorrt", "10.3.0", {precision}).creation_flags == ("STRONGLY_TYPED",)
