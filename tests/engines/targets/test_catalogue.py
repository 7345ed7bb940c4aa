import dataclasses
import math
from typing import Any

import pytest

from swise_deploy.errors import InputError
from swise_engines.targets.catalogue import (
    PowerMode,
    Target,
    find_target,
    load_targets,
    precisions_of_sm,
    targets_from_toml,
)

# Peak arithmetic, independent of the shipped numbers: streaming multiprocessors, clock in MHz, and
# the dense FP16 tensor and FP32 operations of one in a clock (two per multiply-add).
# Per SM: Turing 8 tensor cores x 64 FMA and 64 FP32 lanes; Ampere GA10x, Ada and RTX Blackwell
# 4 x 128 and 128; GA100 4 x 256 and 64; Hopper 4 x 512 and 128; Volta's Xavier 8 x 64 and 64;
# Orin 4 x 256 and 128; Thor 4 x 1024 and 128. Maxwell and Pascal: 128 lanes, FP16 twice FP32.
COMPUTE = {
    "rtx-2080-ti": (68, 1545, 1024, 128),
    "rtx-3060": (28, 1777, 1024, 256),
    "rtx-3070": (46, 1725, 1024, 256),
    "rtx-3080": (68, 1710, 1024, 256),
    "rtx-3090": (82, 1695, 1024, 256),
    "rtx-a6000": (84, 1800, 1024, 256),
    "rtx-4060": (24, 2460, 1024, 256),
    "rtx-4070": (46, 2475, 1024, 256),
    "rtx-4080": (76, 2505, 1024, 256),
    "rtx-4090": (128, 2520, 1024, 256),
    "rtx-5060-ti": (36, 2572, 1024, 256),
    "rtx-5070": (48, 2512, 1024, 256),
    "rtx-5080": (84, 2617, 1024, 256),
    "rtx-5090": (170, 2407, 1024, 256),
    "jetson-nano": (1, 921.6, 512, 256),
    "jetson-tx2": (2, 1302, 512, 256),
    "jetson-xavier-nx": (6, 1100, 1024, 128),
    "jetson-agx-xavier": (8, 1377, 1024, 128),
    "jetson-orin-nano-4gb": (4, 625, 2048, 256),
    "jetson-orin-nano": (8, 625, 2048, 256),
    "jetson-orin-nano-super": (8, 1020, 2048, 256),
    "jetson-orin-nx-8gb": (8, 765, 2048, 256),
    "jetson-orin-nx": (8, 918, 2048, 256),
    "jetson-agx-orin-32gb": (14, 930, 2048, 256),
    "jetson-agx-orin": (16, 1301, 2048, 256),
    "jetson-thor": (20, 1575, 8192, 256),
    "t4": (40, 1590, 1024, 128),
    "a2": (10, 1770, 1024, 256),
    "a10": (72, 1695, 1024, 256),
    "a30": (56, 1440, 2048, 128),
    "a100-40gb": (108, 1410, 2048, 128),
    "a100": (108, 1410, 2048, 128),
    "l4": (58, 2040, 1024, 256),
    "l40s": (142, 2520, 1024, 256),
}
# Hopper quotes its tensor peak and its FP32 peak at different boost clocks.
HOPPER = {
    "h100": (132, 1830, 1980),
    "h200": (132, 1830, 1980),
    "h100-pcie": (114, 1620, 1755),
}
NO_INT8 = {"jetson-nano", "jetson-tx2"}
GENERIC = {"sm75", "sm80", "sm86", "sm89", "sm120", "sm121"}
WITHOUT_CLOCK = {"b200", "dgx-spark"}  # no clock of theirs is published

