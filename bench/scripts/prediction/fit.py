"""Fits the likely latency of `swise-bench --target` to published latencies, and checks it.

    python bench/scripts/prediction/fit.py --rows edge_latency.json

Writes the parameters to bench/swise_bench/prediction/latency_model.json and every left-out
prediction to bench/results/prediction/left_out.json. Needs torch, which makes the graphs, and
SciPy.
"""

import argparse
import functools
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

ROOT = Path(__file__).resolve().parents[3]
ROOMS = (ROOT, ROOT / "export", ROOT / "engines", ROOT / "bench")
sys.path[:0] = [str(room) for room in ROOMS]  # runs from a checkout that is not installed

from scripts.prediction.networks import graph_of  # noqa: E402
from swise_bench.prediction.latency_model import (  # noqa: E402
    INTERVAL_SHARE,
    SCHEMA_VERSION,
    Features,
    LatencyModel,
    LeftOut,
    Parameters,
    factor_off,
    features_of,
    likely_ms,
)
from swise_bench.prediction.roofline import Device, device_from_target, predict  # noqa: E402
from swise_deploy.command.console import progress, run_command  # noqa: E402
from swise_deploy.errors import InputError  # noqa: E402
from swise_deploy.precision import ExportPrecision  # noqa: E402
from swise_deploy.storage.documents import write_document  # noqa: E402
from swise_deploy.storage.files import write_json  # noqa: E402
from swise_engines.targets.catalogue import find_target  # noqa: E402
from swise_export.counting import Counts, count_onnx  # noqa: E402

MODEL = ROOT / "bench" / "swise_bench" / "prediction" / "latency_model.json"
LEFT_OUT = ROOT / "bench" / "results" / "prediction" / "left_out.json"

# Published device and power mode: target and mode.
TARGETS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("Jetson Orin NX 8GB", "15 W"): ("jetson-orin-nx-8gb", "15W"),
    ("Jetson Orin NX 16GB", "25 W"): ("jetson-orin-nx", "25W"),
    ("Jetson Orin Nano Super", ""): ("jetson-orin-nano-super", ""),
    ("Jetson Xavier NX", ""): ("jetson-xavier-nx", ""),
    ("T4", ""): ("t4", ""),
    ("A100 40GB", ""): ("a100-40gb", ""),
    ("RTX 4060 8GB", ""): ("rtx-4060", ""),
    ("H100", ""): ("h100", ""),
}

# Multiprocessors, boost clock in MHz and GB/s of cards that are no target: NVIDIA's GA102 and Ada
# whitepapers, and for the laptop its specification, 5120 cores at 1290 to 1620 MHz.
CARDS = {
    "RTX 3060 Ti": (38, 1665, 448),
    "RTX 3070 Laptop": (40, 1620, 448),
    "RTX 4060 Ti 16GB": (34, 2535, 288),
}

# Kinds of rows that a GPU's latency can be read from; pipelines where the network dominates.
KINDS = ("jetson-gpu", "jetson-pipeline", "rtx-pipeline", "datacentre", "datacentre-pipeline")
TOO_SMALL = {
    "SRVGGNetCompact": "decoding, conversion and encoding of the frames take part of the time",
    "SRCNN 9-1-5 x4 RGB on Jetson TX2": "out of line with the same source's other rows",
}

# Where the data decides nothing: mean and deviation of the logarithm, in the order of Parameters.
PRIOR = np.log([8.0, 0.6, 0.5, 0.5, 20.0])
PRIOR_DEVIATION = np.array([1.0, 0.5, 0.5, 0.5, 1.0])
LIMITS = (np.full(5, -np.inf), np.array([np.inf, 0, 0, 0, np.inf]))
NOISE = 0.3
"""Standard deviation of the logarithm of a published latency."""


@dataclass(frozen=True, slots=True)
class Row:
    """A published latency.

    Attributes:
        network: Its name, scale and size.
        family: Networks of one architecture, left out together.
        device: Target or card, with its power mode; left out together.
        precision: Of the engine.
        measured_ms: Latency of a frame.
        features: The operators on that device.
        source: Where it was published.
    """

    network: str
    family: str
    device: str
    precision: ExportPrecision
    measured_ms: float
    features: Features
    source: str


