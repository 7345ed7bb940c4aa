"""A Jetson's own reports: L4T release, module, power mode, tegrastats, GPU clocks."""

import re
from dataclasses import dataclass
from itertools import pairwise

from swise_engines.doctor.machine import Machine, UnobservableError

# NVIDIA, Jetson Linux archive: the release of Jetson Linux (L4T) in each JetPack. The oldest
# release first; a later patch of the same minor release belongs to the entry before it.
_JETPACK_OF_L4T: dict[tuple[int, int, int], str] = {
    (32, 7, 1): "4.6.1",
    (32, 7, 2): "4.6.2",
    (32, 7, 3): "4.6.3",
    (32, 7, 4): "4.6.4",
    (35, 1, 0): "5.0.2",
    (35, 2, 1): "5.1",
    (35, 3, 1): "5.1.1",
    (35, 4, 1): "5.1.2",
    (35, 5, 0): "5.1.3",
    (35, 6, 0): "5.1.4",
    (35, 6, 1): "5.1.5",
    (36, 2, 0): "6.0 DP",
    (36, 3, 0): "6.0",
    (36, 4, 0): "6.1",
    (36, 4, 3): "6.2",
    (36, 4, 4): "6.2.1",
    (36, 5, 0): "6.2.2",
    (38, 2, 0): "7.0",
    (38, 4, 0): "7.1",
    (39, 2, 0): "7.2",
    (39, 2, 1): "7.2.1",
}

# NVIDIA, Jetson Linux developer guide, "Jetson modules and configurations": part numbers.
_TARGET_OF_MODULE: dict[str, str] = {
    "p3448": "jetson-nano",
    "p3310": "jetson-tx2",
    "p3668": "jetson-xavier-nx",
    "p2888": "jetson-agx-xavier",
    "p3767-0000": "jetson-orin-nx",
    "p3767-0001": "jetson-orin-nx-8gb",
    "p3767-0003": "jetson-orin-nano",
    "p3767-0004": "jetson-orin-nano-4gb",
    "p3767-0005": "jetson-orin-nano",
    "p3701-0000": "jetson-agx-orin",
    "p3701-0004": "jetson-agx-orin-32gb",
    "p3701-0005": "jetson-agx-orin",
    "p3701-0008": "jetson-agx-orin",
    "p3834-0008": "jetson-thor",
}

_GPU_FOLDERS = ("*.gpu", "*.ga10b", "*.gv11b", "*.gp10b", "*.gm20b", "gpu-gpc-0")


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A power mode of nvpmodel: its name ("15W", "MAXN_SUPER") and number."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class TegraStats:
    """Temperatures and power from one line of tegrastats.

    Attributes:
        temperatures_c: By sensor; sensors that are switched off (below -200) are left out.
        rails_mw: Power by rail, now (not the running average).
    """

    temperatures_c: dict[str, float]
    rails_mw: dict[str, int]

    @property
    def total_mw(self) -> int | None:
        """Power of the whole module where a rail measures it: VDD_IN or POM_5V_IN."""
        return self.rails_mw.get("VDD_IN", self.rails_mw.get("POM_5V_IN"))


def parse_l4t_release(text: str) -> tuple[int, int, int]:
    """Release of Jetson Linux from /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, ...".

    Raises:
        UnobservableError: The text is not of that form.
    """
    found = re.search(r"# R(\d+) \(release\), REVISION: (\d+)\.(\d+)", text)
    if not found:
        raise UnobservableError(
            f"/etc/nv_tegra_release is {text[:60]!r}; expected '# R36 (release)'"
        )
    return int(found[1]), int(found[2]), int(found[3])


def jetpack_of(l4t: tuple[int, int, int]) -> str:
    """JetPack of a release of Jetson Linux; an unlisted patch belongs to its minor release.

    Raises:
        UnobservableError: No release of that major and minor number is known.
    """
    known = [release for release in _JETPACK_OF_L4T if release[:2] == l4t[:2] and release <= l4t]
    if not known:
        raise UnobservableError(f"no JetPack is known for L4T {'.'.join(map(str, l4t))}")
    return _JETPACK_OF_L4T[max(known)]


def parse_compatible(text: str) -> list[str]:
    """Names in /proc/device-tree/compatible, most exact first, without their "nvidia," prefix."""
    return [name.removeprefix("nvidia,") for name in text.split("\0") if name]


def target_of_module(compatible: list[str], model: str) -> str | None:
    """Shipped target of a Jetson; None for a module that is not listed.

    Args:
        compatible: Names from the device tree.
        model: /proc/device-tree/model; from JetPack 6.2 on it ends in "Super" where an Orin Nano
            was flashed with the Super clocks.
    """
    names = " ".join(compatible)
    target = next((t for part, t in _TARGET_OF_MODULE.items() if part in names), None)
    if target == "jetson-orin-nano" and "Super" in model:
        return "jetson-orin-nano-super"
    return target


def parse_nvpmodel(text: str) -> PowerMode:
    """Current mode from `nvpmodel -q`: "NV Power Mode: MAXN" and its number on the next line.

    Raises:
        UnobservableError: The text is not of that form.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line, following in pairwise(lines):
        _, separator, name = line.partition("NV Power Mode:")
        if separator and following.isdecimal():
            return PowerMode(name.strip(), int(following))
    raise UnobservableError(f"nvpmodel -q printed {text.strip()[:80]!r}; expected a power mode")


def parse_nvpmodel_conf(text: str) -> list[PowerMode]:
    """Modes of /etc/nvpmodel.conf: "< POWER_MODEL ID=0 NAME=MAXN >"."""
    found = re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text, re.MULTILINE)
    return [PowerMode(name, int(number)) for number, name in found]


def fastest_mode(modes: list[PowerMode]) -> PowerMode | None:
    """The mode without a power limit: MAXN_SUPER where there is one, else MAXN, else none."""
    unlimited = [mode for mode in modes if mode.name.startswith("MAXN")]
    return max(unlimited, key=lambda mode: len(mode.name), default=None)


def parse_tegrastats(line: str) -> TegraStats:
    """Read one line of tegrastats, of JetPack 4 to 7.

    Raises:
        UnobservableError: The line has no "RAM used/totalMB".
    """
    if not re.search(r"\bRAM \d+/\d+MB", line):
        raise UnobservableError(f"tegrastats printed {line.strip()[:80]!r}; expected RAM in it")
    temperatures = {
        name: float(degrees)
        for name, degrees in re.findall(r"\b(\w+)@(-?\d+(?:\.\d+)?)C\b", line)
        if float(degrees) > -200
    }
    rails = re.findall(r"\b((?:VDD|VDDQ|VIN|POM)_\w+) (\d+)(?:mW)?/\d+(?:mW)?", line)
    return TegraStats(
        temperatures_c=temperatures,
        rails_mw={name: int(milliwatts) for name, milliwatts in rails},
    )


def read_gpu_clock(machine: Machine, which: str) -> float:
    """GPU clock in MHz from devfreq; `which` is "cur", "min" or "max" (what the power mode allows).

    Raises:
        UnobservableError: There is no GPU in /sys/class/devfreq.
    """
    for pattern in _GPU_FOLDERS:
        for folder in machine.find(f"/sys/class/devfreq/{pattern}"):
            return int(machine.read(f"{folder}/{which}_freq")) / 1e6
    raise UnobservableError("/sys/class/devfreq has no GPU")
