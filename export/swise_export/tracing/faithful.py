"""Traces that equal their network at every size.

Tracing runs a network once and keeps what it saw. Python numbers in its code (a padding worked out
with `if`, the number of windows as an `int`) become constants of the example's size or batch. So
the traced graph is compared with the network at other sizes, odd ones among them; where it differs,
ways to trace are tried in turn that keep such numbers harmless, and where none serves, the export
is refused whatever its PSNR is.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

from swise_deploy.checkpoints.load import LoadedNetwork
from swise_deploy.errors import ExportError, InputError, QualityGateError, SwiseError
from swise_deploy.networks.parts.padding import mirror_to_multiple
from swise_deploy.networks.registry import NETWORKS
from swise_deploy.storage.files import scratch
from swise_export.manifest import METADATA_PREFIX, Form
from swise_export.runtimes.onnxruntime import OnnxRunner
from swise_export.tracing.trace import TRACED_SIZE, python_values, traced_form

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference between the fp32 file and the network, of white, that rounding explains."""

# A larger difference may be another network whose weights are faint, so other ways are tried too.
_SURE = 1e-4

SIZES = (TRACED_SIZE, (48, 48), (45, 61))
"""(width, height) that are compared: the traced one, a square, an odd one."""

_USUAL_MULTIPLES = (8, 16, 2, 4, 32, 64)
_WINDOW_NAMES = ("window_size", "window", "windows", "patch_size", "split_size", "multiple_of")


@dataclass(frozen=True, slots=True)
class Faithful:
    """A network in a form whose trace equals it.

    Attributes:
        network: What to trace; behind padding where its own padding cannot be traced.
        batch: The only number of pictures that the trace takes; None for any.
        max_abs: Largest difference from the network, of white.
    """

    network: LoadedNetwork
    batch: int | None
    max_abs: float


def find_faithful(
    network: LoadedNetwork,
    *,
    form: Form = "deploy",
    size: tuple[int, int] | None = None,
    report: Callable[[str], None] = logger.info,
) -> Faithful:
    """Find a way to trace a network that gives the same at every size.

    Args:
        network: As it was opened.
        form: Of the graph.
        size: (width, height) of the only input size; None for any.
        report: Takes a line where the usual way does not serve.

    Raises:
        QualityGateError: No way gives a graph that equals the network.
        ExportError: The network cannot be traced at all.
    """
    first: _Difference | None = None
    best: tuple[_Way, float] | None = None
    failed: ExportError | None = None
    for way in _ways(network, size):
        try:
            found = _compare(network, way, form=form, size=size)
        except ExportError as error:
            failed = failed or error
            continue
        if found.max_abs <= TOLERANCE and (best is None or found.max_abs < best[1]):
            best = way, found.max_abs
        if found.max_abs <= _SURE:
            break
        logger.info("traced %s: %s", _describe(way) or "as it is", found)
        first = first or found
    if best is not None:
        way, max_abs = best
        if way.padding or way.batch == 1:
            report(_describe(way))
        return Faithful(way.network, way.batch, max_abs)
    if first is None:
        assert failed is not None
        raise _with_way_out(failed, network, size, form)
    raise _refusal(network, first, size, form)


@dataclass(frozen=True, slots=True)
class _Way:
    network: LoadedNetwork
    batch: int | None = None
    padding: int = 0
    zeros: bool = False


def _describe(way: _Way) -> str:
    parts = []
    if way.padding:
        kind = " with zeros" if way.zeros else ""
        parts.append(f"behind padding{kind} to multiples of {way.padding}")
    if way.batch == 1:
        parts.append("for one picture at a time")
    return f"the network is traced {' and '.join(parts)}" if parts else ""


@dataclass(frozen=True, slots=True)
class _Difference:
    size: tuple[int, int]
    max_abs: float
    reason: str = ""

    def __str__(self) -> str:
        width, height = self.size
        return self.reason or f"differs by {self.max_abs:.2g} of white at {width}x{height}"


def _ways(network: LoadedNetwork, size: tuple[int, int] | None) -> Iterator[_Way]:
    """Ways to trace, the one that keeps most open first."""
    if size is not None:
        yield _Way(network, batch=1)
        return
    yield _Way(network)
    if network.name in NETWORKS:
        return
    yield _Way(network, batch=1)
    for multiple in _multiples_of(network.module):
        for zeros in (False, True):
            padded = PaddedNetwork(network.module, multiple, network.scale, zeros=zeros)
            behind = dataclasses.replace(network, module=padded)
            yield _Way(behind, batch=1, padding=multiple, zeros=zeros)


def _multiples_of(module: nn.Module) -> list[int]:
    """Multiples that a network may pad to, those that its own attributes name first."""
    named: list[int] = []
    for part in module.modules():
        for name in _WINDOW_NAMES:
            value = getattr(part, name, None)
            values = value if isinstance(value, (tuple, list)) else [value]
            named += [v for v in values if isinstance(v, int) and 1 < v <= 128]
    every = int(np.lcm.reduce(named)) if named else 1
    wanted = [every, *named, *_USUAL_MULTIPLES]
    return [m for m in dict.fromkeys(wanted) if 1 < m <= 128]


