"""The likely latency of a TensorRT engine: a roofline with a few fitted parameters.

Each operator takes the cost of a launch, its arithmetic or its memory traffic at the share of the
peak that engines reach, whichever takes longer, and a fixed number of operations for each element
that it moves. The parameters are fitted to published latencies and checked on networks and devices
that the fit has not seen (`bench/scripts/prediction/fit.py`).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from swise_bench.prediction.roofline import Device, Expectation, PredictedLayer, Prediction
from swise_deploy.storage.documents import NonNegative, Positive, Share, document_from_json

SCHEMA_VERSION = 1

INTERVAL_SHARE = 0.8
"""Share of predictions whose interval should hold the measured latency."""

AtLeastOne = Annotated[float, Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the fit decides.

    Attributes:
        launch_us: Cost of each operator, in microseconds.
        matrix_share: Reached share of the matrix peak.
        vector_share: Reached share of the FP32 peak, in convolutions of few channels.
        bandwidth_share: Reached share of the memory bandwidth.
        operations_for_element: FP32 operations for each element that an operator moves.
    """

    launch_us: NonNegative
    matrix_share: Share
    vector_share: Share
    bandwidth_share: Share
    operations_for_element: NonNegative


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Predictions of published latencies that the fit had not seen.

    Attributes:
        num_groups: Networks or devices, each left out in turn.
        median_factor: Median of predicted over measured or its inverse, whichever is above 1.
        inside: Share of the rows inside the interval, which was made without them as well.
    """

    num_groups: Positive
    median_factor: AtLeastOne
    inside: Share


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """The shipped parameters, and how well they do.

    Attributes:
        schema_version: Version of this document.
        parameters: What the fit decided.
        interval_factor: The interval is the likely latency divided and multiplied by it.
        num_rows: Published latencies of the fit.
        networks: Left out one by one.
        devices: Left out one by one.
    """

    schema_version: int
    parameters: Parameters
    interval_factor: AtLeastOne
    num_rows: Positive
    networks: LeftOut
    devices: LeftOut

    def describe(self) -> str:
        """How well the model does on latencies that it has not seen, in a sentence."""
        networks, devices = self.networks, self.devices
        return (
            f"likely: a model with 5 parameters, fitted to {self.num_rows} published latencies of "
            f"TensorRT; of networks ({networks.num_groups}) and devices ({devices.num_groups}) "
            f"left out of the fit, the median was off by a factor of {networks.median_factor:.2f} "
            f"and {devices.median_factor:.2f}, and {networks.inside:.0%} and {devices.inside:.0%} "
            f"lay inside the {INTERVAL_SHARE:.0%} interval"
        )


@dataclass(frozen=True, slots=True)
class Features:
    """The operators of a graph on a device, as arrays of one length.

    Attributes:
        compute_ms: Arithmetic at the peak.
        transfer_ms: Memory traffic at the full bandwidth.
        element_ms: One FP32 operation for each element moved, at the FP32 peak.
        is_matrix: True where matrix units multiply.
    """

    compute_ms: NDArray[np.float64]
    transfer_ms: NDArray[np.float64]
    element_ms: NDArray[np.float64]
    is_matrix: NDArray[np.bool_]


@functools.cache
def load_latency_model() -> LatencyModel:
    """The model that ships with this version."""
    content = resources.files("swise_bench.prediction").joinpath("latency_model.json").read_bytes()
    return document_from_json(content, LatencyModel, schema_version=SCHEMA_VERSION)


def features_of(layers: Sequence[PredictedLayer], device: Device) -> Features:
    """What the model needs of operators on a device whose FP32 peak is known."""
    assert device.vector_tera_ops is not None, "every target with a peak has it"
    element_ms = 1 / (device.vector_tera_ops * 1e9)
    return Features(
        np.array([layer.compute_ms for layer in layers]),
        np.array([layer.transfer_ms for layer in layers]),
        np.array([layer.num_moved * element_ms for layer in layers]),
        np.array([layer.is_matrix for layer in layers], dtype=np.bool_),
    )


def likely_ms(features: Features, parameters: Parameters) -> float:
    """The latency of all operators in turn."""
    share = np.where(features.is_matrix, parameters.matrix_share, parameters.vector_share)
    slower = np.maximum(
        features.compute_ms / share, features.transfer_ms / parameters.bandwidth_share
    )
    elements = parameters.operations_for_element * features.element_ms
    return float(np.sum(parameters.launch_us / 1000 + slower + elements))


def with_expectation(prediction: Prediction, model: LatencyModel) -> Prediction:
    """A prediction for a GPU with its likely latency and interval."""
    features = features_of(prediction.layers, prediction.device)
    bound = prediction.at_best_ms
    likely = max(bound, likely_ms(features, model.parameters))
    factor = model.interval_factor
    expected = Expectation(likely, max(bound, likely / factor), likely * factor)
    return dataclasses.replace(prediction, expected=expected)


def factor_off(predicted_ms: float, measured_ms: float) -> float:
    """The factor between two latencies, 1 or more."""
    return math.exp(abs(math.log(predicted_ms / measured_ms)))
