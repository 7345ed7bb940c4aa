"""Energy of a frame: the sensors' readings while frames are processed, less those at rest."""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swise_bench.measuring.nvml import Nvml, NvmlError, open_nvml
from swise_bench.results.values import Energy, NotMeasured
from swise_deploy.runner import Runner
from swise_deploy.timing import picture_call

SAMPLE_EVERY_S = 0.05

# Rails that carry everything; where a board has none of them, its rails are summed.
TOTAL_RAILS = ("VIN", "VDD_IN", "POM_5V_IN", "VDD_TOTAL")
_NOT_CONNECTED = "NC"


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """A sensor of electrical power.

    Attributes:
        name: The sensor.
        read_watts: Reads its power.
        read_joules: Reads a counter of the energy used so far, which misses nothing between two
            readings; None where there is none.
    """

    name: str
    read_watts: Callable[[], float]
    read_joules: Callable[[], float] | None = None


def find_rails(root: Path = Path("/")) -> PowerSensor | None:
    """The power monitors of a Jetson, read through the kernel's hwmon files.

    `inN_input` is in mV and `currN_input` in mA (kernel documentation, hwmon/ina3221). A Thor has
    an INA238 besides, without labels, at the input of the whole board.
    """
    rails: dict[str, tuple[Path, Path]] = {}
    for monitor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        name = monitor / "name"
        chip = name.read_text().strip() if name.is_file() else ""
        labels = {1: "VIN"} if chip == "ina238" else {}
        if chip == "ina3221":
            files = {int(file.name[2]): file for file in monitor.glob("in[1-3]_label")}
            labels = {number: file.read_text().strip() for number, file in files.items()}
        for number, label in sorted(labels.items()):
            inputs = monitor / f"in{number}_input", monitor / f"curr{number}_input"
            if label != _NOT_CONNECTED and all(file.is_file() for file in inputs):
                rails[label] = inputs
    if not rails:
        return None
    total = next((rail for rail in TOTAL_RAILS if rail in rails), None)
    used = [total] if total else list(rails)

    def read_watts() -> float:
        pairs = ([int(file.read_text()) for file in rails[rail]] for rail in used)
        return sum(millivolts * milliamperes for millivolts, milliamperes in pairs) / 1e6

    return PowerSensor(
        f"{'INA238' if total == 'VIN' else 'INA3221'} {' + '.join(used)}", read_watts
    )


def measure_energy(
    runner: Runner,
    *,
    lr_size: tuple[int, int],
    batch: int = 1,
    seconds: float = 5.0,
    root: Path = Path("/"),
) -> Energy | NotMeasured:
    """Joules per frame above idle, of an activated runner.

    Args:
        runner: An activated runner.
        lr_size: Input size, (W, H).
        batch: Pictures in one call, each of which is a frame.
        seconds: Seconds of rest, and then of work.
        root: Folder that holds /sys.
    """
    with ExitStack() as stack:
        sensor = find_rails(root)
        if sensor is None:
            try:
                nvml = stack.enter_context(open_nvml())
                sensor = _sensor_of_card(nvml)
            except NvmlError as error:
                return NotMeasured(f"no sensor: no INA3221 rails in /sys/class/hwmon, and {error}")
        call = picture_call(runner, lr_size, batch=batch)
        call()
        idle = _mean_watts(sensor, lambda: time.sleep(seconds))
        num_frames = 0
        start = time.perf_counter()

        def work() -> None:
            nonlocal num_frames
            while time.perf_counter() - start < seconds:
                call()
                num_frames += batch

        active = _mean_watts(sensor, work)
        elapsed = time.perf_counter() - start
    if math.isnan(active) or math.isnan(idle):
        return NotMeasured(f"{sensor.name} gave no reading")
    joules = (active - idle) * elapsed / num_frames
    return Energy(joules, active, idle, sensor.name, num_frames, elapsed)


def _sensor_of_card(nvml: Nvml) -> PowerSensor:
    """The energy counter where the card has one: its power is an average that lags behind.

    Raises:
        NvmlError: The card reports neither.
    """
    try:
        nvml.used_joules()
    except NvmlError:
        nvml.power_watts()
        return PowerSensor("NVML power of CUDA's first GPU", nvml.power_watts)
    name = "NVML energy counter of CUDA's first GPU"
    return PowerSensor(name, nvml.power_watts, nvml.used_joules)


def _mean_watts(sensor: PowerSensor, work: Callable[[], None]) -> float:
    if sensor.read_joules is not None:
        before, start = sensor.read_joules(), time.perf_counter()
        work()
        return (sensor.read_joules() - before) / (time.perf_counter() - start)
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError, ValueError):  # a busy bus; the next one will do
                samples.append(sensor.read_watts())
            done.wait(SAMPLE_EVERY_S)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return float(np.mean(samples)) if samples else math.nan