# Bus width in bits and data rate in Gbit/s a pin.
MEMORY = {
    "rtx-2080-ti": (352, 14),
    "rtx-3060": (192, 15),
    "rtx-3070": (256, 14),
    "rtx-3080": (320, 19),
    "rtx-3090": (384, 19.5),
    "rtx-a6000": (384, 16),
    "rtx-4060": (128, 17),
    "rtx-4070": (192, 21),
    "rtx-4080": (256, 22.4),
    "rtx-4090": (384, 21),
    "rtx-5060-ti": (128, 28),
    "rtx-5070": (192, 28),
    "rtx-5080": (256, 30),
    "rtx-5090": (512, 28),
    "dgx-spark": (256, 8.533),
    "jetson-nano": (64, 3.2),
    "jetson-tx2": (128, 3.732),
    "jetson-xavier-nx": (128, 3.732),
    "jetson-agx-xavier": (256, 4.266),
    "jetson-orin-nano-4gb": (64, 4.266),
    "jetson-orin-nano": (128, 4.266),
    "jetson-orin-nano-super": (128, 6.4),
    "jetson-orin-nx-8gb": (128, 6.4),
    "jetson-orin-nx": (128, 6.4),
    "jetson-agx-orin-32gb": (256, 6.4),
    "jetson-agx-orin": (256, 6.4),
    "jetson-thor": (256, 8.533),
    "t4": (256, 10),
    "a2": (128, 12.5),
    "a10": (384, 12.5),
    "a30": (3072, 2.43),
    "a100-40gb": (5120, 2.43),
    "a100": (5120, 3.186),
    "l4": (192, 12.5),
    "l40s": (384, 18),
    "h100": (5120, 5.2375),
    "h100-pcie": (5120, 3.186),
    "h200": (6144, 6.25),
    "b200": (8192, 7.8),
}

ONE = """
schema_version = 2
[sources]
here = "a datasheet"
[precisions.tensorrt_rtx]
"8.6" = ["fp32", "fp16"]
[[targets]]
name = "card"
title = "A card"
sm = "8.6"
kind = "rtx"
backends = ["tensorrt_rtx"]
tensorrt_versions = ["10"]
sources = ["here"]
"""


def make_target(**changes: Any) -> Target:
    card = Target(
        name="card",
        title="A card",
        sm="8.6",
        kind="rtx",
        backends=("tensorrt_rtx",),
        tensorrt_versions=("10",),
        sources=("a datasheet",),
    )
    return dataclasses.replace(card, **changes)


def test_every_device_with_a_peak_has_its_arithmetic():
    with_peak = {name for name, target in load_targets().items() if target.fp16_tflops}
    assert with_peak == COMPUTE.keys() | HOPPER.keys() | WITHOUT_CLOCK
    assert load_targets().keys() - with_peak == GENERIC


# 2 %: sheets round to two or three digits, and boost clocks to 5 MHz.
@pytest.mark.parametrize("name", COMPUTE)
def test_peaks_follow_from_units_and_clock(name):
    target = find_target(name)
    num_sms, clock_mhz, fp16_per_clock, fp32_per_clock = COMPUTE[name]
    assert target.fp16_tflops == pytest.approx(num_sms * clock_mhz * fp16_per_clock / 1e6, rel=0.02)
    assert target.fp32_tflops == pytest.approx(num_sms * clock_mhz * fp32_per_clock / 1e6, rel=0.02)


@pytest.mark.parametrize("name", HOPPER)
def test_hopper_peaks_follow_from_units_and_both_clocks(name):
    target = find_target(name)
    num_sms, tensor_mhz, cuda_mhz = HOPPER[name]
    assert target.fp16_tflops == pytest.approx(num_sms * tensor_mhz * 4096 / 1e6, rel=0.02)
    assert target.fp32_tflops == pytest.approx(num_sms * cuda_mhz * 256 / 1e6, rel=0.02)


@pytest.mark.parametrize("name", sorted(COMPUTE.keys() | HOPPER.keys() | WITHOUT_CLOCK))
def test_int8_runs_at_twice_fp16_where_there_are_int8_tensor_cores(name):
    target = find_target(name)
    if name in NO_INT8:
        assert target.int8_tops is None
    else:
        assert target.fp16_tflops is not None
        assert target.int8_tops == pytest.approx(2 * target.fp16_tflops, rel=0.01)


# 3 %: B200's data rate is itself a rounded figure.
@pytest.mark.parametrize("name", sorted(load_targets().keys() - GENERIC))
def test_bandwidth_is_bus_width_times_data_rate(name):
    bits, gigabits_per_pin = MEMORY[name]
    assert find_target(name).bandwidth_gb_s == pytest.approx(bits * gigabits_per_pin / 8, rel=0.03)


