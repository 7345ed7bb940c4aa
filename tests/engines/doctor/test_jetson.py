import pytest

from swise_engines.doctor.jetson import (
    PowerMode,
    fastest_mode,
    jetpack_of,
    parse_compatible,
    parse_l4t_release,
    parse_nvpmodel,
    parse_nvpmodel_conf,
    parse_tegrastats,
    target_of_module,
)
from swise_engines.doctor.machine import UnobservableError
from swise_engines.doctor.nvidia_smi import parse_gpus

# Recorded on devices, as their owners published them: first lines of /etc/nv_tegra_release.
RELEASES = [
    (
        (
            "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, "
            "DATE: Sat Feb 19 17:05:08 UTC 2022\n"
        ),
        (32, 7, 1),
        "4.6.1",
    ),
    (
        (
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
            "DATE: Tue Aug  1 19:57:35 UTC 2023\n"
        ),
        (35, 4, 1),
        "5.1.2",
    ),
    (
        (
            "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64, "
            "DATE: Fri Jul 19 23:24:25 UTC 2024\n# KERNEL_VARIANT: oot\n"
            "TARGET_USERSPACE_LIB_DIR=nvidia\n"
        ),
        (36, 3, 0),
        "6.0",
    ),
    (
        (
            "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, "
            "DATE: Fri Sep 13 04:36:44 UTC 2024\n"
        ),
        (36, 4, 0),
        "6.1",
    ),
    (
        (
            "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, "
            "DATE: Thu Sep 18 22:54:44 UTC 2025\n"
        ),
        (36, 4, 7),
        "6.2.1",
    ),
    (
        (
            "# R38 (release), REVISION: 2.2, GCID: 42205042, BOARD: generic, EABI: aarch64, "
            "DATE: Thu Sep 25 22:47:11 UTC 2025\n"
        ),
        (38, 2, 2),
        "7.0",
    ),
    (
        (
            "# R39 (release), REVISION: 2.1, GCID: 46758480, BOARD: generic, EABI: aarch64, "
            "DATE: Fri Aug 7 05:54:22 AM UTC 2026\n"
        ),
        (39, 2, 1),
        "7.2.1",
    ),
]

# Recorded lines of tegrastats: Orin Nano (JetPack 6), AGX Orin as root, TX2 (JetPack 4).
ORIN_NANO = (
    "06-18-2025 11:25:24 RAM 3452/7620MB (lfb 25x4MB) SWAP 1518/16384MB (cached 174MB) "
    "CPU [1%@1420,2%@1420,0%@1420,2%@1420,2%@729,1%@729] GR3D_FREQ 0% cpu@50.031C soc2@49.031C "
    "soc0@50C gpu@49.031C tj@50.25C soc1@50.25C VDD_IN 4824mW/4824mW VDD_CPU_GPU_CV 518mW/518mW "
    "VDD_SOC 1475mW/1475mW"
)
AGX_ORIN = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) "
    "CPU [0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C "
    "SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C GPU@-256C tj@44.343C SOC1@41.25C CV2@-256C "
    "VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
TX2 = (
    "RAM 1685/7854MB (lfb 1044x4MB) SWAP 278/8192MB (cached 23MB) "
    "CPU [5%@345,0%@345,0%@345,7%@345,3%@347,0%@345] EMC_FREQ 16%@102 GR3D_FREQ 36%@140 APE 150 "
    "MTS fg 0% bg 0% BCPU@41C MCPU@41C GPU@39C PLL@41C Tboard@37C Tdiode@37.25C PMIC@100C "
    "thermal@39.9C VDD_IN 1776/1805 VDD_CPU 231/231 VDD_GPU 154/154 VDD_SOC 386/385"
)

# Power modes that an Orin Nano Super declares in /etc/nvpmodel.conf.
CONF = """
# abridged
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< POWER_MODEL ID=3 NAME=7W >
< PM_CONFIG DEFAULT=1 >
"""


@pytest.mark.parametrize(("text", "l4t", "jetpack"), RELEASES)
def test_release_files_name_their_l4t_and_jetpack(text, l4t, jetpack):
    assert parse_l4t_release(text) == l4t
    assert jetpack_of(l4t) == jetpack


@pytest.mark.parametrize("l4t", [(31, 1, 0), (36, 1, 9), (40, 0, 0)])
def test_an_unknown_release_is_not_guessed(l4t):
    with pytest.raises(UnobservableError, match=f"no JetPack is known for L4T {l4t[0]}"):
        jetpack_of(l4t)


