"""Results that run.sh brings back: times, layers, the device's picture, power mode and clocks."""

import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swise_deploy.errors import InputError
from swise_deploy.storage.documents import document_from_json
from swise_deploy.storage.files import read_regular, sha256_of
from swise_engines.trtexec.folder import TrtexecFolder, read_folder

MAX_BYTES = 1 << 30  # of a 4K picture as text
_VERSION = re.compile(r"\[TensorRT v(\d+)\]")
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class TrtexecResults:
    """The measurements of one folder on one device.

    Attributes:
        folder: What was measured.
        device: The device's own name; "" where it shows none.
        power_mode: Mode of nvpmodel before and after; empty where the device has none.
        clocks_mhz: GPU clocks before and after, by file; empty where the device shows none.
        version: Of TensorRT, such as "8.2.1"; "" where the log does not state it.
        constraints: "obey" where every layer has the precision of the file, else "none".
        latency_ms: Of each call, copies included.
        compute_ms: GPU time of each call.
        layers: Name and mean milliseconds of each layer; empty without a profile.
        psnr_db: PSNR between the device's picture and the reference; infinite where they are equal,
            None where no picture came back.
    """

    folder: TrtexecFolder
    device: str
    power_mode: tuple[str, ...]
    clocks_mhz: tuple[float, ...]
    version: str
    constraints: str
    latency_ms: tuple[float, ...]
    compute_ms: tuple[float, ...]
    layers: tuple[tuple[str, float], ...]
    psnr_db: float | None

    @property
    def name(self) -> str:
        """Network, scale, precision and device, such as "swisenet x2 fp16 on Jetson Nano"."""
        facts = self.folder
        what = f"{facts.network or facts.onnx_name} x{facts.scale} {facts.precision}".strip()
        return f"{what} on {self.device or facts.target or 'a device'}"

    def rows_ms(self) -> dict[str, dict[str, float]]:
        """Figures of both times, with the names that trtexec prints."""
        return {
            "Latency": _figures(self.latency_ms),
            "GPU Compute Time": _figures(self.compute_ms),
        }


def read_results(folder: Path) -> TrtexecResults:
    """Read the results of a folder that was on a device.

    Raises:
        InputError: The folder has no results, or a file in it is damaged.
    """
    facts = read_folder(folder)
    results = folder / "results"
    if not results.is_dir():
        raise InputError(f"{folder} has no results yet. Run sh run.sh in it on the device")
    _check_hashes(folder, facts)
    times = _read_json(results / "times.json", list[dict[str, float]])
    if not times:
        raise InputError(f"{results / 'times.json'} has no times; expected one entry a call")
    before, after = (_read_text(results / f"{when}.txt") for when in ("before", "after"))
    return TrtexecResults(
        folder=facts,
        device=_section(before, "/proc/device-tree/model") or _section(before, "nvidia-smi"),
        power_mode=tuple(filter(None, (_power_mode(before), _power_mode(after)))),
        clocks_mhz=tuple(_clocks(before) + _clocks(after)),
        version=version_from_log(_read_text(results / "build.log")),
        constraints=_read_text(results / "constraints.txt").strip() or "none",
        latency_ms=_column(times, "latencyMs", results),
        compute_ms=_column(times, "computeMs", results),
        layers=_layers(results / "profile.json"),
        psnr_db=_psnr(folder, facts, results / "output.json"),
    )


def _check_hashes(folder: Path, facts: TrtexecFolder) -> None:
    """Check that the device ran this folder's model on its picture."""
    files = {
        "model.onnx": facts.model_sha256,
        "input.raw": facts.input_sha256,
        "reference.raw": facts.reference_sha256,
    }
    for name, expected in files.items():
        if sha256_of(folder / name) != expected:
            raise InputError(
                f"{folder / name} was changed after the folder was written. Write it again with "
                "swise-build FILE.onnx --trtexec, and run it again"
            )


