"""What only a run shows of an ONNX file from elsewhere: layout, scale, sizes and value range.

The file runs once in ONNX Runtime on a shipped photograph. A network of super-resolution gives the
same picture, larger: brought back to the input's size, its output is close to the input where it
was fed as it wants. That tells 0..1 from 0..255. The answer is kept by the file's content.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from swise_deploy.command.dependencies import installed_version
from swise_deploy.errors import BackendMissingError, InputError, OutputError, first_line
from swise_deploy.pictures.files import RgbImage, read_rgb
from swise_deploy.pictures.folders import sample_paths
from swise_deploy.storage.caches import cache_folder
from swise_deploy.storage.documents import read_document, write_document
from swise_export.graph.adapter import PictureAdapter
from swise_export.graph.interface import WHITES, Interface, Layout, Port
from swise_export.graph.loading import session_source
from swise_export.graph.stated import (
    element_type,
    fixed_dims,
    picture_input,
    refuse_outputs,
)

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1

_SIZES = ((64, 64), (48, 48), (96, 96), (128, 128), (56, 56), (40, 40), (32, 32), (224, 224))
"""Tried in turn, (W, H), until one runs."""

_MULTIPLES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64, 96, 128)
"""Multiples that networks need: windows, strides of encoders."""

_SMALLEST_SIDE = 32
"""The multiple is looked for with pictures of at least this side."""

_FITTING_ERROR = 0.6
"""Error of `_error` below which a range may be taken in the place of the ordinary one.

A sharpener that doubles detail has 1, an output that does not follow the picture at least 1.
"""

_FITTING_SHARE = 1 / 3
"""Another range is taken where its error is at most this share of the ordinary one's."""

_SUSPICIOUS_ERROR = 1.5
"""Error of the best range above which a warning is due."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The answer as it is kept."""

    sha256: str
    interface: Interface
    schema_version: int = SCHEMA_VERSION


def probe_interface(
    path: Path, sha256: str, model: onnx.ModelProto, stated: Interface | None
) -> Interface:
    """What a file takes and gives, by running it.

    Args:
        path: The file.
        sha256: Hash of its content.
        model: The same, weights need not be loaded.
        stated: What the graph states; None where it leaves the layout or the scale open.

    Raises:
        InputError: It does not run on pictures, or what it gives is not a larger picture.
    """
    kept = cache_folder("interfaces") / f"{sha256}.json"
    if kept.is_file():
        try:
            found = read_document(
                kept,
                _Kept,
                what="the kept interface",
                advice="It is measured again",
                schema_version=SCHEMA_VERSION,
            )
        except InputError as error:
            logger.info("%s", error)
        else:
            if found.sha256 == sha256:
                return found.interface
    measured = _measure(path, model, stated)
    try:
        write_document(kept, _Kept(sha256, measured))
    except OutputError as error:
        logger.info("it is measured again next time: %s", error)
    return measured


def _measure(path: Path, model: onnx.ModelProto, stated: Interface | None) -> Interface:
    if installed_version("onnxruntime") is None and not _has_onnxruntime():
        if stated is not None:
            return stated  # the sizes and the range that graphs usually have
        raise BackendMissingError(
            f"{path} leaves its layout or its scale open, which only a run shows, and no ONNX "
            "Runtime is installed. Install onnxruntime"
        )
    session = _Session(path)
    starts = [stated] if stated is not None else list(_guesses(path, model))
    reasons: list[str] = []
    strange: tuple[tuple[int, int], dict[str, NDArray[np.generic]]] | None = None
    for start in starts:
        for size in [start.size] if start.size is not None else _SIZES:
            answer = session.attempt(start, size, reasons)
            if answer is None:
                continue
            scaled = _with_output(start, answer, size)
            if scaled is None:
                strange = strange or (size, answer)
                continue
            multiple, only = _sizes(session, scaled, size)
            found = replace(scaled, multiple=multiple, size=only)
            return _with_range(session, found, only or size)
    if strange is not None:
        refuse_outputs(str(path), strange[0], {n: value.shape for n, value in strange[1].items()})
    raise InputError(
        f"{path} runs on no picture of {' or '.join(f'{w}x{h}' for w, h in _SIZES)} pixels: "
        f"{reasons[0] if reasons else 'it gives no larger picture'}. Export it with open sizes, "
        "or with its one size fixed in the graph"
    )