def test_another_release_file_is_quoted():
    with pytest.raises(UnobservableError, match=r"'Ubuntu 22\.04'"):
        parse_l4t_release("Ubuntu 22.04")


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", PowerMode("MAXN", 0)),
        ("NV Power Mode: 25W\n1\n", PowerMode("25W", 1)),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", PowerMode("MAXN", 0)),
        (
            (
                "NVPM VERB: Config file: /etc/nvpmodel.conf\n"
                "NVPM VERB: Current mode: NV Power Mode: 25W\n1\n"
            ),
            PowerMode("25W", 1),
        ),
    ],
)
def test_nvpmodel_tells_its_mode(text, mode):
    assert parse_nvpmodel(text) == mode


@pytest.mark.parametrize("text", ["", "NV Power Mode: MAXN\n", "NVPM ERROR: no permission\n0\n"])
def test_nvpmodel_without_a_mode_is_unknown(text):
    with pytest.raises(UnobservableError, match="expected a power mode"):
        parse_nvpmodel(text)


def test_the_fastest_mode_is_not_always_mode_0():
    modes = parse_nvpmodel_conf(CONF)
    assert [mode.name for mode in modes] == ["15W", "25W", "MAXN_SUPER", "7W"]
    assert fastest_mode(modes) == PowerMode("MAXN_SUPER", 2)


def test_without_an_unlimited_mode_none_is_the_fastest():
    assert fastest_mode([PowerMode("15W", 0)]) is None


def test_tegrastats_of_an_orin_nano():
    stats = parse_tegrastats(ORIN_NANO)
    assert stats.temperatures_c["gpu"] == 49.031
    assert stats.temperatures_c["soc0"] == 50.0
    assert stats.rails_mw == {"VDD_IN": 4824, "VDD_CPU_GPU_CV": 518, "VDD_SOC": 1475}
    assert stats.total_mw == 4824


def test_tegrastats_of_an_agx_orin_has_no_total_and_no_dead_sensors():
    stats = parse_tegrastats(AGX_ORIN)
    assert stats.temperatures_c.keys() == {
        "CPU", "Tboard", "SOC2", "Tdiode", "SOC0", "tj", "SOC1",
    }  # fmt: skip
    assert stats.rails_mw == {
        "VDD_GPU_SOC": 2340,
        "VDD_CPU_CV": 390,
        "VIN_SYS_5V0": 4025,
        "VDDQ_VDD2_1V8AO": 301,
    }
    assert stats.total_mw is None


def test_tegrastats_of_jetpack_4_gives_milliwatts_without_a_unit():
    stats = parse_tegrastats(TX2)
    assert stats.total_mw == 1776
    assert stats.rails_mw["VDD_GPU"] == 154


def test_something_else_than_tegrastats_is_refused():
    with pytest.raises(UnobservableError, match="'tegrastats: permission denied'; expected RAM"):
        parse_tegrastats("tegrastats: permission denied")


@pytest.mark.parametrize(
    ("compatible", "model", "target"),
    [
        (
            "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
            "jetson-orin-nano-super",
        ),
        (
            "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
            "NVIDIA Jetson Orin Nano Developer Kit\0",
            "jetson-orin-nano",
        ),
        (
            "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0",
            "NVIDIA Jetson AGX Orin Developer Kit\0",
            "jetson-agx-orin",
        ),
        ("nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,tegra210\0", "", "jetson-nano"),
        ("raspberrypi,5-model-b\0brcm,bcm2712\0", "Raspberry Pi 5", None),
    ],
)
def test_a_module_is_known_by_its_part_number(compatible, model, target):
    assert target_of_module(parse_compatible(compatible), model) == target


def test_nvidia_smi_on_a_jetson_leaves_most_unknown():
    (gpu,) = parse_gpus("Orin (nvgpu), 8.7, 540.4.0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n")
    assert (gpu.name, gpu.sm, gpu.driver) == ("Orin (nvgpu)", "8.7", "540.4.0")
    assert gpu.memory_mib is None
    assert gpu.power_w is None


def test_nvidia_smi_on_two_cards():
    cards = parse_gpus(
        "NVIDIA L4, 8.9, 550.54.15, 23034, 0, 300, 2040, 38, 16.61\n"
        "NVIDIA L4, 8.9, 550.54.15, 23034, 512, 2040, 2040, 61, [Not Supported]\n"
    )
    assert [card.memory_used_mib for card in cards] == [0.0, 512.0]
    assert [card.power_w for card in cards] == [16.61, None]


@pytest.mark.parametrize("text", ["", "No devices were found\n"])
def test_nvidia_smi_without_a_card_is_unknown(text):
    with pytest.raises(UnobservableError, match="nvidia-smi printed"):
        parse_gpus(text)
