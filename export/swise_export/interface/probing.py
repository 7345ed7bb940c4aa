"""Measurement of the layout, scale, sizes and value range that an ONNX file does not state.

The file runs in ONNX Runtime on a shipped photograph. A super-resolution network returns the same
picture, larger: reduced to the input's size, its output is close to the input if the input had the
right range. That distinguishes 0..1 from 0..255. The result is cached by the file's content.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from swise_deploy.command.dependencies import install_command
from swise_deploy.errors import BackendMissingError, InputError, first_line
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.runner import batch_from_images
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.documents import read_cached, write_cached
from swise_export.graph.half_emulation import with_half_rounding
from swise_export.graph.loading import load_onnx, session_source
from swise_export.graph.number_formats import narrow_formats
from swise_export.interface.adapter import PictureAdapter
from swise_export.interface.ports import WHITES, ElementType, Interface, Layout, Port
from swise_export.interface.stated import (
    element_type,
    fixed_dims,
    only_size,
    picture_input,
    port_of_shape,
    refuse_outputs,
)

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1

_SIZES = ((64, 64), (48, 48), (96, 96), (128, 128), (56, 56), (40, 40), (32, 32), (224, 224))
"""Sizes, (W, H), that are tried in turn until one runs."""

_MULTIPLES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64, 96, 128)
"""Multiples that networks require: windows, strides of encoders."""

_SMALLEST_SIDE = 32
"""The smallest side of pictures in the search for the multiple."""

_FITTING_ERROR = 0.6
"""The largest `_error` of a range that fits.

