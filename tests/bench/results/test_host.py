import os
import time
from pathlib import Path

import pytest

from swise_bench.results.host import UNRELIABLE_SHARE, Quietness, QuietnessWatch, describe_host


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n",
    "proc/meminfo": "MemTotal:        7802672 kB\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "729600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48531\n",
}


def test_the_facts_of_a_board_are_read_from_its_files(tmp_path: Path) -> None:
    _write(tmp_path, JETSON)
    host = describe_host(tmp_path)
    assert host.device == "NVIDIA Jetson Orin Nano Developer Kit"
    assert host.cpu_flags == ("asimd", "asimdhp", "asimddp")
    assert host.clocks_mhz == ((729.6, 729.6, 1510.4),)
    assert host.governors == ("schedutil",)
    assert host.jetson_clocks is False
    assert host.memory_gib == pytest.approx(7802672 / 2**20, abs=0.01)
    assert [(t.sensor, t.celsius) for t in host.temperatures] == [("gpu-thermal", 48.531)]
    assert host.system.endswith("Ubuntu 22.04.4 LTS")


def test_jetson_clocks_is_on_when_the_gpu_cannot_slow_down(tmp_path: Path) -> None:
    _write(tmp_path, {**JETSON, "sys/class/devfreq/17000000.gpu/min_freq": "624750000\n"})
    assert describe_host(tmp_path).jetson_clocks is True


def test_a_machine_that_tells_nothing_gives_empty_facts_not_zeros(tmp_path: Path) -> None:
    host = describe_host(tmp_path)
    assert host.clocks_mhz == ()
    assert host.temperatures == ()
    assert host.jetson_clocks is None


def test_the_share_of_other_programs_leaves_our_own_out(tmp_path: Path) -> None:
    """100 ticks pass on each of 2 processors; 60 of the 200 are busy, none of them ours."""
    stat = "cpu  {user} 0 0 {idle} 0 0 0 0 0 0\n"
    _write(tmp_path, {"proc/stat": stat.format(user=1000, idle=9000)})
    watch = QuietnessWatch(tmp_path)
    _write(tmp_path, {"proc/stat": stat.format(user=1060, idle=9140)})
    quiet = watch.finish()
    # The few ticks that this test itself burns are taken off the 60.
    assert quiet.other_share == pytest.approx(0.30, abs=0.03)
    assert f"other programs took {quiet.other_share:.0%} of the processors" in quiet.warning


def test_above_the_stated_load_even_ratios_are_unreliable() -> None:
    assert Quietness(UNRELIABLE_SHARE, 1.0, None).reliability == "unreliable"
    assert Quietness(UNRELIABLE_SHARE - 0.01, 1.0, None).reliability == "disturbed"
    assert "unreliable" in Quietness(0.93, 1.0, None).warning


def test_load_on_processors_that_we_may_not_use_does_not_count(tmp_path: Path) -> None:
    ours = min(os.sched_getaffinity(0))
    lines = "cpu 0 0 0 0 0 0 0 0\ncpu{ours} 0 0 0 {idle} 0 0 0 0\ncpu9999 {busy} 0 0 0 0 0 0 0\n"
    _write(tmp_path, {"proc/stat": lines.format(ours=ours, idle=0, busy=0)})
    watch = QuietnessWatch(tmp_path)
    _write(tmp_path, {"proc/stat": lines.format(ours=ours, idle=100, busy=100)})
    assert watch.finish().other_share == 0


def test_our_own_work_does_not_disturb_us(tmp_path: Path) -> None:
    stat = "cpu  {user} 0 0 {idle} 0 0 0 0 0 0\n"
    _write(tmp_path, {"proc/stat": stat.format(user=0, idle=0)})
    watch = QuietnessWatch(tmp_path)
    before = sum(os.times()[:2])
    while sum(os.times()[:2]) - before < 0.1:
        time.sleep(0)
    # 10 ticks of 10 ms were ours; the file reports exactly them.
    _write(tmp_path, {"proc/stat": stat.format(user=10, idle=190)})
    quiet = watch.finish()
    assert quiet.other_share == pytest.approx(0, abs=0.01)
    assert quiet.warning == ""


def test_a_throttled_processor_is_reported(tmp_path: Path) -> None:
    count = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    _write(tmp_path, {"proc/stat": "cpu 0 0 0 0 0 0 0 0\n", count: "3\n"})
    watch = QuietnessWatch(tmp_path)
    _write(tmp_path, {"proc/stat": "cpu 0 0 0 100 0 0 0 0\n", count: "5\n"})
    assert "throttled" in watch.finish().warning


def test_an_unknown_share_is_reported_as_unknown() -> None:
    quiet = Quietness(None, 0.0, None)
    assert quiet.reliability == "unknown"
    assert "unknown" in quiet.warning
