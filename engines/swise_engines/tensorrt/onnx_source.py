"""What an ONNX file says about itself, as far as building an engine needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import onnx

from swise_deploy.command.console import size_text
from swise_deploy.errors import InputError
from swise_deploy.runner import PictureIO
from swise_deploy.storage.files import sha256_of
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.graph.counting import Counts, count_onnx, picture_input, picture_layout, read_onnx
from swise_export.manifest import facts_of_onnx


@dataclass(frozen=True, slots=True)
class SourceOnnx:
    """An ONNX file that takes one batch of pictures and gives one.

    Attributes:
        path: The file.
        sha256: Hash of the file.
        input_name: Its input tensor.
        output_name: Its output tensor.
        scale: Output size over input size.
        io: How pictures enter and leave.
        precision: What the file says of itself: "fp32", "fp16", "int8", "mixed"; "" if nothing.
        fixed: Batch, width, height; None where the file leaves one open.
        metadata: Its metadata_props that start with "swise.", without that prefix.
        counts: Mult-Adds of its nodes, at the size that gives 1280x720.
    """

    path: Path
    sha256: str
    input_name: str
    output_name: str
    scale: int
    io: PictureIO
    precision: str
    fixed: tuple[int | None, int | None, int | None]
    metadata: Mapping[str, str]
    counts: Counts

    def check_profile(self, profile: Profile) -> None:
        """Refuse a profile that the file's own fixed sizes rule out.

        Raises:
            InputError: Names both sizes.
        """
        sides = ("batch", "width", "height")
        for side, fixed in zip(sides, self.fixed, strict=True):
            asked = {getattr(extent, side) for extent in (profile.min, profile.opt, profile.max)}
            if fixed is not None and asked != {fixed}:
                raise InputError(
                    f"{self.path} was exported for a {side} of {fixed} alone, but the profile asks "
                    f"for {', '.join(map(str, sorted(asked)))}. Leave --size out, or export again "
                    "with open sizes"
                )

    def fit_profile(self, profile: Profile) -> Profile:
        """A profile with the file's own fixed sizes in the place of the others."""
        return Profile(*(self._fit(extent) for extent in (profile.min, profile.opt, profile.max)))

    def _fit(self, extent: Extent) -> Extent:
        batch, width, height = self.fixed
        return Extent(batch or extent.batch, width or extent.width, height or extent.height)


def read_source(path: Path) -> SourceOnnx:
    """Read an ONNX file's facts; scale and layout are worked out where the file does not say them.

    Raises:
        InputError: No whole ONNX file, or not one batch of RGB pictures in and one out.
    """
    sha256 = sha256_of(path)
    model = read_onnx(path)
    info = picture_input(model)
    metadata = facts_of_onnx(model)
    counts = count_onnx(model)
    scale, rest = divmod(counts.sr_size[0], counts.lr_size[0])
    if rest or scale < 1 or counts.sr_size[1] != scale * counts.lr_size[1]:
        raise InputError(
            f"{path} turns {size_text(counts.lr_size)} into {size_text(counts.sr_size)}; expected "
            "a whole multiple of both sides"
        )
    return SourceOnnx(
        path=path,
        sha256=sha256,
        input_name=info.name,
        output_name=model.graph.output[0].name,
        scale=scale,
        io=_read_io(path, info, metadata),
        precision=metadata.get("precision", ""),
        fixed=_fixed_sides(info),
        metadata=metadata,
        counts=counts,
    )


def _read_io(path: Path, info: onnx.ValueInfoProto, metadata: Mapping[str, str]) -> PictureIO:
    said = metadata.get("io")
    is_uint8 = info.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    found = "uint8" if is_uint8 else "float"
    layout = "nhwc" if is_uint8 else "nchw"
    kind = onnx.TensorProto.DataType.Name(info.type.tensor_type.elem_type)
    dims = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    is_known = is_uint8 or kind == "FLOAT"
    if not is_known or picture_layout(info) != layout or dims[3 if is_uint8 else 1] != 3:
        raise InputError(
            f"{path} takes {info.name} of type {kind.lower()} and shape {dims}; expected float32 "
            "(N, 3, H, W) or uint8 (N, H, W, 3)"
        )
    if said is not None and (said not in get_args(PictureIO) or said != found):
        raise InputError(f"{path} says that its io is {said!r}, but its input is {found}")
    return cast("PictureIO", found)


def _fixed_sides(info: onnx.ValueInfoProto) -> tuple[int | None, int | None, int | None]:
    dims = [dim.dim_value or None for dim in info.type.tensor_type.shape.dim]
    if picture_layout(info) == "nhwc":
        batch, height, width = dims[0], dims[1], dims[2]
    else:
        batch, height, width = dims[0], dims[2], dims[3]
    return batch, width, height