def _has_onnxruntime() -> bool:
    from importlib.util import find_spec

    return find_spec("onnxruntime") is not None


def _guesses(path: Path, model: onnx.ModelProto) -> Iterator[Interface]:
    """Ways to feed a graph that leaves its layout open, most usual first."""
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
        size = (width, height) if width and height else None
        yield Interface(
            port, replace(port, name=model.graph.output[0].name), 1, size, dims[0] or None
        )


class _Session:
    """The file in ONNX Runtime, which fails quietly."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                session_source(path), options, providers=["CPUExecutionProvider"]
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
    ) -> dict[str, NDArray[np.generic]] | None:
        """All outputs for a photograph of (width, height); None where it fails."""
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


def _batch(interface: Interface, size: tuple[int, int]) -> NDArray[np.generic]:
    """A photograph as a runner of the interface takes it."""
    picture = np.repeat(photograph(size)[None], interface.batch or 1, axis=0)
    if interface.io == "uint8":
        return picture
    floats = picture.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(floats)


def photograph(size: tuple[int, int]) -> RgbImage:
    """The middle of a shipped photograph, (H, W, 3) uint8, mirrored where it is too small."""
    width, height = size
    image = read_rgb(sample_paths()[0])
    beyond = ((0, max(0, height - image.shape[0])), (0, max(0, width - image.shape[1])), (0, 0))
    padded = np.pad(image, beyond, mode="symmetric")
    top, left = (
        (side - wanted) // 2 for side, wanted in zip(padded.shape, (height, width), strict=False)
    )
    return np.ascontiguousarray(padded[top : top + height, left : left + width])


def _with_output(
    start: Interface,
    answer: dict[str, NDArray[np.generic]],
    size: tuple[int, int],
) -> Interface | None:
    """The interface with its picture output and its scale; None where a run shows no such thing."""
    width, height = size
    found: list[tuple[Port, int]] = []
    for name, value in answer.items():
        if value.ndim != 4 or str(value.dtype) not in ("float32", "float16", "float64", "uint8"):
            continue
        order: Sequence[Layout] = (
            ("NHWC", "NCHW") if start.input.layout == "NHWC" else ("NCHW", "NHWC")
        )
        for layout in order:
            rows, columns, channels = (
                value.shape[1:] if layout == "NHWC" else (*value.shape[2:], value.shape[1])
            )
            scale = columns // width
            if (
                channels in (1, 3, 4)
                and scale >= 1
                and (columns, rows)
                == (
                    width * scale,
                    height * scale,
                )
            ):
                dtype = str(value.dtype)
                white = 255.0 if dtype == "uint8" else 1.0
                port = Port(name, dtype, layout, channels, white)  # type: ignore[arg-type]  # compared above
                found.append((port, scale))
                break
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
    """The multiple that sides need, or the only size that runs."""
    if interface.size is not None:
        return 1, interface.size
    for multiple in _MULTIPLES:
        least = -(-_SMALLEST_SIDE // multiple)
        # Neighbouring counts have no common divisor: no larger multiple is met by chance.
        sizes = [
            (multiple * (least + 1), multiple * least),
            (multiple * least, multiple * (least + 3)),
        ]
        if all(_gives(session, interface, size) for size in sizes):
            return multiple, None
    return 1, works


def _gives(session: _Session, interface: Interface, size: tuple[int, int]) -> bool:
    answer = session.attempt(interface, size, [])
    if answer is None:
        return False
    expected = interface.output.shape(
        interface.batch or 1, size[0] * interface.scale, size[1] * interface.scale
    )
    return answer[interface.output.name].shape == expected


def _with_range(session: _Session, interface: Interface, size: tuple[int, int]) -> Interface:
    """The interface with the values of white that its network works on."""
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
                "%s gives pictures unlike its input in every range tried: its weights may be "
                "untrained, or it does not upscale. It is fed 0 to %.0f",
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
    """Distance of the output, brought back to the input's size, from the input.

    The difference of the means, of white, plus the deviation of the rest over that of the input.
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
