"""Asked is built: a device without the hardware is refused, and compiled kernels are looked at."""

import pytest

from swise_deploy.errors import BuildError, InputError
from swise_engines.building.builder_config import CompileOptions
from swise_engines.building.compiler import compile_engine
from swise_engines.building.options import BuildOptions, plan_build
from swise_engines.building.progress import BuildProgress
from swise_engines.cuda.boundary import Device
from swise_engines.targets.catalogue import find_target
from swise_engines.tensorrt.kernel_text import check_stores, count_stores, describe_stores
from swise_engines.tensorrt.onnx_source import read_source
from swise_engines.tensorrt.precision_table import PrecisionRow, PrecisionTable
from swise_engines.tensorrt.profiles import Extent, Profile

SMALL = Profile(Extent(1, 8, 8), Extent(1, 16, 12), Extent(2, 32, 24))

# Lines of an engine's kernels; a load, a helper and a store to a local buffer are not counted.
TEXT = b"""\x00NLYM extern "C" __global__ void k(__myln_float* __v1, __myln_int8* __v12) {
  __v20 = ((__myln_float*)__v1)[(0 + ((__v17) * 1))];
  __v24 = __myln_min___myln_int8___myln_int8(__v22 , __v23);
  buffer_[index / 2] = packed;
  ((__myln_int8*)__v12)[0 + (__v17 * 4) + ((1 == 1)?0:(__v14 * 768))] = __v18;
  ((__myln_int8*)__v9)[0 + (__v27 * 4)] = __v28;
  ((__myln_half*)__v1)[0 + __v2] = __v3;
  ((__myln_int32*)__v7)[__v2] = __v3;
  ((__myln_fp8_e4m3*)__v8)[__v2] = __v3;
}\x00\xff"""


@pytest.fixture
def compile_for(rtx, make_onnx, report):
    del rtx

    def run(kind, sm, precision=""):
        options = CompileOptions("tensorrt_rtx", sm, (SMALL,), precision)
        return compile_engine(read_source(make_onnx(kind)), options, BuildProgress(report))

    return run


def test_stores_are_counted_by_precision():
    stores = count_stores(TEXT)
    assert stores == {"fp16": 1, "fp8": 1, "int8": 2}
    assert describe_stores(stores) == "2 int8, 1 fp16, 1 fp8"
    assert count_stores(b"a plan without text") == {}


@pytest.mark.parametrize(
    ("kind", "stores", "lacks"),
    [
        ("fp32", {"fp32"}, {"fp16", "int8"}),
        ("fp16", {"fp16"}, {"int8"}),
        ("bf16", {"bf16"}, {"fp16", "int8"}),
        ("int8", {"int8"}, {"fp16"}),
        ("mixed", {"fp16", "fp32"}, {"int8"}),
    ],
)
@pytest.mark.parametrize("sm", ["8.0", "8.6", "8.9", "12.0"])
def test_kernels_store_what_the_network_computes_in(compile_for, kind, stores, lacks, sm):
    found = compile_for(kind, sm, kind).stores
    assert stores <= set(found)
    assert not lacks & set(found)


def test_int8_that_is_compiled_to_fp32_is_found_and_refused(compile_for):
    """TensorRT for RTX has no INT8 convolution for Turing, and says nothing."""
    compiled = compile_for("int8", "7.5")
    assert compiled.table.share("int8") == 1.0
    assert "int8" not in compiled.stores
    with pytest.raises(BuildError, match=r"100\.0% of the Mult-Adds were parsed as int8.*fp32"):
        compile_for("int8", "7.5", "int8")


def test_an_engine_without_text_is_not_refused():
    parsed = PrecisionTable("parsed network", (PrecisionRow("int8", 2, 1.0, {}),), 0.0)
    check_stores("int8", parsed, {})
    check_stores("", parsed, {"fp32": 3})
    with pytest.raises(BuildError, match="3 fp32"):
        check_stores("mixed", parsed, {"fp32": 3})


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("target", ["rtx-2080-ti", "sm75", "t4"])
def test_int8_for_turing_with_rtx_is_refused_beforehand(make_onnx, target):
    source = read_source(make_onnx("int8"))
    options = BuildOptions(find_target(target))
    with pytest.raises(InputError, match=r"int8, which tensorrt_rtx does not have on SM 7\.5"):
        plan_build(source, options, "tensorrt_rtx", "1.7.1.116", None)
    fp16 = read_source(make_onnx("fp16"))
    assert plan_build(fp16, options, "tensorrt_rtx", "1.7.1.116", None).sm == "7.5"