A sharpener that doubles detail has 1; an output that is unrelated to the picture has at least 1.
"""

_FITTING_SHARE = 1 / 3
"""Another range than 0..1 fits if its error is at most this share of the error of 0..1."""

_SUSPICIOUS_ERROR = 1.5
"""The error of the best range above which a warning is logged."""


@dataclass(frozen=True, slots=True)
class _CachedInterface:
    """A measured interface in the cache."""

    sha256: str
    interface: Interface
    schema_version: int = SCHEMA_VERSION


def probe_interface(
    path: Path, sha256: str, model: onnx.ModelProto, stated: Interface | None
) -> Interface:
    """Measure the pictures that a file takes and gives by running it, or read the cached result.

    Args:
        path: The file.
        sha256: Hash of its content.
        model: The loaded file; weights are not needed.
        stated: The interface that the graph states; None where it leaves layout or scale open.

    Raises:
        InputError: The file does not run on pictures, or its output is not a larger picture.
    """
    cached = cache_folder("interfaces") / f"{sha256}.json"
    found = read_cached(cached, _CachedInterface, schema_version=SCHEMA_VERSION)
    if found is not None and found.sha256 == sha256:
        return found.interface
    measured = _measure(path, model, stated)
    write_cached(cached, _CachedInterface(sha256, measured), is_cheap=True)
    return measured


def _measure(path: Path, model: onnx.ModelProto, stated: Interface | None) -> Interface:
    if find_spec("onnxruntime") is None:
        if stated is not None:
            return stated  # with the usual sizes and range
        raise BackendMissingError(
            f"{path} does not state its layout or its scale, and ONNX Runtime, which would measure "
            f"them, is not installed. Install it with: {install_command('cpu')}"
        )
    if not model.graph.output:
        raise InputError(f"{path} gives nothing; expected a picture. Export the network again")
    session = _Session(path, computes_bf16="bf16" in narrow_formats(model))
    starts = [stated] if stated is not None else list(_guesses(path, model))
    reasons: list[str] = []
    unusable: tuple[tuple[int, int], dict[str, NDArray[np.number]]] | None = None
    for start in starts:
        for size in [start.size] if start.size is not None else _SIZES:
            answer = session.attempt(start, size, reasons)
            if answer is None:
                continue
            scaled = _with_output(start, answer, size)
            if scaled is None:
                unusable = unusable or (size, answer)
                continue
            multiple, only = _sizes(session, scaled, size)
            found = replace(scaled, multiple=multiple, size=only)
            return _with_range(session, found, only or size)
    if unusable is not None:
        refuse_outputs(str(path), *unusable)
    raise InputError(
        f"{path} does not run on pictures of {' or '.join(f'{w}x{h}' for w, h in _SIZES)} pixels: "
        f"{reasons[0] if reasons else 'it gives no larger picture'}. Export it with dynamic sizes, "
        "or with its one size fixed in the graph"
    )


def _guesses(path: Path, model: onnx.ModelProto) -> Iterator[Interface]:
    """Possible interfaces of a graph that does not state its layout, the most usual one first."""
    info = picture_input(model, str(path))
    dims = fixed_dims(info)
    dtype = element_type(info, str(path))
    layouts: tuple[Layout, ...] = ("NHWC", "NCHW") if dtype == "uint8" else ("NCHW", "NHWC")
    for channels, layout in itertools.product((3, 1, 4), layouts):
        at = 3 if layout == "NHWC" else 1
        if dims[at] not in (0, channels):
            continue
        height, width = (dims[1], dims[2]) if layout == "NHWC" else (dims[2], dims[3])
        port = Port(info.name, dtype, layout, channels, 255.0 if dtype == "uint8" else 1.0)
        output = replace(port, name=model.graph.output[0].name)
        yield Interface(port, output, 1, only_size(width, height), dims[0] or None)


class _Session:
    """A file in ONNX Runtime; failures of runs are collected, not raised.

    A file in bf16, which its CPU does not run, is run with emulated rounding.
    """

    def __init__(self, path: Path, *, computes_bf16: bool = False) -> None:
        import onnxruntime

        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            source = (
                with_half_rounding(load_onnx(path)).SerializeToString()
                if computes_bf16
                else session_source(path)
            )
            self._session = onnxruntime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has no base class of its own
            raise InputError(
                f"ONNX Runtime cannot load {path}: {first_line(error)}. Expected a whole ONNX model"
            ) from error
        self.names = [output.name for output in self._session.get_outputs()]
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = 4

    def attempt(
        self, interface: Interface, size: tuple[int, int], reasons: list[str], *, white: float = 0
    ) -> dict[str, NDArray[np.number]] | None:
        """All outputs for a photograph of (width, height); None where the run fails."""
        port = replace(interface.input, white=white) if white else interface.input
        interface = replace(interface, input=port, multiple=1)
        adapter = PictureAdapter(interface)
        lr = adapter.encode(_batch(interface, size))
        try:
            outputs = self._session.run(None, {port.name: lr}, self._run_options)
        except Exception as error:  # noqa: BLE001  # ONNX Runtime has no base class of its own
            reasons.append(first_line(error))
            return None
        return dict(zip(self.names, outputs, strict=True))


def _batch(interface: Interface, size: tuple[int, int]) -> NDArray[np.number]:
    """A batch of a photograph, in the layout that the interface's io names."""
    pictures = np.repeat(photograph(size)[None], interface.batch or 1, axis=0)
    return batch_from_images(pictures, interface.io)


def photograph(size: tuple[int, int], *, number: int = 0) -> RgbImage:
    """The centre of a shipped photograph, (H, W, 3) uint8, mirrored where it is too small."""
    width, height = size
    image = read_rgb(sample_paths()[number])
    beyond = ((0, max(0, height - image.shape[0])), (0, max(0, width - image.shape[1])), (0, 0))
    padded = np.pad(image, beyond, mode="symmetric")
    top, left = (
        (side - wanted) // 2 for side, wanted in zip(padded.shape, (height, width), strict=False)
    )
    return np.ascontiguousarray(padded[top : top + height, left : left + width])


def _with_output(
    start: Interface,
    answer: dict[str, NDArray[np.number]],
    size: tuple[int, int],
) -> Interface | None:
    """The interface with its picture output and scale; None if no output is a larger picture."""
    found: list[tuple[Port, int]] = []
    for name, value in answer.items():
        dtype = str(value.dtype)
        element = cast("ElementType", dtype) if dtype in get_args(ElementType) else None
        port = port_of_shape(name, element, value.shape, size, start.input.layout)
        found += [port] if port is not None else []
    if len(found) > 1:
        named = [(port, scale) for port, scale in found if port.name == start.output.name]
        found = named if start.scale > 1 and named else found
    if len(found) != 1:
        return None
    output, scale = found[0]
    return replace(start, output=output, scale=scale)