@pytest.mark.parametrize(
    ("name", "sm", "dla_cores"),
    [
        ("jetson-nano", "5.3", 0),
        ("jetson-agx-xavier", "7.2", 2),
        ("jetson-orin-nano", "8.7", 0),
        ("jetson-agx-orin", "8.7", 2),
        ("jetson-thor", "11.0", 0),
        ("h100", "9.0", 0),
        ("b200", "10.0", 0),
    ],
)
def test_compute_capability_and_dla_are_the_published_ones(name, sm, dla_cores):
    target = find_target(name)
    assert (target.sm, target.dla_cores) == (sm, dla_cores)


def test_targets_of_tensorrt_for_rtx_are_its_compute_capabilities():
    served = {t.sm for t in load_targets().values() if "tensorrt_rtx" in t.backends}
    assert served == {"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"}


def test_each_jetpack_ships_a_tensorrt_that_serves_the_device():
    jetsons = [target for target in load_targets().values() if target.kind == "jetson"]
    assert len(jetsons) == 12
    for target in jetsons:
        assert target.jetpacks
        assert all(target.served_by(tensorrt) for tensorrt in target.jetpacks.values()), target.name
        assert target.backends == ("tensorrt",)


@pytest.mark.parametrize("name", [t.name for t in load_targets().values() if t.power_modes])
def test_the_first_power_mode_has_the_peaks_of_the_device(name):
    first = find_target(name).power_modes[0]
    assert (first.num_sms, first.gpu_mhz) == COMPUTE[name][:2]
    assert first.bandwidth_gb_s == find_target(name).bandwidth_gb_s


def test_a_power_mode_scales_the_peaks_by_clock_and_multiprocessors():
    orin_nx = find_target("jetson-orin-nx")
    modes = {mode.name: orin_nx.in_mode(mode) for mode in orin_nx.power_modes}
    assert modes.keys() == {"MAXN", "10W", "15W", "25W", "40W"}
    # 8 multiprocessors at 408 MHz, 4 at 612 MHz; 2048 operations a clock in each.
    assert modes["25W"].fp16_tflops == pytest.approx(8 * 408 * 2048 / 1e6, rel=0.01)
    assert modes["10W"].fp16_tflops == pytest.approx(4 * 612 * 2048 / 1e6, rel=0.01)
    assert modes["10W"].bandwidth_gb_s == pytest.approx(128 / 8 * 4.266, rel=0.01)


def test_a_power_mode_without_a_clock_is_refused():
    with pytest.raises(InputError, match="MAXN"):
        make_target(power_modes=(PowerMode("MAXN", 0, 8, 100),))


def test_only_jetsons_have_jetpacks():
    assert not [t.name for t in load_targets().values() if t.jetpacks and t.kind != "jetson"]


@pytest.mark.parametrize(
    ("name", "version", "served"),
    [
        ("jetson-orin-nano", "10.3.0.30", True),
        ("jetson-orin-nano", "10.30.0", False),
        ("jetson-orin-nano", "11.4.1", False),
        ("jetson-agx-orin", "11.4.1.2", True),
        ("jetson-nano", "8.2.1.9", True),
        ("jetson-nano", "8.6.2", False),
        ("rtx-5090", "10.7.0", False),
        ("rtx-5090", "10.8", True),
        ("rtx-5090", "10.16.2", True),
        ("rtx-5090", "12.0", False),
    ],
)
def test_a_release_serves_a_device_or_not(name, version, served):
    assert find_target(name).served_by(version) is served