class PaddedNetwork(nn.Module):
    """A network that sees multiples of a size alone; what was added to get there is cropped.

    Args:
        network: Takes multiples of a size without padding of its own.
        multiple: Of height and width.
        scale: Output size over input size.
        zeros: Whether zeros are added, as some networks do, instead of the mirrored picture.
    """

    def __init__(self, network: nn.Module, multiple: int, scale: int, *, zeros: bool) -> None:
        super().__init__()
        self.zeros = zeros
        self.network = network
        self.multiple = multiple
        self.scale = scale

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """Map (N, 3, H, W), any H, W >= 1, to (N, 3, H*scale, W*scale)."""
        height, width = lr.shape[2:]
        if self.zeros:
            right, bottom = (-side % self.multiple for side in (width, height))
            padded = functional.pad(lr, (0, right, 0, bottom))
        else:
            padded = mirror_to_multiple(lr, self.multiple)
        sr: torch.Tensor = self.network(padded)
        return sr[:, :, : height * self.scale, : width * self.scale]


def _compare(
    network: LoadedNetwork, way: _Way, *, form: Form, size: tuple[int, int] | None
) -> _Difference:
    """The largest difference between a traced graph and the network, over all sizes."""
    model = traced_form(way.network, form=form, size=size, batch=way.batch)
    worst = _Difference(size or TRACED_SIZE, 0.0)
    with scratch() as folder:
        path = folder / "traced.onnx"
        # Stated, so that nothing is measured of the file, and nothing is padded on its behalf.
        stated = {"schema_version": "1", "scale": str(network.scale)}
        props = {f"{METADATA_PREFIX}{key}": value for key, value in stated.items()}
        onnx.helper.set_model_props(model, props)
        onnx.save(model, path)
        try:
            with OnnxRunner(path) as runner:
                for width, height in (size,) if size else SIZES:
                    difference = _largest_difference(network, runner, width, height)
                    if difference > worst.max_abs:
                        worst = _Difference((width, height), difference)
        except InputError as error:
            reason = f"does not run at every size: {str(error).replace(str(path), 'it')}"
            return _Difference(worst.size, float("inf"), reason)
    return worst


def _largest_difference(
    network: LoadedNetwork, runner: OnnxRunner, width: int, height: int
) -> float:
    generator = np.random.default_rng(width * height)
    lr = generator.random((1, 3, height, width), np.float32)
    module = network.module.eval()
    with torch.inference_mode():
        expected = module(torch.tensor(lr)).numpy()
    sr = runner.run_file(lr)
    if sr.shape != expected.shape:
        return float("inf")
    difference = float(np.abs(sr - expected).max())
    # Of white; networks whose output is far outside [0, 1] round in proportion.
    return difference / max(1.0, float(np.abs(expected).max()))


def _difference_between_runs(network: LoadedNetwork, size: tuple[int, int]) -> float:
    width, height = size
    lr = torch.full((1, 3, height, width), 0.5)
    with torch.inference_mode():
        first, second = (network.module(lr.clone()) for _ in range(2))
    return float((first - second).abs().max())


def _with_way_out(
    failed: ExportError, network: LoadedNetwork, size: tuple[int, int] | None, form: Form
) -> ExportError:
    """The error of a network that cannot be traced for every size; names the way for one size."""
    if size is None:
        with contextlib.suppress(ExportError):
            traced_form(network, form=form, size=TRACED_SIZE, batch=1)
            return ExportError(f"{failed}, or export it for one size with --size WxH")
    return failed


def _refusal(
    network: LoadedNetwork, found: _Difference, size: tuple[int, int] | None, form: Form
) -> SwiseError:
    varies = _difference_between_runs(network, size or TRACED_SIZE)
    if varies > TOLERANCE:
        return QualityGateError(
            f"{network.name} gives another picture each time that it runs: two runs of one input "
            f"differ by {varies:.2g} of white, and at most {TOLERANCE} is rounding. Nothing was "
            "kept. Take the random numbers out of its forward pass in eval mode"
        )
    lines = python_values(network, form=form)
    named = f" Its code turns sizes into Python numbers: {'; '.join(lines)}." if lines else ""
    if size is not None:
        return QualityGateError(
            f"the traced graph of {network.name} {found}, and at most {TOLERANCE} is rounding. "
            f"Nothing was kept.{named} Make its forward pass a function of its input alone"
        )
    return QualityGateError(
        f"the traced graph of {network.name} is another network at other sizes: it {found}, and at "
        f"most {TOLERANCE} is rounding. Nothing was kept.{named} Export it for one size with "
        "--size WxH, or let that code compute with tensors"
    )