def _sizes(
    session: _Session, interface: Interface, works: tuple[int, int]
) -> tuple[int, tuple[int, int] | None]:
    """The multiple that sides have to be, or the only size that runs.

    Raises:
        InputError: Width and height of the output are exchanged.
    """
    if interface.size is not None:
        return 1, interface.size
    for multiple in _MULTIPLES:
        least = -(-_SMALLEST_SIDE // multiple)
        # Consecutive numbers have no common divisor, so no larger multiple fits by chance.
        sizes = [
            (multiple * (least + 1), multiple * least),
            (multiple * least, multiple * (least + 3)),
        ]
        shapes = [_output_shape(session, interface, size) for size in sizes]
        if shapes == [_expected_shape(interface, size) for size in sizes]:
            return multiple, None
        if shapes == [_expected_shape(interface, size[::-1]) for size in sizes]:
            (width, height), given = sizes[0], shapes[0]
            raise InputError(
                f"{session.path} exchanges width and height: a picture of {width}x{height} becomes "
                f"an output of shape {given}. Export the network without that transposition"
            )
    return 1, works


def _output_shape(
    session: _Session, interface: Interface, size: tuple[int, int]
) -> tuple[int, ...] | None:
    """The shape of the picture that a picture of (width, height) becomes; None if it fails."""
    answer = session.attempt(interface, size, [])
    return None if answer is None else answer[interface.output.name].shape


def _expected_shape(interface: Interface, size: tuple[int, int]) -> tuple[int, ...]:
    width, height = (side * interface.scale for side in size)
    return interface.output.shape(interface.batch or 1, width, height)


def _with_range(session: _Session, interface: Interface, size: tuple[int, int]) -> Interface:
    """The interface with the values of white that fit its network."""
    usual = _error(session, interface, size)
    if usual <= _FITTING_ERROR:
        return interface
    ins = (255.0,) if interface.input.dtype == "uint8" else WHITES
    outs = (255.0,) if interface.output.dtype == "uint8" else WHITES
    ways = [
        replace(
            interface,
            input=replace(interface.input, white=white_in),
            output=replace(interface.output, white=white_out),
        )
        for white_in, white_out in itertools.product(ins, outs)
    ]
    errors = {way: _error(session, way, size) for way in ways}
    best = min(errors, key=lambda way: errors[way])
    if errors[best] > min(_FITTING_ERROR, usual * _FITTING_SHARE):
        if errors[best] > _SUSPICIOUS_ERROR:
            logger.warning(
                "%s gives pictures that are unlike its input in every range: its weights may be "
                "untrained, or it does not upscale. Its input is 0 to %.0f",
                session.path,
                interface.input.white,
            )
        return interface
    logger.info(
        "%s takes pictures of 0 to %.0f and gives 0 to %.0f",
        session.path,
        best.input.white,
        best.output.white,
    )
    return best


def _error(session: _Session, interface: Interface, size: tuple[int, int]) -> float:
    """Distance of the output, reduced to the input's size, from the input.

    The sum of the difference of the means, as a share of white, and of the standard deviation of
    the difference over that of the input.
    """
    padded = tuple(-(-side // interface.multiple) * interface.multiple for side in size)
    answer = session.attempt(interface, (padded[0], padded[1]), [])
    if answer is None:
        return float("inf")
    whole = replace(interface, multiple=1)
    given = _batch(whole, (padded[0], padded[1]))
    taken = PictureAdapter(whole).decode(answer[interface.output.name], given)
    lr, sr = given.astype(np.float64), taken.astype(np.float64)
    if whole.io == "uint8":
        lr, sr = (pictures.transpose(0, 3, 1, 2) / 255 for pictures in (lr, sr))
    batch, channels, height, width = lr.shape
    scale = interface.scale
    blocks = sr.reshape(batch, channels, height, scale, width, scale)
    small = blocks.mean(axis=(3, 5))
    offset = float(abs(small.mean() - lr.mean()))
    detail = float(np.std(small - lr) / max(np.std(lr), 1e-6))
    return offset + detail if np.isfinite(offset + detail) else float("inf")