def _figures(times: tuple[float, ...]) -> dict[str, float]:
    found = {
        "min": min(times),
        "max": max(times),
        "mean": statistics.fmean(times),
        "median": statistics.median(times),
    }
    for percent in _PERCENTILES[1:]:
        found[f"p{percent}"] = float(np.percentile(times, percent))
    return found


def _column(times: list[dict[str, float]], key: str, results: Path) -> tuple[float, ...]:
    """One time of every call. The other keys differ between 8.2 and later releases."""
    found = tuple(entry[key] for entry in times if key in entry)
    if len(found) != len(times) or not all(math.isfinite(t) and t >= 0 for t in found):
        raise InputError(
            f"{results / 'times.json'}: expected {key}, a number from 0 up, in every entry"
        )
    return found


def _layers(path: Path) -> tuple[tuple[str, float], ...]:
    """Layers of --exportProfile: a first entry with the count, then one for each layer."""
    if not path.exists():
        return ()
    entries = _read_json(path, list[dict[str, str | float]])
    found = []
    for entry in entries:
        if "name" in entry:
            average = entry.get("averageMs")
            if not isinstance(average, (int, float)):
                raise InputError(f"{path}: layer {entry['name']!r} has no averageMs")
            found.append((str(entry["name"]), float(average)))
    return tuple(found)


def _psnr(folder: Path, facts: TrtexecFolder, path: Path) -> float | None:
    """Compare the device's picture with the reference."""
    if not path.exists():
        return None
    outputs = _read_json(path, list[dict[str, Any]])
    found = next((o for o in outputs if o.get("name") == facts.output_name), None)
    values = None if found is None else found.get("values")
    size = math.prod(facts.output_shape)
    if not isinstance(values, list) or len(values) != size:
        raise InputError(f"{path}: expected {size} values of the output {facts.output_name!r}")
    try:
        sr: NDArray[np.float64] = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a value is not a number: {error}") from error
    reference = np.fromfile(folder / "reference.raw", np.float32)
    if reference.size != size:
        raise InputError(f"{folder / 'reference.raw'} has {reference.size} values, expected {size}")
    error_power = float(
        np.mean((np.clip(sr, 0, facts.white) - np.clip(reference, 0, facts.white)) ** 2)
    )
    return math.inf if error_power == 0 else 10 * math.log10(facts.white**2 / error_power)


def _read_json(path: Path, kind: Any) -> Any:
    text = _read_text(path)
    if re.search(r"[\[:,]\s*-?(?:nan|inf)", text, re.IGNORECASE):
        raise InputError(f"{path}: the device's output contains NaN or infinity; try fp32 layers")
    try:
        return document_from_json(text, kind)
    except ValueError as error:
        raise InputError(f"cannot read {path}: {error}. Run sh run.sh again") from error


def _read_text(path: Path) -> str:
    try:
        return read_regular(path, max_bytes=MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}. Run sh run.sh on the device again"
        ) from error


def _section(text: str, title: str) -> str:
    """First line below a heading of run.sh's `state`; "" without it."""
    _, found, rest = text.partition(f"== {title}\n")
    return rest.splitlines()[0].strip() if found and rest else ""


def _power_mode(text: str) -> str:
    found = re.search(r"NV Power Mode: *(\S+)", text)
    return found[1] if found else ""


def _clocks(text: str) -> list[float]:
    found = re.findall(r"== \S*gp?u?\S*/cur_freq\n(\d+)", text)
    return [int(hertz) / 1e6 for hertz in found]


def version_from_log(log: str) -> str:
    """Version of TensorRT in a log: "v8601" is 8.6.1, "v100300" is 10.3.0; "" without one."""
    found = _VERSION.search(log)
    if found is None:
        return ""
    number = int(found[1])
    ten = 10 if number < 10_000 else 100
    return f"{number // (100 * ten)}.{number // 100 % ten}.{number % 100}"
