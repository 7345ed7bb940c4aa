import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from swise_bench.measuring.energy import PowerSensor, _mean_watts, find_rails, measure_energy
from swise_bench.measuring.nvml import NvmlError, open_nvml
from swise_bench.results.values import Energy, NotMeasured
from swise_engines.cuda.boundary import find_gpu


def _monitor(root: Path, rails: dict[str, tuple[int, int]]) -> Path:
    """hwmon files as the kernel's ina3221 driver lays them out: mV and mA."""
    folder = root / "sys/class/hwmon/hwmon3"
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina3221\n")
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        (folder / f"in{number}_label").write_text(f"{label}\n")
        (folder / f"in{number}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
    return folder


def test_the_total_rail_is_read_where_there_is_one(tmp_path: Path) -> None:
    _monitor(tmp_path, {"VDD_IN": (5000, 1200), "VDD_CPU_GPU_CV": (5000, 300)})
    sensor = find_rails(tmp_path)
    assert sensor is not None
    assert sensor.name == "INA3221 VDD_IN"
    assert sensor.read_watts() == pytest.approx(6.0)


def test_rails_are_summed_where_no_total_is_there(tmp_path: Path) -> None:
    _monitor(tmp_path, {"GPU": (19000, 100), "CPU": (19000, 50), "SOC": (5000, 200)})
    sensor = find_rails(tmp_path)
    assert sensor is not None
    assert sensor.read_watts() == pytest.approx(1.9 + 0.95 + 1.0)


def test_what_is_not_connected_is_no_rail(tmp_path: Path) -> None:
    _monitor(tmp_path, {"NC": (19000, 9999), "VDD_GPU_SOC": (19000, 100), "VDD_CPU_CV": (5000, 60)})
    sensor = find_rails(tmp_path)
    assert sensor is not None
    assert sensor.read_watts() == pytest.approx(1.9 + 0.3)


def test_the_input_of_the_board_of_a_thor_is_its_total(tmp_path: Path) -> None:
    _monitor(tmp_path, {"VDD_GPU": (5000, 1200), "VDD_CPU_SOC_MSS": (5000, 300)})
    board = tmp_path / "sys/class/hwmon/hwmon4"
    board.mkdir()
    for file, text in {"name": "ina238", "in1_input": "19000", "curr1_input": "2000"}.items():
        (board / file).write_text(f"{text}\n")
    sensor = find_rails(tmp_path)
    assert sensor is not None
    assert sensor.name == "INA238 VIN"
    assert sensor.read_watts() == pytest.approx(38.0)


def test_a_counter_is_read_before_and_after_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = [5.0]
    monkeypatch.setattr(time, "perf_counter", lambda: times_s[-1])
    sensor = PowerSensor("a counter", lambda: 99.0, lambda: 7.0 * times_s[-1])
    assert _mean_watts(sensor, lambda: times_s.append(5.5)) == pytest.approx(7.0)


def test_without_a_driver_or_its_package_nvml_gives_a_reason() -> None:
    if find_gpu().cuda is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(NvmlError, match=r"nvmlInit|nvidia-ml-py|pynvml"), open_nvml():
        pass


@pytest.mark.gpu
def test_a_card_reports_its_power() -> None:
    pytest.importorskip("pynvml")
    if find_gpu().cuda is None:
        pytest.skip("needs an NVIDIA GPU")
    with open_nvml() as nvml:
        assert 1 < nvml.power_watts() < 2000


def test_other_hardware_monitors_are_no_power_sensors(tmp_path: Path) -> None:
    folder = _monitor(tmp_path, {"VDD_IN": (5000, 1200)})
    (folder / "name").write_text("nvme\n")
    assert find_rails(tmp_path) is None


class _Board:
    """A runner whose work shows on the rail: 4 W at rest, 10 W while it runs."""

    name = "board"
    scale = 2
    io = "float"

    def __init__(self, rail: Path) -> None:
        self.rail = rail
        self.calls = 0

    def infer(self, lr: NDArray[np.generic]) -> NDArray[np.generic]:
        self.calls += 1
        if self.calls > 1:
            new = self.rail.with_suffix(".new")
            new.write_text("2000\n")
            new.replace(self.rail)
        return lr


def test_energy_of_a_frame_is_what_is_above_idle(tmp_path: Path) -> None:
    folder = _monitor(tmp_path, {"VDD_IN": (5000, 800)})
    board = _Board(folder / "curr1_input")
    energy = measure_energy(board, lr_size=(8, 8), seconds=0.3, root=tmp_path)  # type: ignore[arg-type]  # all that is used
    assert isinstance(energy, Energy)
    assert energy.idle_watts == pytest.approx(4.0)
    # The first of the samples may still see the board at rest.
    assert energy.active_watts == pytest.approx(10.0, abs=1.5)
    above = energy.active_watts - energy.idle_watts
    assert energy.joules_per_frame == pytest.approx(above * energy.seconds / energy.num_frames)
    assert energy.num_frames == board.calls - 1


def test_without_a_sensor_there_is_a_reason_and_no_number(tmp_path: Path) -> None:
    board = _Board(tmp_path / "nothing")
    energy = measure_energy(board, lr_size=(8, 8), seconds=0.1, root=tmp_path)  # type: ignore[arg-type]  # all that is used
    if isinstance(energy, NotMeasured):
        assert energy.not_measured.startswith("no sensor")
    else:
        assert "NVML" in energy.sensor
