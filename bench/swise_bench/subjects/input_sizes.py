"""Which input sizes the latency is measured at."""

from collections.abc import Sequence
from pathlib import Path

from swise_bench.subjects.spec import Subject
from swise_deploy.errors import InputError
from swise_engines.tensorrt.manifest import read_manifest
from swise_engines.tensorrt.profiles import Extent
from swise_export.graph.model import read_onnx_file

DEFAULT_LR_SIZE = (160, 90)

LrSize = tuple[int, int]
"""(width, height) in pixels."""


def choose_lr_sizes(asked: Sequence[LrSize], subjects: Sequence[Subject]) -> tuple[LrSize, ...]:
    """The sizes that were asked for; else the one that a file is made for; else 160x90.

    Raises:
        InputError: An ONNX file takes one size alone, and another one was asked for or is the only
            one of another file.
    """
    paths = {subject.name: subject.path for subject in subjects if subject.path is not None}
    only = {
        name: size
        for name, path in paths.items()
        if path.suffix == ".onnx" and (size := read_onnx_file(path).interface.size) is not None
    }
    made_for = [
        *only.values(),
        *(size for path in paths.values() if (size := _typical_size(path)) is not None),
    ]
    chosen = tuple(asked) or tuple(made_for[:1]) or (DEFAULT_LR_SIZE,)
    for name, (width, height) in only.items():
        if any(size != (width, height) for size in chosen):
            sizes = ", ".join(f"{w}x{h}" for w, h in chosen)
            raise InputError(
                f"{name} takes {width}x{height} alone, which does not go with {sizes}. Measure "
                f"files of one size together, with --lr {width}x{height} or without --lr"
            )
    return chosen


def _typical_size(engine: Path) -> LrSize | None:
    """What an engine is tuned for; None where it takes 160x90 as well, and for other files."""
    manifest = None if engine.suffix == ".onnx" else read_manifest(engine)
    if manifest is None or any(p.takes(Extent(1, *DEFAULT_LR_SIZE)) for p in manifest.profiles):
        return None
    typical = manifest.profiles[0].opt
    return typical.width, typical.height
