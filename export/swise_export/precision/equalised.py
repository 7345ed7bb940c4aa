"""Calibration of an equalised network, as the search has it and a plan repeats it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from swise_deploy.precision import QuantisedPrecision
from swise_export.precision.calibration import Calibration, Rounding, calibrate, largest_by_channel
from swise_export.precision.crops import Split
from swise_export.precision.quantised.equalisation import Equalised, Factors, equalised
from swise_export.precision.quantised.qdq import Layer


def calibrate_equalised(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    split: Split,
    *,
    channels: Mapping[str, NDArray[np.float32]],
    factors: Mapping[str, Factors],
    precision: QuantisedPrecision,
    rounding: Rounding,
    cache: Path | None,
    report: Callable[[str], None],
) -> tuple[Equalised, Calibration]:
    """Equalise the inputs of layers by some factors, and calibrate on what results."""
    equal = equalised(model, layers, factors)
    found = calibrate(
        equal.model,
        equal.layers,
        split.crops,
        largest=_largest(channels, factors),
        precision=precision,
        rounding=rounding,
        cache=cache,
        report=report,
    )
    return equal, dataclasses.replace(found, factors=factors)


def channels_on_pictures(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    split: Split,
    report: Callable[[str], None],
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of every channel of every layer's input, on all views of the pictures."""
    return largest_by_channel(model, layers, [*split.crops, *split.extremes], report=report)


def _largest(
    channels: Mapping[str, NDArray[np.float32]], factors: Mapping[str, Factors]
) -> dict[str, float]:
    """Largest magnitude of each layer's input, equalised."""
    return {
        name: float((largest / np.array(factors.get(name) or 1.0, np.float32)).max(initial=0.0))
        for name, largest in channels.items()
    }