def main() -> int:
    """Fit, check, and write both documents."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=Path, required=True, metavar="JSON")
    options = parser.parse_args()
    return run_command(lambda: _run(options.rows))


def _run(path: Path) -> int:
    rows = read_rows(path)
    model, documents = fitted(rows)
    write_document(MODEL, model)
    write_json(LEFT_OUT, {"interval_factor": model.interval_factor, "rows": documents})
    sys.stdout.write(f"{model.parameters}\n{model.describe()}\n")
    return 0


def read_rows(path: Path) -> list[Row]:
    """The comparable rows, each with the operators of its network on its device.

    Raises:
        InputError: No row can be used.
    """
    rows = [row for plain in json.loads(path.read_text()) if (row := _row_from(plain)) is not None]
    if not rows:
        raise InputError(f"{path} has no comparable row")
    return rows


def _row_from(plain: Mapping[str, object]) -> Row | None:
    name, published = str(plain["network"]), str(plain["device"])
    text = str(plain["precision"])
    precision: ExportPrecision | None = next(
        (p for p in ("fp32", "fp16", "int8") if text.startswith(p)),
        None,
    )
    device = _device(published, str(plain["power_mode"]))
    skipped = any(f"{name} on {published}".startswith(key) for key in TOO_SMALL)
    if plain["kind"] not in KINDS or device is None or precision is None or skipped:
        return None
    scale = plain["scale"] if isinstance(plain["scale"], int) else 3
    width, height = map(int, str(plain["lr_size"]).split("x"))
    counts = _counts(name, scale, (width, height))
    prediction = predict(name, counts, device, precision=precision)
    assert prediction is not None, "every device of the table has its peaks"
    return Row(
        f"{name.partition(' (')[0]} x{scale} at {width}x{height}",
        _family(name),
        f"{device.name} {device.power_mode}".strip(),
        precision,
        float(str(plain["ms"])),
        features_of(prediction.layers, device),
        str(plain["source"]),
    )


def _device(name: str, mode: str) -> Device | None:
    if name in CARDS:
        sms, mhz, bandwidth = CARDS[name]
        fp16, fp32 = sms * mhz * 1024 / 1e6, sms * mhz * 256 / 1e6
        peaks: dict[ExportPrecision, float | None] = {"fp32": fp32, "fp16": fp16, "int8": 2 * fp16}
        return Device(name, peaks, fp32, bandwidth, "")
    found = TARGETS.get((name, mode)) or TARGETS.get((name, ""))
    if found is None:
        return None
    target = find_target(found[0])
    in_mode = next((m for m in target.power_modes if m.name == found[1]), None)
    return device_from_target(target.in_mode(in_mode) if in_mode else target)


def _family(name: str) -> str:
    if "RRDB" in name:
        return "RRDB"
    known = next((known for known in ("NanoVSR", "NinaSR") if name.startswith(known)), None)
    return known or name.partition(" ")[0]


@functools.cache
def _counts(name: str, scale: int, lr_size: tuple[int, int]) -> Counts:
    progress(f"{name} x{scale} at {lr_size[0]}x{lr_size[1]}")
    return count_onnx(_graph(name, scale), lr_size=lr_size)


_graph = functools.cache(lambda name, scale: graph_of(name, scale=scale))


def fitted(rows: Sequence[Row]) -> tuple[LatencyModel, list[dict[str, object]]]:
    """The model of all rows, and each row's prediction by fits that have not seen it."""
    by_network = _left_out(rows, lambda row: row.family)
    by_device = _left_out(rows, lambda row: row.device)
    inside_network = _inside(rows, lambda row: row.family, by_network)
    inside_device = _inside(rows, lambda row: row.device, by_device)

    def summary(found: Sequence[float], inside: Sequence[bool], groups: set[str]) -> LeftOut:
        return LeftOut(len(groups), float(np.median(found)), sum(inside) / len(inside))

    factors = [
        [factor_off(predicted, row.measured_ms) for predicted, row in zip(found, rows, strict=True)]
        for found in (by_network, by_device)
    ]
    model = LatencyModel(
        SCHEMA_VERSION,
        _fit(rows),
        _interval_factor([*factors[0], *factors[1]]),
        len(rows),
        summary(factors[0], inside_network, {row.family for row in rows}),
        summary(factors[1], inside_device, {row.device for row in rows}),
    )
    documents: list[dict[str, object]] = [
        {
            "network": row.network,
            "device": row.device,
            "precision": row.precision,
            "published_ms": row.measured_ms,
            "network_left_out_ms": round(network, 4),
            "device_left_out_ms": round(device, 4),
            "inside": [bool(one), bool(other)],
            "source": row.source,
        }
        for row, network, device, one, other in zip(
            rows, by_network, by_device, inside_network, inside_device, strict=True
        )
    ]
    return model, documents


def _fit(rows: Sequence[Row]) -> Parameters:
    """Least squares on logarithms; a network on a device counts once, however many rows it has."""
    keys = [(row.family, row.device) for row in rows]
    weights = [1 / math.sqrt(keys.count(key)) for key in keys]

    def residuals(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
        parameters = Parameters(*map(float, np.exp(logarithms)))
        errors = [
            weight * math.log(likely_ms(row.features, parameters) / row.measured_ms) / NOISE
            for weight, row in zip(weights, rows, strict=True)
        ]
        return np.array([*errors, *((logarithms - PRIOR) / PRIOR_DEVIATION)])

    found = least_squares(residuals, PRIOR, bounds=LIMITS, loss="soft_l1")
    return Parameters(*(float(f"{value:.4g}") for value in np.exp(found.x)))


def _left_out(rows: Sequence[Row], group: Callable[[Row], str]) -> list[float]:
    """Each row's latency by a fit without its group, in ms."""
    fits = {
        name: _fit([row for row in rows if group(row) != name])
        for name in dict.fromkeys(map(group, rows))
    }
    return [likely_ms(row.features, fits[group(row)]) for row in rows]


def _interval_factor(factors: Sequence[float]) -> float:
    """The factor that holds the wanted share of left-out rows, with the finite sample's margin."""
    ordered = sorted(factors)
    at = math.ceil((len(ordered) + 1) * INTERVAL_SHARE) - 1
    return float(f"{ordered[min(at, len(ordered) - 1)]:.4g}")


def _inside(
    rows: Sequence[Row], group: Callable[[Row], str], left_out: Sequence[float]
) -> list[bool]:
    """Whether each row lies in an interval that was made without its group as well."""
    factors = {}
    for name in dict.fromkeys(map(group, rows)):
        rest = [row for row in rows if group(row) != name]
        found = [
            factor_off(predicted, row.measured_ms)
            for key in (lambda row: row.family, lambda row: row.device)
            for predicted, row in zip(_left_out(rest, key), rest, strict=True)
        ]
        factors[name] = _interval_factor(found)
    return [
        factor_off(predicted, row.measured_ms) <= factors[group(row)]
        for predicted, row in zip(left_out, rows, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