@pytest.mark.parametrize("sm", ["8.9", "12.0"])
def test_fp8_is_compiled_for_ada_and_blackwell(compile_for, sm):
    compiled = compile_for("fp8", sm, "fp8")
    assert compiled.table.share("fp8") == 1.0
    (row,) = [row for row in compiled.table.rows if row.precision == "fp8"]
    assert row.weights == {"fp8": 2}
    assert "fp8" in compiled.stores
    assert "int8" not in compiled.stores


@pytest.mark.parametrize("sm", ["7.5", "8.6"])
def test_tensorrt_itself_refuses_fp8_for_older_cards(compile_for, sm):
    with pytest.raises(BuildError, match="fp8"):
        compile_for("fp8", sm, "fp8")


@pytest.mark.parametrize(
    ("target", "backend", "sm"),
    [
        ("rtx-2080-ti", "tensorrt_rtx", "7.5"),
        ("rtx-3060", "tensorrt_rtx", "8.6"),
        ("jetson-orin-nano", "tensorrt", "8.7"),
        ("jetson-xavier-nx", "tensorrt", "7.2"),
    ],
)
def test_fp8_before_ada_is_refused_beforehand(make_onnx, target, backend, sm):
    options = BuildOptions(find_target(target))
    device = Device(target, sm, is_integrated=False, driver_cuda="12.6")
    version = {"tensorrt_rtx": "1.7.1.116", "tensorrt": "10.3.0"}[backend]
    if target == "jetson-xavier-nx":
        version = "8.5.2"
    with pytest.raises(InputError, match=rf"computes in fp8, which {backend}.*{sm}.*--fp16"):
        plan_build(read_source(make_onnx("fp8")), options, backend, version, device)


@pytest.mark.parametrize("kind", ["bf16", "fp8"])
def test_thor_has_bf16_and_fp8_and_orin_bf16_alone(make_onnx, kind):
    for target, has in (("jetson-thor", True), ("jetson-orin-nano", kind == "bf16")):
        chosen = find_target(target)
        assert (kind in chosen.precisions["tensorrt"]) == has
    thor = Device("Thor", "11.0", is_integrated=True, driver_cuda="13.0")
    options = BuildOptions(find_target("jetson-thor"))
    version = find_target("jetson-thor").tensorrt_versions[-1].rstrip("+") + ".0.0"
    settings = plan_build(read_source(make_onnx(kind)), options, "tensorrt", version, thor)
    assert settings.precision == kind


@pytest.mark.parametrize(
    ("target", "backend", "sm"),
    [
        ("rtx-2080-ti", "tensorrt_rtx", "7.5"),
        ("t4", "tensorrt", "7.5"),
        ("jetson-nano", "tensorrt", "5.3"),
        ("jetson-tx2", "tensorrt", "6.2"),
        ("jetson-xavier-nx", "tensorrt", "7.2"),
    ],
)
def test_bf16_before_ampere_is_refused_beforehand(make_onnx, target, backend, sm):
    device = Device(target, sm, is_integrated=False, driver_cuda="12.6")
    version = "1.7.1.116" if backend == "tensorrt_rtx" else find_target(target).tensorrt_versions[0]
    options = BuildOptions(find_target(target))
    with pytest.raises(InputError, match=rf"computes in bf16, which {backend}.*{sm}.*--fp16"):
        plan_build(read_source(make_onnx("bf16")), options, backend, f"{version}.0.1", device)


@pytest.mark.parametrize(
    ("target", "sm"), [("t4", "7.5"), ("jetson-orin-nano", "8.7"), ("h100", "9.0")]
)
def test_tensorrt_itself_has_int8_from_turing_on(make_onnx, target, sm):
    device = Device(target, sm, is_integrated=False, driver_cuda="12.6")
    source = read_source(make_onnx("int8"))
    settings = plan_build(source, BuildOptions(find_target(target)), "tensorrt", "8.6.1", device)
    assert settings.precision == "int8"


def test_a_jetson_nano_has_no_int8(make_onnx):
    device = Device("Nano", "5.3", is_integrated=True, driver_cuda="10.2")
    source, options = read_source(make_onnx("int8")), BuildOptions(find_target("jetson-nano"))
    with pytest.raises(InputError, match=r"int8.*SM 5\.3 \(Jetson Nano 4GB\); it has fp32, fp16"):
        plan_build(source, options, "tensorrt", "8.2.1", device)


def test_a_portable_engine_needs_what_its_oldest_gpu_has(make_onnx):
    options = BuildOptions(find_target("sm75"), compatibility="ampere_plus")
    settings = plan_build(read_source(make_onnx("int8")), options, "tensorrt_rtx", "1.7.1", None)
    assert settings.compatibility == "ampere_plus"