# NVIDIA, TensorRT support matrix, "Hardware and Precision"; for RTX on Turing the words of its
# library 1.7.1: "for Turing (SM75): native INT8 convolution is not currently supported".
@pytest.mark.parametrize(
    ("backend", "sm", "has", "lacks"),
    [
        ("tensorrt", "5.3", {"fp32", "fp16"}, {"int8", "bf16", "fp8"}),
        ("tensorrt", "7.5", {"fp16", "int8"}, {"bf16", "fp8"}),
        ("tensorrt_rtx", "7.5", {"fp16"}, {"int8", "bf16", "fp8"}),
        ("tensorrt_rtx", "8.6", {"fp16", "int8", "bf16"}, {"fp8"}),
        ("tensorrt", "8.7", {"fp16", "int8", "bf16"}, {"fp8"}),
        ("tensorrt_rtx", "8.9", {"int8", "bf16", "fp8"}, set()),
    ],
)
def test_a_backend_multiplies_in_what_the_compute_capability_has(backend, sm, has, lacks):
    found = set(precisions_of_sm(backend, sm))
    assert has <= found
    assert not lacks & found
    for target in load_targets().values():
        if target.sm == sm and backend in target.backends:
            assert set(target.precisions[backend]) == found


def test_nothing_is_known_of_a_compute_capability_without_a_target():
    assert precisions_of_sm("tensorrt", "3.5") == ()


def test_a_misspelt_target_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown target 'jetson-orin-nan0'.*'jetson-orin-nano'"):
        find_target("jetson-orin-nan0")


def test_targets_cannot_be_changed_by_a_caller():
    with pytest.raises(TypeError):
        load_targets()["mine"] = make_target()  # type: ignore[index]  # what the test is about


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sm": "8"}, r"sm '8'; expected such as '8.6'"),
        ({"backends": ()}, "backends is empty"),
        ({"sources": ()}, "sources is empty"),
        ({"tensorrt_versions": ("ten",)}, "tensorrt_versions 'ten'"),
        ({"fp16_tflops": 0}, "fp16_tflops is 0; expected a positive number"),
        ({"memory_gib": -1}, "memory_gib is -1"),
        ({"bandwidth_gb_s": math.nan}, "bandwidth_gb_s is nan"),
        ({"int8_tops": math.inf}, "int8_tops is inf"),
        ({"dla_cores": -1}, "dla_cores is -1"),
        ({"unconfirmed": ("watts",)}, "unconfirmed 'watts'"),
    ],
)
def test_an_impossible_value_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=f"target 'card': {message}"):
        make_target(**change)


def test_sources_are_spelt_out():
    assert targets_from_toml(ONE)["card"].sources == ("a datasheet",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE.replace("schema_version = 2", "schema_version = 1"), "schema_version is 1"),
        (ONE.replace("schema_version = 2", ""), "schema_version is None"),
        (ONE + "watts = 5\n", r"unknown key 'watts' at `\$.targets\[...\]`"),
        (ONE + "[extra]\na = 1\n", "unknown key 'extra'"),
        (ONE.replace('["here"]', '["there"]'), "sources 'there'; expected one of here"),
        (ONE.replace('sm = "8.6"', ""), "missing required field `sm`"),
        (ONE.replace('"8.6" =', '"8.9" ='), "precisions.tensorrt_rtx: '8.6'; expected one of 8.9"),
        (ONE.replace("[[targets]]", "[targets]"), r"Expected `array`, got `object`"),
        (ONE + ONE[ONE.index("[[targets]]") :], "target 'card' is there twice"),
        (ONE + "[", "the target file"),
        (ONE + f"notes = {'[' * 100_000}", "the target file"),
        (ONE + f"memory_gib = {'9' * 5000}\n", "the target file"),
        (ONE + "memory_gib = nan\n", "memory_gib is nan"),
        *(
            (ONE.replace(line, f"{line.partition(' = ')[0]} = {value}"), "the target file")
            for line in ONE.splitlines()
            if " = " in line
            for value in ("5", "2026-01-01", "[[1]]", "{a = 1}", "true")
            if not (line.startswith("schema_version") and value == "5")
        ),
        (ONE.replace('kind = "rtx"', 'kind = "phone"'), r"'phone'.*`\$.targets\[0\].kind`"),
        (ONE.replace('["tensorrt_rtx"]', '["cuda"]'), "'cuda'"),
        (ONE + 'dla_cores = "2"\n', r"Expected `int`, got `str`.*dla_cores"),
    ],
)
def test_a_damaged_file_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        targets_from_toml(text)
