"""Graphics cards as nvidia-smi reports them."""

from dataclasses import dataclass

from swise_engines.doctor.machine import Machine, UnobservableError

_FIELDS = (
    "name",
    "compute_cap",
    "driver_version",
    "memory.total",
    "memory.used",
    "clocks.sm",
    "clocks.max.sm",
    "temperature.gpu",
    "power.draw",
)
QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One row of nvidia-smi; None stands for [N/A] and [Not Supported], as on a Jetson."""

    name: str
    sm: str | None
    driver: str | None
    memory_mib: float | None
    memory_used_mib: float | None
    sm_clock_mhz: float | None
    max_sm_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None


def read_gpus(machine: Machine) -> list[GpuReading]:
    """Every card.

    Raises:
        UnobservableError: nvidia-smi is absent, fails, or prints another form.
    """
    return parse_gpus(machine.output_of(*QUERY))


def parse_gpus(text: str) -> list[GpuReading]:
    """Rows of `QUERY`: comma-separated, no header, no units.

    Raises:
        UnobservableError: A row has another number of columns, or there is none.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line]
    if not rows or any(len(row) != len(_FIELDS) for row in rows):
        raise UnobservableError(
            f"nvidia-smi printed {text.strip()[:80]!r}; expected {len(_FIELDS)} columns"
        )
    return [
        GpuReading(row[0], _text(row[1]), _text(row[2]), *(_number(cell) for cell in row[3:]))
        for row in rows
    ]


def _text(cell: str) -> str | None:
    return None if cell.startswith("[") or cell in ("", "N/A") else cell


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
