"""ONNX files as engines are built from them: what they take and give, and their work by layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from swise_deploy.errors import InputError
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.counting import Counts, count_onnx
from swise_export.graph.loading import load_onnx
from swise_export.interface.onnx_file import OnnxFile, read_onnx_file
from swise_export.interface.ports import Interface


@dataclass(frozen=True, slots=True)
class EngineSource:
    """An ONNX file that an engine is built from.

    Attributes:
        file: What it takes and gives.
        counts: Mult-Adds of its nodes, at the size that gives 1280x720 or at its only size.
    """

    file: OnnxFile
    counts: Counts

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.file.path

    @property
    def interface(self) -> Interface:
        """Its input and output."""
        return self.file.interface


def read_source(path: Path) -> EngineSource:
    """Read an ONNX file for a build.

    Raises:
        InputError: It is not a picture network, or holds operators that TensorRT does not have.
    """
    file = read_onnx_file(path)
    _check_operators(path, load_onnx(path, external_data=False))
    return EngineSource(file, count_onnx(path))


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuse what no TensorRT parser takes, before minutes of building."""
    local = {function.domain for function in model.functions}
    foreign = sorted(
        {
            f"{node.op_type} ({node.domain})"
            for node in model.graph.node
            if node.domain not in {"", "ai.onnx", *local}
        }
    )
    if foreign:
        raise InputError(
            f"{path} holds {', '.join(foreign)}, operators of ONNX Runtime that TensorRT does not "
            "have. Build from the file as it was before ONNX Runtime optimised or quantised it"
        )
    if quantised := sorted({n.op_type for n in model.graph.node if n.op_type in _QOPERATORS}):
        raise InputError(
            f"{path} holds {', '.join(quantised)}; TensorRT takes INT8 as QuantizeLinear and "
            "DequantizeLinear pairs. Quantise with quant_format=QuantFormat.QDQ and the extra "
            "option QuantizeBias=False"
        )
    if biases := list(_int32_biases(model)):
        raise InputError(
            f"{path} stores {len(biases)} biases as int32 behind DequantizeLinear, such as "
            f"{biases[0]}, which TensorRT does not take. Quantise again with the extra option "
            "QuantizeBias=False (onnxruntime.quantization), or with swise-export --int8"
        )


_QOPERATORS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})


def _int32_biases(model: onnx.ModelProto) -> Iterator[str]:
    wide = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT32}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input and node.input[0] in wide:
            yield node.input[0]


def check_profile(interface: Interface, profile: Profile, path: Path) -> None:
    """Refuse a profile that a file's own sizes rule out.

    Raises:
        InputError: Names both sizes.
    """
    extents = (profile.min, profile.opt, profile.max)
    width, height = interface.size or (None, None)
    for side, fixed in (("batch", interface.batch), ("width", width), ("height", height)):
        asked = {getattr(extent, side) for extent in extents}
        if fixed is not None and asked != {fixed}:
            only = "" if interface.size is None else f" It takes {width}x{height} alone."
            raise InputError(
                f"{path} takes a {side} of {fixed} alone, but the profile asks for "
                f"{', '.join(map(str, sorted(asked)))}.{only} Leave --size out, or export it again "
                "with open sizes"
            )
    multiple = interface.multiple
    wrong = [e for e in extents if e.width % multiple or e.height % multiple]
    if wrong:
        fitting = round_to_multiple(wrong[0], multiple)
        raise InputError(
            f"{path} takes multiples of {multiple}, but the profile asks for "
            f"{wrong[0].width}x{wrong[0].height}. Use --size {fitting.width}x{fitting.height}"
        )


def fit_profile(interface: Interface, profile: Profile) -> Profile:
    """A profile with a file's own fixed sizes and multiples in the place of the others."""
    return Profile(*(_fit(interface, e) for e in (profile.min, profile.opt, profile.max)))


def _fit(interface: Interface, extent: Extent) -> Extent:
    width, height = interface.size or (extent.width, extent.height)
    return round_to_multiple(
        Extent(interface.batch or extent.batch, width, height), interface.multiple
    )


def round_to_multiple(extent: Extent, multiple: int) -> Extent:
    """Sides rounded up to a multiple."""
    width, height = (-(-side // multiple) * multiple for side in (extent.width, extent.height))
    return Extent(extent.batch, width, height)
